package mqttfront

import (
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/gorilla/websocket"

	"github.com/fairlead-iot/fairlead/hub/internal/iot"
)

// WebSocketPath is where devices upgrade; the subprotocol says what they speak.
// https://learn.microsoft.com/azure/iot/iot-mqtt-connect-to-iot-hub
const WebSocketPath = "/$iothub/websocket"

// Subprotocol of MQTT over WebSocket, MQTT 3.1.1 section 6.
const Subprotocol = "mqtt"

// ServeWebSocket upgrades a request that offers the mqtt subprotocol and serves
// the connection to its end.
func (f *Front) ServeWebSocket(w http.ResponseWriter, r *http.Request) {
	upgrader := websocket.Upgrader{
		HandshakeTimeout: iot.ConnectWithin,
		ReadBufferSize:   minBuffer,
		WriteBufferSize:  minBuffer,
		WriteBufferPool:  &sync.Pool{},
		Subprotocols:     []string{Subprotocol},
		CheckOrigin:      func(*http.Request) bool { return true }, // devices send any; credentials decide
	}
	w.Header().Set("Connection", "close") // if it is refused: a stranger has one try
	ws, err := upgrader.Upgrade(w, r, nil)
	if err != nil {
		f.log.Debug("upgrade to WebSocket", "remote", r.RemoteAddr, "err", err)
		return
	}
	nc := &wsConn{ws: ws}
	if r.TLS != nil {
		nc.chain = r.TLS.PeerCertificates
	}
	if f.refuse(nc) {
		return
	}
	if !f.begin() {
		_ = nc.Close() // the hub stops
		return
	}
	defer f.wg.Done()
	f.serve(nc)
}

// wsConn is a net.Conn over the binary messages of a WebSocket. Messages and MQTT
// packets need not align, [MQTT-6.0.0-2]. One reader and one writer at a time.
type wsConn struct {
	ws    *websocket.Conn
	cur   io.Reader           // the message that is being read
	chain []*x509.Certificate // what the client showed in the TLS handshake
}

var _ net.Conn = (*wsConn)(nil)

// Read implements net.Conn. A text message is an error, [MQTT-6.0.0-1].
func (c *wsConn) Read(p []byte) (int, error) {
	for {
		if c.cur == nil {
			kind, r, err := c.ws.NextReader()
			if err != nil {
				if websocket.IsCloseError(err, websocket.CloseNormalClosure, websocket.CloseGoingAway, websocket.CloseNoStatusReceived) {
					return 0, io.EOF
				}
				return 0, err
			}
			if kind != websocket.BinaryMessage {
				return 0, errors.New("websocket: a text message")
			}
			c.cur = r
		}
		n, err := c.cur.Read(p)
		if errors.Is(err, io.EOF) {
			c.cur, err = nil, nil
		}
		if n > 0 || err != nil {
			return n, err
		}
	}
}

// Write implements net.Conn: one binary message.
func (c *wsConn) Write(p []byte) (int, error) {
	if err := c.ws.WriteMessage(websocket.BinaryMessage, p); err != nil {
		return 0, fmt.Errorf("websocket: %w", err)
	}
	return len(p), nil
}

// Close implements net.Conn. It says good-bye if that does not take long.
func (c *wsConn) Close() error {
	_ = c.ws.WriteControl(websocket.CloseMessage, websocket.FormatCloseMessage(websocket.CloseNormalClosure, ""), time.Now().Add(time.Second)) // the connection ends anyway
	return c.ws.Close()
}

// LocalAddr implements net.Conn.
func (c *wsConn) LocalAddr() net.Addr { return c.ws.LocalAddr() }

// RemoteAddr implements net.Conn.
func (c *wsConn) RemoteAddr() net.Addr { return c.ws.RemoteAddr() }

// SetDeadline implements net.Conn.
func (c *wsConn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

// SetReadDeadline implements net.Conn.
func (c *wsConn) SetReadDeadline(t time.Time) error { return c.ws.SetReadDeadline(t) }

// SetWriteDeadline implements net.Conn.
func (c *wsConn) SetWriteDeadline(t time.Time) error { return c.ws.SetWriteDeadline(t) }
