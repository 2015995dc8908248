package mqttws

import (
	"bufio"
	"context"
	"crypto/sha1"
	"encoding/base64"
	"encoding/binary"
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/gorilla/websocket"

	"github.com/fairlead-iot/fairlead/core"
	"github.com/fairlead-iot/fairlead/transports/mqtt"
)

// script speaks for the server on one connection; returning closes it. r has what follows the request.
type script func(req *http.Request, conn net.Conn, r *bufio.Reader)

// openScript is an opener that leads to the script, past the request for the upgrade.
func openScript(s script) mqtt.Opener {
	return func(context.Context, core.Credential) (net.Conn, error) {
		device, hub := net.Pipe()
		go func() {
			defer hub.Close()
			r := bufio.NewReader(hub)
			if req, err := http.ReadRequest(r); err == nil {
				s(req, hub, r)
			}
		}()
		return device, nil
	}
}

// says answers the upgrade with a text, and takes everything after that.
func says(text string) mqtt.Opener {
	return openScript(func(_ *http.Request, conn net.Conn, r *bufio.Reader) {
		if _, err := io.WriteString(conn, text); err == nil {
			_, _ = io.Copy(io.Discard, r)
		}
	})
}

// upgrades agrees to the upgrade, with headers more, and goes on with f.
func upgrades(more string, f script) mqtt.Opener {
	return openScript(func(req *http.Request, conn net.Conn, r *bufio.Reader) {
		if _, err := io.WriteString(conn, accept(req, more)); err == nil {
			f(req, conn, r)
		}
	})
}

// accept is the answer that agrees. https://www.rfc-editor.org/rfc/rfc6455#section-4.2.2
func accept(req *http.Request, more string) string {
	sum := sha1.Sum([]byte(req.Header.Get("Sec-WebSocket-Key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	return "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: " +
		base64.StdEncoding.EncodeToString(sum[:]) + "\r\n" + more + "\r\n"
}

const speaksMQTT = "Sec-WebSocket-Protocol: mqtt\r\n"

// serverFrame makes a frame of a server's; first is FIN, the reserved bits and the opcode.
func serverFrame(first byte, payload []byte) []byte {
	b := []byte{first}
	switch n := len(payload); {
	case n < 126:
		b = append(b, byte(n))
	case n < 1<<16:
		b = binary.BigEndian.AppendUint16(append(b, 126), uint16(n))
	default:
		b = binary.BigEndian.AppendUint64(append(b, 127), uint64(n))
	}
	return append(b, payload...)
}

// First bytes of frames.
const (
	final    = 0x80
	text     = 1
	binaryOp = 2
	closing  = 8
	ping     = 9
	pong     = 10
)

// readFrame reads a client's frame, and takes the mask off it.
func readFrame(r *bufio.Reader) (first byte, payload []byte, err error) {
	var header [2]byte
	if _, err := io.ReadFull(r, header[:]); err != nil {
		return 0, nil, err
	}
	length := uint64(header[1] & 0x7f)
	var wide [8]byte
	switch length {
	case 126:
		_, err = io.ReadFull(r, wide[6:])
		length = binary.BigEndian.Uint64(wide[:])
	case 127:
		_, err = io.ReadFull(r, wide[:])
		length = binary.BigEndian.Uint64(wide[:])
	}
	if err != nil {
		return 0, nil, err
	}
	var mask [4]byte
	if header[1]&0x80 != 0 {
		if _, err := io.ReadFull(r, mask[:]); err != nil {
			return 0, nil, err
		}
	}
	payload = make([]byte, length)
	if _, err := io.ReadFull(r, payload); err != nil {
		return 0, nil, err
	}
	for i := range payload {
		payload[i] ^= mask[i%4]
	}
	return header[0], payload, nil
}

// bare is gorilla alone on an opener's connection, as one would use it.
func bare(t *testing.T, open mqtt.Opener) (*websocket.Conn, *http.Response, error) {
	t.Helper()
	d := websocket.Dialer{
		HandshakeTimeout: 30 * time.Second, Subprotocols: []string{"mqtt"},
		NetDialTLSContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return open(ctx, core.Credential{}) },
	}
	return d.DialContext(t.Context(), "wss://hub.example.net/$iothub/websocket", nil)
}

func mustBare(t *testing.T, open mqtt.Opener) *websocket.Conn {
	t.Helper()
	ws, _, err := bare(t, open)
	if err != nil {
		t.Fatal("gorilla alone: ", err)
	}
	return ws
}

// dial upgrades an opener's connection as the transport does.
func dial(ctx context.Context, t *testing.T, open mqtt.Opener) (net.Conn, error) {
	t.Helper()
	up, err := opener(mqtt.Config{Identity: testIdentity, Open: open})
	if err != nil {
		t.Fatal(err)
	}
	return up(ctx, core.Credential{})
}

func mustDial(t *testing.T, open mqtt.Opener) net.Conn {
	t.Helper()
	c, err := dial(t.Context(), t, open)
	if err != nil {
		t.Fatal(err)
	}
	return c
}
