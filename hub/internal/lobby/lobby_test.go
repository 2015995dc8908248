package lobby_test

import (
	"crypto/tls"
	"errors"
	"net"
	"testing"
	"testing/synctest"

	"github.com/fairlead-iot/fairlead/hub/internal/lobby"
)

// endless is a listener with a connection for everyone who asks.
type endless struct{ closed chan struct{} }

func (l *endless) Accept() (net.Conn, error) {
	select {
	case <-l.closed:
		return nil, net.ErrClosed
	default:
		nc, _ := net.Pipe()
		return nc, nil
	}
}
func (l *endless) Close() error   { close(l.closed); return nil }
func (l *endless) Addr() net.Addr { return &net.UnixAddr{} }

func TestAPlaceIsFreeAfterLeaveOrClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := lobby.Listen(&endless{make(chan struct{})}, 2)
		accepted := make(chan net.Conn, 100)
		ended := make(chan error, 1)
		go func() {
			for {
				nc, err := l.Accept()
				if err != nil {
					ended <- err
					return
				}
				accepted <- nc
			}
		}()
		want := func(n int, when string) {
			t.Helper()
			synctest.Wait()
			if len(accepted) != n || l.Strangers() != 2 {
				t.Fatalf("%s: %d accepted, %d strangers; want %d and 2", when, len(accepted), l.Strangers(), n)
			}
		}
		want(2, "at first")
		first, second := <-accepted, <-accepted
		lobby.Leave(tls.Server(first, &tls.Config{MinVersion: tls.VersionTLS12}))
		want(1, "one has left")
		lobby.Leave(first)
		_ = first.Close()
		want(1, "it leaves again, and closes")
		_ = second.Close()
		want(2, "the other has closed")
		lobby.Leave(&net.TCPConn{}) // of another listener
		want(2, "who has no place leaves none")
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		if err := <-ended; !errors.Is(err, net.ErrClosed) {
			t.Errorf("Accept ended with %v", err)
		}
	})
}
