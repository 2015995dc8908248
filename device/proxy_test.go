package device_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/fairlead-iot/fairlead/device"
	"github.com/fairlead-iot/fairlead/hub/api"
	"github.com/fairlead-iot/fairlead/hub/hubtest"
)

// startProxy is an HTTP proxy that wants the user gw with the password pw and leads every tunnel to one address. It models
// CONNECT with Basic, and no rule of who may go where.
func startProxy(t *testing.T, to string) (port int, asked func() []string) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var targets []string
	var wg sync.WaitGroup
	t.Cleanup(func() {
		listener.Close()
		wg.Wait()
	})
	serve := func(conn net.Conn) {
		defer conn.Close()
		r := bufio.NewReader(conn)
		for {
			req, err := http.ReadRequest(r)
			if err != nil {
				return
			}
			if req.Header.Get("Proxy-Authorization") == "Basic Z3c6cHc=" {
				mu.Lock()
				targets = append(targets, req.Host)
				mu.Unlock()
				break
			}
			if _, err := io.WriteString(conn, "HTTP/1.1 407 Who is it\r\nProxy-Authenticate: Basic realm=\"plant\"\r\nContent-Length: 0\r\n\r\n"); err != nil {
				return
			}
		}
		far, err := net.Dial("tcp", to)
		if err != nil {
			t.Error(err)
			return
		}
		defer far.Close()
		if _, err := io.WriteString(conn, "HTTP/1.1 200 OK\r\n\r\n"); err != nil {
			return
		}
		wg.Go(func() { _, _ = io.Copy(conn, far); conn.Close() })
		_, _ = io.Copy(far, r)
	}
	wg.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { serve(conn) })
		}
	})
	return listener.Addr().(*net.TCPAddr).Port, func() []string {
		mu.Lock()
		defer mu.Unlock()
		return append([]string(nil), targets...)
	}
}

func TestAClientGoesThroughAProxy(t *testing.T) {
	hub := hubtest.Start(t)
	port, asked := startProxy(t, hub.MQTTAddr().String())
	through := func(password string) func(*device.Options) {
		return func(o *device.Options) {
			o.ServerVerificationCert, o.Address, o.Port = hub.CAPEM(), "hub.behind.the.proxy", 8883
			o.Proxy = device.ProxyOptions{Type: device.ProxyHTTP, Addr: "127.0.0.1", Port: port, Username: "gw", Password: device.Secret(password)}
		}
	}
	c, err := device.FromConnectionString(hub.AddDevice("dev1"), through("pw"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Shutdown(context.WithoutCancel(t.Context())) }()
	if err := c.Send(t.Context(), text("by proxy")); err != nil {
		t.Fatal(err)
	}
	hub.WaitTelemetry("dev1", func(m api.Message) bool { return string(m.Body) == "by proxy" })
	if got := fmt.Sprint(asked()); got != "[hub.behind.the.proxy:8883]" {
		t.Errorf("the proxy was asked for %s", got)
	}

	// # so does a registration
	e := hub.AddEnrollment(api.Enrollment{RegistrationID: "press"})
	r, err := device.Provision(t.Context(), device.Enrollment{
		Host: hub.Hostname(), IDScope: hub.IDScope(), RegistrationID: "press", SymmetricKey: e.Attestation.SymmetricKey.PrimaryKey,
	}, through("pw"))
	if err != nil || r.State.DeviceID != "press" || len(asked()) != 2 {
		t.Errorf("registered as %+v, %v, and the proxy was asked for %v", r.State, err, asked())
	}

	// # and what the proxy refuses is said, without a word of the device's own proof
	refused, err := device.FromConnectionString(hub.AddDevice("dev2"), through("pass-word-1"), func(o *device.Options) { o.ConnectionRetry = false })
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = refused.Shutdown(context.WithoutCancel(t.Context())) }()
	err = refused.Connect(t.Context())
	e2, ok := errors.AsType[*device.Error](err)
	if !ok || e2.Kind != device.Blocked || e2.Phase != "proxy" || e2.Status != 407 || errors.Is(err, device.ErrCredential) ||
		!strings.Contains(err.Error(), "407 Who is it: offers Basic; it refuses the user name or the password") || strings.Contains(err.Error(), "pass-word-1") {
		t.Errorf("%v, want a refusal by the proxy", err)
	}
}
