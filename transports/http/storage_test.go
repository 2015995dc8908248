package http_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/pem"
	"errors"
	"io"
	"net"
	nethttp "net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fairlead-iot/fairlead/core"
	"github.com/fairlead-iot/fairlead/transports/http"
	"github.com/fairlead-iot/fairlead/transports/netdial"
)

// TestAnAnswerThatStopsInTheMiddleEnds: what is between keeps the connection up.
func TestAnAnswerThatStopsInTheMiddleEnds(t *testing.T) {
	server := httptest.NewTLSServer(nil)
	config := server.TLS.Clone()
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	server.Close()
	synctest.Test(t, func(t *testing.T) {
		ended := make(chan struct{})
		dial := func(context.Context, string, string) (net.Conn, error) {
			near, far := net.Pipe()
			go func() {
				defer close(ended)
				conn := tls.Server(far, config)
				defer conn.Close()
				request, err := nethttp.ReadRequest(bufio.NewReader(conn))
				if err != nil {
					t.Error(err)
					return
				}
				_, _ = io.Copy(io.Discard, request.Body)
				_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc")
				_, _ = conn.Read(make([]byte, 1)) // until the other side gives up
			}()
			return near, nil
		}
		s, err := http.NewStorage(http.StorageConfig{TLS: netdial.TLSConfig{ExtraCA: ca}, DialContext: dial})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		r, err := nethttp.NewRequestWithContext(ctx, nethttp.MethodGet, "https://example.com/", nil)
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		resp, err := s.RoundTrip(r)
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(resp.Body)
		if took := time.Since(began); string(text) != "abc" || !errors.Is(err, core.ErrTimeout) || took > 2*time.Minute {
			t.Errorf("after %v: %q, %v; want abc and a timeout", took, text, err)
		}
		_ = resp.Body.Close()
		<-ended
	})
}

// endingConn is a connection that this side can close beneath a write.
type endingConn struct {
	net.Conn
	isDown atomic.Bool
}

func (c *endingConn) SetWriteDeadline(at time.Time) error {
	if c.isDown.Load() {
		return &net.OpError{Op: "set", Net: "tcp", Err: net.ErrClosed}
	}
	return c.Conn.SetWriteDeadline(at)
}

// TestAConnectionThatBreaksOffIsCalledThat: not by what the program was doing with it just then.
func TestAConnectionThatBreaksOffIsCalledThat(t *testing.T) {
	server := httptest.NewTLSServer(nil)
	config := server.TLS.Clone()
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	server.Close()
	for name, end := range map[string]func(near *endingConn, far net.Conn, body io.Reader){
		"closed by this side within the body": func(near *endingConn, _ net.Conn, body io.Reader) {
			near.isDown.Store(true)
			_, _ = io.Copy(io.Discard, body)
		},
		"closed by the other side within the body": func(_ *endingConn, far net.Conn, _ io.Reader) { _ = far.Close() },
		"closed by the other side after the body": func(_ *endingConn, far net.Conn, body io.Reader) {
			_, _ = io.Copy(io.Discard, body)
			_ = far.Close()
		},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				dial := func(context.Context, string, string) (net.Conn, error) {
					conn, far := net.Pipe()
					near := &endingConn{Conn: conn}
					go func() {
						defer far.Close()
						conn := tls.Server(far, config)
						request, err := nethttp.ReadRequest(bufio.NewReader(conn))
						if err != nil {
							t.Error(err)
							return
						}
						end(near, far, request.Body)
					}()
					return near, nil
				}
				s, err := http.NewStorage(http.StorageConfig{TLS: netdial.TLSConfig{ExtraCA: ca}, DialContext: dial})
				if err != nil {
					t.Fatal(err)
				}
				r, err := nethttp.NewRequestWithContext(t.Context(), nethttp.MethodPut, "https://example.com/", bytes.NewReader(make([]byte, 1<<20)))
				if err != nil {
					t.Fatal(err)
				}
				resp, err := s.RoundTrip(r)
				if err == nil {
					_ = resp.Body.Close()
				}
				if err == nil || err.Error() != "the connection broke off" {
					t.Errorf("%v, want that the connection broke off", err)
				}
			})
		})
	}
}
