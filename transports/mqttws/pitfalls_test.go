package mqttws

import (
	"bufio"
	"bytes"
	"compress/flate"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gorilla/websocket"

	"github.com/fairlead-iot/fairlead/core"
	"github.com/fairlead-iot/fairlead/internal/bubble"
	"github.com/fairlead-iot/fairlead/transports/mqtt"
)

// Each test here lets one scripted peer meet gorilla alone, to show the defect, and then the transport's connection, to
// show its end. Should a newer gorilla mend a defect, the first half says so.

// panics reports what f panics with.
func panics(f func()) (value any) {
	defer func() { value = recover() }()
	f()
	return nil
}

// wantFailure asserts an error of the upgrade, of a kind, with a text.
func wantFailure(t *testing.T, err error, kind core.Kind, want string) {
	t.Helper()
	e, ok := errors.AsType[*core.Error](err)
	if !ok || e.Kind != kind || e.Phase != PhaseWebSocket || !strings.Contains(e.Error(), want) {
		t.Errorf("%v, want a *core.Error of kind %v and phase %s with %q", err, kind, PhaseWebSocket, want)
	}
	if err != nil && len(err.Error()) > 600 {
		t.Errorf("an error of %d bytes", len(err.Error()))
	}
}

func TestANakedStatusDoesNotEndTheProcess(t *testing.T) {
	proxy := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return says("HTTP/1.1 407\r\n\r\n")(ctx, core.Credential{})
	}
	value := panics(func() {
		d := websocket.Dialer{NetDialContext: proxy, Proxy: http.ProxyURL(&url.URL{Scheme: "http", Host: "proxy:3128"})}
		_, _, _ = d.DialContext(t.Context(), "ws://hub.example.net/", nil)
	})
	if value == nil || !strings.Contains(fmt.Sprint(value), "index out of range") {
		t.Errorf("gorilla alone: panic %v; the defect is gone", value)
	}
	// A proxy is netdial's matter, so that gorilla has none. To the upgrade itself the same answer is an error.
	_, err := dial(t.Context(), t, says("HTTP/1.1 407\r\n\r\n"))
	wantFailure(t, err, core.Blocked, "HTTP/1.1 407: a proxy on the way wants to know who asks")
}

func TestTheSubprotocolIsChecked(t *testing.T) {
	for name, header := range map[string]string{"none": "", "another": "Sec-WebSocket-Protocol: AMQPWSB10\r\n"} {
		t.Run(name, func(t *testing.T) {
			peer := upgrades(header, func(_ *http.Request, _ net.Conn, r *bufio.Reader) { _, _ = io.Copy(io.Discard, r) })
			ws, _, err := bare(t, peer)
			if err != nil {
				t.Fatalf("gorilla alone: %v; the defect is gone", err)
			}
			_ = ws.Close()
			_, err = dial(t.Context(), t, peer)
			wantFailure(t, err, core.Blocked, `instead of "mqtt"`)
		})
	}
}

func TestCompressionThatNobodyOfferedIsRefused(t *testing.T) {
	const bomb = 16 << 20
	peer := upgrades(speaksMQTT+"Sec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover; client_no_context_takeover\r\n",
		func(_ *http.Request, conn net.Conn, r *bufio.Reader) {
			var squeezed bytes.Buffer
			w, _ := flate.NewWriter(&squeezed, flate.BestCompression)
			_, _ = w.Write(make([]byte, bomb))
			_ = w.Flush()
			const compressed = 0x40
			if _, err := conn.Write(serverFrame(final|compressed|binaryOp, bytes.TrimSuffix(squeezed.Bytes(), []byte{0, 0, 0xff, 0xff}))); err == nil {
				_, _ = io.Copy(io.Discard, r)
			}
		})
	ws := mustBare(t, peer)
	ws.SetReadLimit(1 << 20) // which counts what came over the wire
	if _, p, err := ws.ReadMessage(); err != nil || len(p) != bomb {
		t.Errorf("gorilla alone: a message of %d bytes, %v; the defect is gone", len(p), err)
	}
	_ = ws.Close()
	_, err := dial(t.Context(), t, peer)
	wantFailure(t, err, core.Blocked, `an extension that was not offered: "permessage-deflate`)

	_, err = dial(t.Context(), t, upgrades(speaksMQTT+"Sec-WebSocket-Extensions: permessage-deflate\r\n", func(*http.Request, net.Conn, *bufio.Reader) {}))
	wantFailure(t, err, core.Blocked, "an extension that was not offered")
}

func TestAnAnswerWithoutEndIsGivenUp(t *testing.T) {
	sent := 0
	flood := openScript(func(_ *http.Request, conn net.Conn, _ *bufio.Reader) {
		sent = 0
		if _, err := io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\n"); err != nil {
			return
		}
		for line := []byte("X-Padding: " + strings.Repeat("x", 1000) + "\r\n"); sent < 8<<20; sent += len(line) {
			if _, err := conn.Write(line); err != nil {
				return
			}
		}
	})
	synctest.Test(t, func(t *testing.T) {
		_, _, err := bare(t, flood)
		synctest.Wait()
		if err == nil || sent < 8<<20 {
			t.Errorf("gorilla alone takes %d bytes of header (%v); the defect is gone", sent, err)
		}
		_, err = dial(t.Context(), t, flood)
		wantFailure(t, err, core.Blocked, "longer than 16384 bytes")
		if synctest.Wait(); sent > 2*maxAnswer {
			t.Errorf("%d bytes of header were taken", sent)
		}
	})
}

func TestTheUpgradeEndsWithItsContext(t *testing.T) {
	silent := openScript(func(_ *http.Request, _ net.Conn, r *bufio.Reader) { _, _ = io.Copy(io.Discard, r) })
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		d := websocket.Dialer{HandshakeTimeout: 30 * time.Second, NetDialTLSContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return silent(ctx, core.Credential{})
		}}
		if _, _, err := d.DialContext(ctx, "wss://hub.example.net/", nil); err == nil || time.Since(start) < 30*time.Second {
			t.Errorf("gorilla alone: %v after %v; the defect is gone", err, time.Since(start))
		}

		start = time.Now()
		ctx, cancel = context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		_, err := dial(ctx, t, silent)
		if took := time.Since(start); took > time.Second || !errors.Is(err, context.Canceled) {
			t.Errorf("%v after %v, want context.Canceled after 1s", err, took)
		}
		wantFailure(t, err, core.Transient, "dial websocket hub.example.net:443")

		// # Nobody cancels: the handshake has a bound of its own. One byte a second does not stretch it.
		drip := openScript(func(_ *http.Request, conn net.Conn, _ *bufio.Reader) {
			for _, b := range []byte("HTTP/1.1 101 Switching Protocols\r\n") {
				time.Sleep(time.Second)
				if _, err := conn.Write([]byte{b}); err != nil {
					return
				}
			}
		})
		for name, peer := range map[string]mqtt.Opener{"silent": silent, "drip": drip} {
			start = time.Now()
			_, err = dial(t.Context(), t, peer)
			if took := time.Since(start); took != handshakeTimeout {
				t.Errorf("%s: given up after %v, want %v", name, took, handshakeTimeout)
			}
			wantFailure(t, err, core.Blocked, "no answer to the upgrade within 10s")
		}
		time.Sleep(2 * time.Second) // the drip's
	})
}

func TestTwoWritersDoNotPanic(t *testing.T) {
	// The server has begun to read the first message, and goes on when it is told.
	begun, goOn := make(chan struct{}), make(chan struct{})
	slow := upgrades(speaksMQTT, func(_ *http.Request, _ net.Conn, r *bufio.Reader) {
		_, _ = r.Peek(1)
		begun <- struct{}{}
		<-goOn
		for {
			if _, _, err := readFrame(r); err != nil {
				return
			}
		}
	})
	message := make([]byte, 8<<10) // more than the server has a buffer for: its write is under way
	start := func(write func() error) <-chan any {
		done := make(chan any, 1)
		go func() {
			done <- panics(func() {
				if err := write(); err != nil {
					panic(err)
				}
			})
		}()
		return done
	}

	ws := mustBare(t, slow)
	write := func() error { return ws.WriteMessage(websocket.BinaryMessage, message) }
	first := start(write)
	<-begun
	if value := <-start(write); value == nil || !strings.Contains(fmt.Sprint(value), "concurrent write") {
		t.Errorf("gorilla alone: %v; the defect is gone", value)
	}
	goOn <- struct{}{}
	<-first
	_ = ws.Close()

	c := mustDial(t, slow)
	write = func() error { _, err := c.Write(message); return err }
	first = start(write)
	<-begun
	second := start(write)
	goOn <- struct{}{}
	for _, done := range []<-chan any{first, second} {
		if value := <-done; value != nil {
			t.Errorf("two writers: %v", value)
		}
	}
	_ = c.Close()
}

func TestReadingOnAfterTheEndDoesNotPanic(t *testing.T) {
	gone := upgrades(speaksMQTT, func(*http.Request, net.Conn, *bufio.Reader) {})
	ws := mustBare(t, gone)
	value := panics(func() {
		for range 1001 {
			_, _, _ = ws.NextReader()
		}
	})
	if value == nil || !strings.Contains(fmt.Sprint(value), "repeated read") {
		t.Errorf("gorilla alone: panic %v; the defect is gone", value)
	}
	_ = ws.Close()
	c := mustDial(t, gone)
	defer c.Close()
	for range 2000 {
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			t.Fatalf("read after the end: %v, want io.EOF", err)
		}
	}
}

func TestATextIsRefused(t *testing.T) {
	peer := upgrades(speaksMQTT, func(_ *http.Request, conn net.Conn, r *bufio.Reader) {
		if _, err := conn.Write(serverFrame(final|text, []byte("hello"))); err == nil {
			_, _ = io.Copy(io.Discard, r)
		}
	})
	ws := mustBare(t, peer)
	if kind, _, err := ws.ReadMessage(); err != nil || kind != websocket.TextMessage {
		t.Errorf("gorilla alone: kind %d, %v; the defect is gone", kind, err)
	}
	_ = ws.Close()
	c := mustDial(t, peer)
	defer c.Close()
	if n, err := c.Read(make([]byte, 10)); !errors.Is(err, errText) {
		t.Errorf("%d bytes of a text, %v", n, err)
	}
}

func TestAMessageHasALimit(t *testing.T) {
	const size = maxMessage + 1
	peer := upgrades(speaksMQTT, func(_ *http.Request, conn net.Conn, r *bufio.Reader) {
		go io.Copy(io.Discard, r) //nolint:errcheck // until the connection ends
		_, _ = conn.Write(serverFrame(final|binaryOp, make([]byte, size)))
	})
	ws := mustBare(t, peer)
	if _, p, err := ws.ReadMessage(); err != nil || len(p) != size {
		t.Errorf("gorilla alone: %d bytes, %v; the defect is gone", len(p), err)
	}
	_ = ws.Close()
	c := mustDial(t, peer)
	defer c.Close()
	if n, err := c.Read(make([]byte, 10)); err == nil || !strings.Contains(err.Error(), "a message of more than 1048576 bytes") {
		t.Errorf("%d bytes, %v", n, err)
	}
}

// pinged is a server that pings n times, reads nothing meanwhile, and then sends a message.
func pinged(n int, answers chan<- string) mqtt.Opener {
	return upgrades(speaksMQTT, func(_ *http.Request, conn net.Conn, r *bufio.Reader) {
		for i := range n {
			if _, err := conn.Write(serverFrame(final|ping, fmt.Append(nil, i))); err != nil {
				return
			}
		}
		if _, err := conn.Write(serverFrame(final|binaryOp, []byte("x"))); err != nil {
			return
		}
		time.Sleep(3 * time.Second) // a slow link: what it had to take was more
		for {
			first, payload, err := readFrame(r)
			if err != nil {
				return
			}
			if first == final|pong {
				answers <- string(payload)
			}
		}
	})
}

func TestAPingOverASlowLinkEndsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		answers := make(chan string, 1000)
		ws := mustBare(t, pinged(1, answers))
		if _, _, err := ws.ReadMessage(); err == nil {
			t.Error("gorilla alone survives; the defect is gone")
		}
		_ = ws.Close()

		// # A thousand pings: reading goes on, and the last is answered.
		c := mustDial(t, pinged(1000, answers))
		start := time.Now()
		if n, err := c.Read(make([]byte, 10)); n != 1 || err != nil || time.Since(start) > time.Second {
			t.Errorf("%d bytes, %v after %v", n, err, time.Since(start))
		}
		time.Sleep(10 * time.Second)
		last := ""
		for len(answers) > 0 {
			last = <-answers
		}
		if last != "999" {
			t.Errorf("the last answer is to ping %q, want 999", last)
		}
		_ = c.Close()
		synctest.Wait()
	})
}

func TestAWriteThatTimedOutSaysSo(t *testing.T) {
	stuck := upgrades(speaksMQTT, func(*http.Request, net.Conn, *bufio.Reader) { time.Sleep(time.Minute) })
	synctest.Test(t, func(t *testing.T) {
		ws := mustBare(t, stuck)
		_ = ws.SetWriteDeadline(time.Now().Add(time.Second))
		if err := ws.WriteMessage(websocket.BinaryMessage, []byte("x")); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("gorilla alone: %v; the defect is gone", err)
		}
		_ = ws.Close()
		c := mustDial(t, stuck)
		_ = c.SetWriteDeadline(time.Now().Add(time.Second))
		if _, err := c.Write([]byte("x")); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%v, want os.ErrDeadlineExceeded", err)
		}
		_ = c.Close()
		time.Sleep(time.Minute)
	})
}

// The session gives a write more time while it hears the hub.
func TestAWriteThatIsUnderWayCanBeProlonged(t *testing.T) {
	stuck := upgrades(speaksMQTT, func(*http.Request, net.Conn, *bufio.Reader) { time.Sleep(time.Minute) })
	const first, later = 10 * time.Second, 15 * time.Second
	synctest.Test(t, func(t *testing.T) {
		if !isRace { // it is one: gorilla keeps the deadline in a field
			start := time.Now()
			ws := mustBare(t, stuck)
			_ = ws.SetWriteDeadline(start.Add(first))
			time.AfterFunc(5*time.Second, func() { _ = ws.SetWriteDeadline(start.Add(later)) })
			if err := ws.WriteMessage(websocket.BinaryMessage, []byte("x")); err == nil || time.Since(start) != first {
				t.Errorf("gorilla alone: %v after %v; the defect is gone", err, time.Since(start))
			}
			_ = ws.Close()
		}

		start := time.Now()
		c := mustDial(t, stuck)
		_ = c.SetWriteDeadline(start.Add(first))
		time.AfterFunc(5*time.Second, func() { _ = c.SetWriteDeadline(start.Add(later)) })
		if _, err := c.Write([]byte("x")); !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(start) != later {
			t.Errorf("%v after %v, want os.ErrDeadlineExceeded after %v", err, time.Since(start), later)
		}
		_ = c.Close()
		time.Sleep(time.Minute)
	})
}

// A hub that stops reading is found as over TCP, also where pings alone are due; nothing is left behind.
func TestAStuckHubIsNoticedInTime(t *testing.T) {
	stuck := upgrades(speaksMQTT, func(_ *http.Request, conn net.Conn, r *bufio.Reader) {
		if _, _, err := readFrame(r); err != nil { // CONNECT
			return
		}
		_, _ = conn.Write(serverFrame(final|binaryOp, []byte{0x20, 2, 0, 0}))
		time.Sleep(time.Hour)
	})
	synctest.Test(t, func(t *testing.T) {
		before := len(bubble.Goroutines())
		link, err := newTestTransport(t, stuck).Open(t.Context(), core.Credential{})
		if err != nil {
			t.Fatal(err)
		}
		s, err := link.Connect(t.Context(), core.Credential{}, core.Handler{})
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		s.Send(1, []core.Outbound{{Seq: 1, Message: &core.Message{Payload: []byte("x")}}})
		<-s.Done()
		if took := time.Since(start); took > 11*time.Second {
			t.Errorf("noticed after %v, want 10s", took)
		}
		if !errors.Is(s.Err(), os.ErrDeadlineExceeded) || !strings.Contains(s.Err().Error(), "accepted no bytes for 10s") {
			t.Errorf("lost with %v", s.Err())
		}
		_ = s.Close(t.Context())
		time.Sleep(time.Hour)
		synctest.Wait()
		if now := bubble.Goroutines(); len(now) > before {
			t.Errorf("%d goroutines, %d before:\n%s", len(now), before, strings.Join(now, "\n\n"))
		}
	})
}
