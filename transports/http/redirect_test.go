package http_test

import (
	"context"
	"encoding/pem"
	"errors"
	"net"
	nethttp "net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fairlead-iot/fairlead/core"
	"github.com/fairlead-iot/fairlead/transports/http"
	"github.com/fairlead-iot/fairlead/transports/netdial"
)

type token struct{}

func (token) Credential(context.Context) (core.Credential, error) {
	return core.Credential{Token: "SharedAccessSignature sig=secret"}, nil
}

// TestACallFollowsNoRedirect: whoever an answer points to is reached by no proxy, perhaps in the clear, and is shown the
// module's token.
func TestACallFollowsNoRedirect(t *testing.T) {
	var reached atomic.Int64
	other := httptest.NewServer(nethttp.HandlerFunc(func(nethttp.ResponseWriter, *nethttp.Request) { reached.Add(1) }))
	defer other.Close()
	edge := httptest.NewTLSServer(nethttp.RedirectHandler(other.URL, nethttp.StatusTemporaryRedirect))
	defer edge.Close()
	at, err := url.Parse(edge.URL)
	if err != nil {
		t.Fatal(err)
	}
	host, text, err := net.SplitHostPort(at.Host)
	if err != nil {
		t.Fatal(err)
	}
	port, err := strconv.Atoi(text)
	if err != nil {
		t.Fatal(err)
	}
	id := core.Identity{Hostname: "hub.test", DeviceID: "gw", ModuleID: "filter", Gateway: "example.com"} // a name of the certificate's
	c, err := http.New(http.Config{
		Identity: id, Credentials: token{}, Address: host, Port: port,
		TLS: netdial.TLSConfig{ServerVerificationCert: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: edge.Certificate().Raw})},
	})
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.InvokeMethod(t.Context(), core.Identity{DeviceID: "gw", ModuleID: "press"}, []byte(`{"methodName":"double"}`), time.Minute)
	e, ok := errors.AsType[*core.Error](err)
	if !ok || e.Status != nethttp.StatusTemporaryRedirect || !errors.Is(err, core.ErrService) {
		t.Errorf("got %v, want a refusal with status 307", err)
	}
	if n := reached.Load(); n > 0 {
		t.Errorf("another host was asked %d times", n)
	}
}
