package mqttws

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fairlead-iot/fairlead/core"
)

// sends is a server that sends bytes in one piece, and takes everything until the device hangs up.
func sends(b []byte) script {
	return func(_ *http.Request, conn net.Conn, r *bufio.Reader) {
		if _, err := conn.Write(b); err == nil {
			_, _ = io.Copy(io.Discard, r)
		}
	}
}

func TestMessagesAreAStream(t *testing.T) {
	var wire, want []byte
	random := rand.New(rand.NewPCG(1, 2))
	for n := range 300 {
		part := make([]byte, random.IntN(500))
		if n%50 == 49 {
			part = make([]byte, 70_000) // a length of 64 bits
		}
		for i := range part {
			part[i] = byte(random.Uint32())
		}
		want = append(want, part...)
		switch n % 3 {
		case 0:
			wire = append(wire, serverFrame(final|binaryOp, part)...)
		case 1: // in two frames, with a pong between
			half := len(part) / 2
			wire = append(wire, serverFrame(binaryOp, part[:half])...)
			wire = append(wire, serverFrame(final|pong, []byte("?"))...)
			wire = append(wire, serverFrame(final, part[half:])...)
		default: // an empty one before
			wire = append(wire, serverFrame(final|binaryOp, nil)...)
			wire = append(wire, serverFrame(final|binaryOp, part)...)
		}
	}
	for name, piece := range map[string]int{"byte by byte": 1, "in odd pieces": 1471, "at once": len(wire)} {
		t.Run(name, func(t *testing.T) {
			c := mustDial(t, upgrades(speaksMQTT, func(_ *http.Request, conn net.Conn, r *bufio.Reader) {
				go io.Copy(io.Discard, r) //nolint:errcheck // until the connection ends
				for rest := wire; len(rest) > 0; {
					n := min(piece, len(rest))
					if _, err := conn.Write(rest[:n]); err != nil {
						return
					}
					rest = rest[n:]
				}
			}))
			defer c.Close()
			got, err := io.ReadAll(c)
			if err != nil || !bytes.Equal(got, want) {
				t.Errorf("%d bytes of %d, %v", len(got), len(want), err)
			}
		})
	}
}

// A hub may put each PUBACK into a message of its own: the session is told of them together all the same.
func TestOneReadTakesWhatHasCome(t *testing.T) {
	puback := serverFrame(final|binaryOp, []byte{0x40, 2, 0, 1})
	half := serverFrame(final|binaryOp, []byte("half"))[:4]
	b := append(bytes.Repeat(puback, 1000), half...)
	c := mustDial(t, upgrades(speaksMQTT, sends(b)))
	defer c.Close()
	p := make([]byte, readBuffer)
	if n, err := c.Read(p); n != 4000 || err != nil {
		t.Errorf("%d bytes, %v; want all that is there, and no wait for the half", n, err)
	}
	if n, err := c.Read(p); string(p[:n]) != "ha" || err != nil {
		t.Errorf("%q, %v", p[:n], err)
	}
}

func TestWhatIsWrittenIsOneMessage(t *testing.T) {
	got := make(chan []byte, 10)
	c := mustDial(t, upgrades(speaksMQTT, func(_ *http.Request, _ net.Conn, r *bufio.Reader) {
		for {
			first, payload, err := readFrame(r)
			if err != nil || first != final|binaryOp {
				close(got)
				return
			}
			got <- payload
		}
	}))
	for _, size := range []int{1, 125, 126, 16<<10 - 16} {
		message := bytes.Repeat([]byte{byte(size)}, size)
		if n, err := c.Write(message); n != size || err != nil {
			t.Fatal(n, err)
		}
		if frame := <-got; !bytes.Equal(frame, message) {
			t.Errorf("%d bytes became a frame of %d", size, len(frame))
		}
		if message[0] != byte(size) {
			t.Error("the caller's bytes were masked")
		}
	}
	_ = c.Close()
	for range got {
	}
}

func TestAnIdleConnectionPings(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var pings []time.Duration
		start := time.Now()
		goodbye := ""
		c := mustDial(t, upgrades(speaksMQTT, func(_ *http.Request, conn net.Conn, r *bufio.Reader) {
			for {
				first, payload, err := readFrame(r)
				if err != nil {
					return
				}
				switch first {
				case final | ping:
					pings = append(pings, time.Since(start))
					_, _ = conn.Write(serverFrame(final|pong, payload))
				case final | closing:
					goodbye = string(payload)
				}
			}
		}))
		read := make(chan error)
		go func() {
			_, err := c.Read(make([]byte, 1))
			read <- err
		}()
		time.Sleep(70 * time.Second) // idle: 30 s, 60 s
		for range 12 {               // busy
			if _, err := c.Write([]byte("x")); err != nil {
				t.Error(err)
			}
			time.Sleep(10 * time.Second)
		}
		time.Sleep(45 * time.Second) // idle again
		synctest.Wait()
		// The last write was after 180 s.
		if want := []time.Duration{30 * time.Second, time.Minute, 210 * time.Second}; !slices.Equal(pings, want) {
			t.Errorf("pings after %v", pings)
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
		if err := <-read; err == nil {
			t.Error("a read outlives the connection")
		}
		synctest.Wait()
		if goodbye != "\x03\xe8" {
			t.Errorf("goodbye %q, want 1000", goodbye)
		}
	})
}

func TestHowAConnectionEnds(t *testing.T) {
	whole := serverFrame(final|binaryOp, []byte("x"))
	for _, c := range []struct {
		name  string
		bytes []byte
		want  string
	}{
		{"close frame 1000", serverFrame(final|closing, []byte("\x03\xe8bye")), "EOF"},
		{"close frame 1001", serverFrame(final|closing, []byte("\x03\xe9")), "EOF"},
		{"close frame without a code", serverFrame(final|closing, nil), "EOF"},
		{"bare close", nil, "EOF"},
		{"close frame 1008", serverFrame(final|closing, []byte("\x03\xf0no \x1b")), `websocket: closed with code 1008 "no \x1b"`},
		{"within a header", whole[:1], "the connection ended inside a message"},
		{"within a message", serverFrame(final|binaryOp, make([]byte, 100))[:50], "the connection ended inside a message"},
		{"between two frames of a message", serverFrame(binaryOp, []byte("x")), "the connection ended inside a message"},
		{"an opcode that is none", serverFrame(final|5, nil), "bad opcode 5"},
		{"a masked frame", []byte{final | binaryOp, 0x81, 1, 2, 3, 4, 5}, "bad MASK"},
		{"a long ping", serverFrame(final|ping, make([]byte, 200)), "len > 125 for control"},
		{"a length of 2^63", []byte{final | binaryOp, 127, 0x80, 0, 0, 0, 0, 0, 0, 0}, "a message of more than"},
	} {
		t.Run(c.name, func(t *testing.T) {
			conn := mustDial(t, upgrades(speaksMQTT, func(_ *http.Request, server net.Conn, r *bufio.Reader) {
				go io.Copy(io.Discard, r) //nolint:errcheck // until the connection ends
				_, _ = server.Write(append(bytes.Clone(whole), c.bytes...))
			}))
			defer conn.Close()
			var err error
			for p := make([]byte, 100); err == nil; {
				_, err = conn.Read(p)
			}
			if !strings.Contains(err.Error(), c.want) || errors.Is(err, io.EOF) != (c.want == "EOF") {
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}
}

// The machine infers from clean closes that another client has the identity.
func TestACloseIsCleanToTheSession(t *testing.T) {
	for name, last := range map[string][]byte{"frame": serverFrame(final|closing, []byte("\x03\xe8")), "bare": nil} {
		t.Run(name, func(t *testing.T) {
			link, err := newTestTransport(t, upgrades(speaksMQTT, func(_ *http.Request, conn net.Conn, r *bufio.Reader) {
				if _, _, err := readFrame(r); err == nil {
					_, _ = conn.Write(append(serverFrame(final|binaryOp, []byte{0x20, 2, 0, 0}), last...))
				}
			})).Open(t.Context(), core.Credential{})
			if err != nil {
				t.Fatal(err)
			}
			s, err := link.Connect(t.Context(), core.Credential{}, core.Handler{})
			if err == nil { // it may have ended before Connect returned
				<-s.Done()
				err = s.Err()
				defer s.Close(t.Context()) //nolint:errcheck // never fails
			}
			if e, ok := errors.AsType[*core.Error](err); !ok || !e.Clean || e.Kind != core.Transient {
				t.Errorf("%+v, want a clean end", err)
			}
		})
	}
}

// Whatever a server sends: the counted messages are those that gorilla reads, and nothing panics.
func FuzzWire(f *testing.F) {
	f.Add(serverFrame(final|binaryOp, []byte("x")), uint8(1))
	f.Add(append(serverFrame(binaryOp, []byte("x")), serverFrame(final, make([]byte, 200))...), uint8(7))
	f.Add(append(serverFrame(final|ping, []byte("x")), serverFrame(final|closing, []byte("\x03\xe8"))...), uint8(3))
	f.Add([]byte{final | binaryOp, 127, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, uint8(0))
	f.Fuzz(func(t *testing.T, b []byte, piece uint8) {
		c := mustDial(t, upgrades(speaksMQTT, func(_ *http.Request, conn net.Conn, r *bufio.Reader) {
			go io.Copy(io.Discard, r) //nolint:errcheck // until the connection ends
			for rest := b; len(rest) > 0; {
				n := min(int(piece)+1, len(rest))
				if _, err := conn.Write(rest[:n]); err != nil {
					return
				}
				rest = rest[n:]
			}
		}))
		defer c.Close()
		var total int
		var err error
		for p := make([]byte, 64); err == nil; {
			var n int
			n, err = c.Read(p)
			total += n
		}
		if total > len(b) {
			t.Errorf("%d bytes of %d", total, len(b))
		}
		if _, again := c.Read(make([]byte, 1)); !errors.Is(again, err) && again.Error() != err.Error() {
			t.Errorf("the error was %v, and is %v", err, again)
		}
		if ws := c.(*conn); ws.taken > ws.wire.frames.whole {
			t.Errorf("%d messages read, %d have come", ws.taken, ws.wire.frames.whole)
		}
	})
}
