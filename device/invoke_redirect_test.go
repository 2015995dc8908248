package device

import (
	"context"
	"encoding/pem"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"sync/atomic"
	"testing"

	"github.com/fairlead-iot/fairlead/core"
)

type token struct{}

func (token) Credential(context.Context) (core.Credential, error) {
	return core.Credential{Token: "SharedAccessSignature sig=secret"}, nil
}

// TestACallFollowsNoRedirect: whoever an answer points to is reached by no proxy, perhaps in the clear, and is shown the
// module's token.
func TestACallFollowsNoRedirect(t *testing.T) {
	var reached atomic.Int64
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { reached.Add(1) }))
	defer other.Close()
	edge := httptest.NewTLSServer(http.RedirectHandler(other.URL, http.StatusTemporaryRedirect))
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
	o := newOptions(nil)
	o.Address, o.HTTPSPort = host, port
	o.ServerVerificationCert = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: edge.Certificate().Raw})
	id := Identity{Hostname: "hub.test", DeviceID: "gw", ModuleID: "filter", Gateway: "example.com"} // a name of the certificate's
	i := newInvoker(o, id, token{})
	if err := i.trust(o, id); err != nil {
		t.Fatal(err)
	}
	_, err = i.invoke(t.Context(), "gw", "press", MethodCall{Name: "double"})
	e, ok := errors.AsType[*core.Error](err)
	if !ok || e.Status != http.StatusTemporaryRedirect || !errors.Is(err, ErrService) {
		t.Errorf("got %v, want a refusal with status 307", err)
	}
	if n := reached.Load(); n > 0 {
		t.Errorf("another host was asked %d times", n)
	}
}
