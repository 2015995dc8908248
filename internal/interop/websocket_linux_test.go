//go:build interop && linux

package interop_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fairlead-iot/fairlead/device"
	"github.com/fairlead-iot/fairlead/hub"
	"github.com/fairlead-iot/fairlead/hub/hubtest"
	"github.com/fairlead-iot/fairlead/transports/transporttest"
)

// Microsoft's clients know port 443 only for WebSocket: a network of its own has it.
func TestTheUpgradeBesideThatOfMicrosoftsSDK(t *testing.T) {
	nodePackages(t)
	runInNamespace(t, "TestUpgradesInsideTheNamespace")
}

// upgrades stands between clients and a hub, ends their TLS, and notes the request for the upgrade.
type upgrades struct {
	ca []byte

	mu   sync.Mutex
	seen []*http.Request
}

func startUpgrades(t *testing.T, h *hubtest.Hub) *upgrades {
	t.Helper()
	ca := transporttest.NewAuthority(t, "recorder")
	l, err := tls.Listen("tcp", "127.0.0.1:443", &tls.Config{
		Certificates: []tls.Certificate{ca.Issue(t, nil, "localhost")}, MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"},
	})
	if err != nil {
		t.Fatal(err)
	}
	u := &upgrades{ca: ca.PEM}
	var work sync.WaitGroup
	work.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			work.Go(func() { u.carry(t, h, c) })
		}
	})
	t.Cleanup(func() { _ = l.Close(); work.Wait() })
	return u
}

func (u *upgrades) carry(t *testing.T, h *hubtest.Hub, client net.Conn) {
	defer client.Close()
	var head strings.Builder
	in := bufio.NewReader(client)
	for line := "-"; line != "\r\n"; {
		var err error
		if line, err = in.ReadString('\n'); err != nil {
			return // nobody that asks
		}
		head.WriteString(line)
	}
	req, err := http.ReadRequest(bufio.NewReader(strings.NewReader(head.String())))
	if err != nil {
		t.Errorf("%q: %v", head.String(), err)
		return
	}
	u.mu.Lock()
	u.seen = append(u.seen, req)
	u.mu.Unlock()
	up, err := tls.Dial("tcp", h.HTTPSAddr().String(), &tls.Config{RootCAs: h.CAPool(), ServerName: "localhost", MinVersion: tls.VersionTLS12})
	if err != nil {
		t.Error(err)
		return
	}
	defer up.Close()
	if _, err := io.WriteString(up, head.String()); err != nil {
		return
	}
	go func() {
		_, _ = io.Copy(client, up)
		_ = client.Close()
	}()
	_, _ = io.Copy(up, in)
}

// TestUpgradesInsideTheNamespace is the process of the test above.
func TestUpgradesInsideTheNamespace(t *testing.T) {
	if os.Getenv(insideNamespace) != t.Name() {
		t.Skip("runs only as a process of TestTheUpgradeBesideThatOfMicrosoftsSDK")
	}
	raiseLoopback(t)
	h := hubtest.Start(t, hubtest.WithConfig(func(c *hub.Config) { c.MQTTPort, c.HTTPSPort = 8883, 8443 }))
	u := startUpgrades(t, h)
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, u.ca, 0o600); err != nil {
		t.Fatal(err)
	}

	d := startNode(t, "device.js", "NODE_EXTRA_CA_CERTS="+ca)
	d.must("connect", map[string]any{"connectionString": h.AddDevice("theirs"), "protocol": "mqttws"})
	d.must("send", map[string]any{"body": "hello"})
	d.must("close", nil)

	c, err := device.FromConnectionString(h.AddDevice("ours"), func(o *device.Options) { o.WebSockets, o.ServerVerificationCert = true, u.ca })
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := c.Send(ctx, &device.Message{Payload: []byte("hello")}); err != nil {
		t.Fatal(err)
	}
	if err := c.Shutdown(ctx); err != nil {
		t.Error(err)
	}
	h.WaitCount("theirs", 1)
	h.WaitCount("ours", 1)

	u.mu.Lock()
	defer u.mu.Unlock()
	if len(u.seen) != 2 {
		t.Fatalf("%d requests", len(u.seen))
	}
	theirs, ours := u.seen[0], u.seen[1]
	for _, r := range u.seen {
		if len(r.Header.Get("Sec-WebSocket-Key")) != 24 {
			t.Errorf("key %q", r.Header.Get("Sec-WebSocket-Key"))
		}
		r.Header.Del("Sec-WebSocket-Key")
	}
	// Ours offers no compression, and is in port and Origin like the client for Python.
	want := theirs.Header.Clone()
	want.Del("Sec-WebSocket-Extensions")
	want.Set("Origin", "https://localhost:443")
	if diff := cmp.Diff(want, ours.Header); diff != "" {
		t.Errorf("headers (-theirs +ours):\n%s", diff)
	}
	if ours.Method != theirs.Method || ours.RequestURI != theirs.RequestURI || ours.Proto != theirs.Proto || ours.Host != theirs.Host+":443" {
		t.Errorf("ours %s %s %s to %s, theirs %s %s %s to %s", ours.Method, ours.RequestURI, ours.Proto, ours.Host, theirs.Method, theirs.RequestURI, theirs.Proto, theirs.Host)
	}
}
