package mqttws

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/fairlead-iot/fairlead/core"
	"github.com/fairlead-iot/fairlead/transports/mqtt"
	"github.com/fairlead-iot/fairlead/transports/transporttest"
)

var testIdentity = core.Identity{Hostname: "hub.example.net", DeviceID: "dev"}

// front is a server of WebSockets for connections that come from pipe or another opener, one at a time.
type front struct {
	handle http.Handler
}

// served is a listener that hands out one connection.
type served struct {
	conns chan net.Conn
	once  sync.Once
}

func (l *served) Accept() (net.Conn, error) {
	if c, ok := <-l.conns; ok {
		return c, nil
	}
	return nil, net.ErrClosed
}
func (l *served) Close() error   { l.once.Do(func() { close(l.conns) }); return nil }
func (l *served) Addr() net.Addr { return &net.TCPAddr{} }

// Open returns the device's end of a connection to the front.
func (f front) Open(ctx context.Context, _ core.Credential) (net.Conn, error) {
	if err := ctx.Err(); err != nil {
		return nil, &core.Error{Op: "dial", Kind: core.Transient, Phase: "tcp", Err: err}
	}
	device, hub := net.Pipe()
	l := &served{conns: make(chan net.Conn, 1)}
	l.conns <- hub
	server := &http.Server{Handler: f.handle, ConnState: func(_ net.Conn, s http.ConnState) {
		if s == http.StateClosed || s == http.StateHijacked {
			_ = l.Close()
		}
	}}
	go func() { _ = server.Serve(l) }()
	return device, nil
}

// upgraded is a front that upgrades everything, and hands the connections to serve.
func upgraded(serve func(net.Conn)) front {
	return front{http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		u := websocket.Upgrader{Subprotocols: []string{"mqtt"}, CheckOrigin: func(*http.Request) bool { return true }}
		ws, err := u.Upgrade(w, r, nil)
		if err != nil {
			return
		}
		serve(&serverConn{Conn: ws})
	})}
}

// serverConn is the hub's end of a WebSocket as a stream; one message for each Write.
type serverConn struct {
	*websocket.Conn
	wmu  sync.Mutex
	rest io.Reader
}

func (c *serverConn) Read(p []byte) (int, error) {
	for {
		if c.rest == nil {
			kind, r, err := c.NextReader()
			if err != nil {
				return 0, err
			}
			if kind != websocket.BinaryMessage {
				return 0, errors.New("not a binary message")
			}
			c.rest = r
		}
		n, err := c.rest.Read(p)
		if errors.Is(err, io.EOF) {
			c.rest = nil
			err = nil
		}
		if n > 0 || err != nil {
			return n, err
		}
	}
}

func (c *serverConn) Write(p []byte) (int, error) {
	c.wmu.Lock()
	defer c.wmu.Unlock()
	if err := c.WriteMessage(websocket.BinaryMessage, p); err != nil {
		return 0, err
	}
	return len(p), nil
}

func (c *serverConn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

func newTestTransport(t *testing.T, open mqtt.Opener) *mqtt.Transport {
	t.Helper()
	tr, err := New(mqtt.Config{Identity: testIdentity, UserAgent: "fairlead/test", Open: open})
	if err != nil {
		t.Fatal(err)
	}
	return tr
}

func TestContract(t *testing.T) {
	transporttest.Run(t, func(t *testing.T) transporttest.Harness {
		t.Helper()
		hub := transporttest.NewFakeHub()
		t.Cleanup(hub.Close)
		return transporttest.Harness{
			Transport: newTestTransport(t, upgraded(hub.Serve).Open), Credential: core.Credential{Token: "secret"}, Hub: hub,
		}
	})
}
