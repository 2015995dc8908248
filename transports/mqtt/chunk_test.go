package mqtt

import (
	"context"
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/fairlead-iot/fairlead/core"
	"github.com/fairlead-iot/fairlead/transports/netdial"
	"github.com/fairlead-iot/fairlead/transports/transporttest"
)

// sized notes the largest write.
type sized struct {
	net.Conn
	largest *atomic.Int64
}

func (c sized) Write(p []byte) (int, error) {
	c.largest.Store(max(c.largest.Load(), int64(len(p))))
	return c.Conn.Write(p)
}

// A proxy may hold back what follows a piece until the hub's system has acknowledged it, which it does late while the hub
// has nothing to answer. So each piece is small there, and has something to answer.
func TestThroughAProxyPiecesAreSmall(t *testing.T) {
	for name, c := range map[string]struct {
		proxy netdial.Proxy
		most  int64
	}{
		"direct":  {netdial.Proxy{}, writeChunk},
		"proxied": {netdial.Proxy{Type: netdial.ProxyHTTP, Addr: "proxy.lan", Port: 3128}, proxiedChunk},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				hub := transporttest.NewFakeHub()
				var largest atomic.Int64
				tr, err := New(Config{Identity: testIdentity, Proxy: c.proxy, Open: func(ctx context.Context, cr core.Credential) (net.Conn, error) {
					conn, err := hub.Open(ctx, cr)
					return sized{conn, &largest}, err
				}})
				if err != nil {
					t.Fatal(err)
				}
				link, err := tr.Open(t.Context(), core.Credential{})
				if err != nil {
					t.Fatal(err)
				}
				s, err := link.Connect(t.Context(), core.Credential{}, core.Handler{})
				if err != nil {
					t.Fatal(err)
				}
				messages := outbound(1, 1000)
				for i := range messages {
					messages[i].Message = &core.Message{Payload: make([]byte, 256)}
				}
				s.Send(1, messages)
				synctest.Wait()
				if got := len(hub.Received()); got != len(messages) {
					t.Errorf("%d messages arrived", got)
				}
				if largest.Load() != c.most {
					t.Errorf("the largest piece had %d bytes, want %d", largest.Load(), c.most)
				}
				mustClose(t, s)
				hub.Close()
			})
		})
	}
}
