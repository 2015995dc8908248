package mqttws

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gorilla/websocket"

	"github.com/fairlead-iot/fairlead/transports/netdial"
)

// conn is the stream of bytes that goes over a WebSocket in binary messages. Where a message ends means nothing: "a single
// WebSocket data frame can contain multiple or partial MQTT Control Packets" [MQTT-6.0.0-2].
//
// gorilla panics where two goroutines write or a failed connection is read on, blocks the reader over a pong, and takes a
// text for a message like any other; hence the mutexes, the error that stays, the goroutine that answers pings, and the
// look at each message's kind.
type conn struct {
	ws   *websocket.Conn
	wire *wire

	rmu     sync.Mutex
	message io.Reader // under way
	taken   uint64    // messages that were read to their end
	rerr    error     // the first one, and the last

	wmu      sync.Mutex
	deadline atomic.Pointer[time.Time] // of the next write
	wrote    atomic.Int64              // when the last write began, as nanoseconds since start
	start    time.Time

	pong   chan string // the payload of the last ping that has no answer
	closed chan struct{}
	once   sync.Once
	beat   sync.WaitGroup
}

var _ net.Conn = (*conn)(nil)

// newConn takes an upgraded connection over.
func newConn(ws *websocket.Conn, w *wire) *conn {
	c := &conn{ws: ws, wire: w, start: time.Now(), pong: make(chan string, 1), closed: make(chan struct{})}
	w.upgraded = true
	ws.SetReadLimit(maxMessage)
	ws.SetPingHandler(func(payload string) error {
		// "may elect to send a Pong frame for only the most recently processed Ping frame"
		// https://www.rfc-editor.org/rfc/rfc6455#section-5.5.3
		select {
		case <-c.pong:
		default:
		}
		c.pong <- payload // whose only sender this is
		return nil
	})
	c.beat.Go(c.heartbeat)
	return c
}

// Read implements net.Conn. It waits for one byte, and takes with it what has come by then.
func (c *conn) Read(p []byte) (int, error) {
	c.rmu.Lock()
	defer c.rmu.Unlock()
	n := 0
	for c.rerr == nil && n < len(p) && (n == 0 || c.taken < c.wire.frames.whole) {
		if c.message == nil {
			c.message, c.rerr = c.next()
			continue
		}
		m, err := c.message.Read(p[n:])
		n += m
		if errors.Is(err, io.EOF) {
			c.message, err = nil, nil
			c.taken++
		}
		if err != nil {
			c.rerr = c.readError(err)
		}
	}
	if n > 0 || len(p) == 0 {
		return n, nil
	}
	return 0, c.rerr
}

// next waits for the next message.
func (c *conn) next() (io.Reader, error) {
	kind, r, err := c.ws.NextReader()
	if err != nil {
		return nil, c.readError(err)
	}
	if kind != websocket.BinaryMessage {
		// "If any other type of data frame is received the recipient MUST close the Network Connection" [MQTT-6.0.0-1]
		return nil, errText
	}
	return r, nil
}

var errText = errors.New("websocket: a text message, where MQTT is binary")

// readError says what the end of the stream means: io.EOF is an orderly end.
func (c *conn) readError(err error) error {
	var closing *websocket.CloseError
	switch {
	case errors.As(err, &closing):
		switch closing.Code {
		case websocket.CloseNormalClosure, websocket.CloseGoingAway, websocket.CloseNoStatusReceived:
			return io.EOF
		case websocket.CloseAbnormalClosure: // gorilla's word for the end of the connection
			if errors.Is(c.wire.err, io.EOF) && c.wire.frames.boundary() && c.message == nil {
				return io.EOF
			}
			return fmt.Errorf("websocket: the connection ended inside a message: %w", io.ErrUnexpectedEOF)
		}
		return fmt.Errorf("websocket: closed with code %d %q", closing.Code, closing.Text)
	case errors.Is(err, websocket.ErrReadLimit):
		return fmt.Errorf("websocket: a message of more than %d bytes", maxMessage)
	case c.wire.err != nil:
		return c.wire.err // gorilla may have made another of it
	}
	return err
}

// Write implements net.Conn: one message.
func (c *conn) Write(p []byte) (int, error) {
	c.wmu.Lock()
	defer c.wmu.Unlock()
	c.wrote.Store(int64(time.Since(c.start)))
	deadline := time.Time{}
	if d := c.deadline.Load(); d != nil {
		deadline = *d
	}
	_ = c.ws.SetWriteDeadline(deadline) // keeps it, no more
	if err := c.ws.WriteMessage(websocket.BinaryMessage, p); err != nil {
		return 0, writeError(err)
	}
	return len(p), nil
}

// writeError gives a timeout back the type that gorilla takes from it.
func writeError(err error) error {
	if timeout, ok := errors.AsType[net.Error](err); ok && timeout.Timeout() && !errors.Is(err, os.ErrDeadlineExceeded) {
		return fmt.Errorf("websocket: %w", os.ErrDeadlineExceeded)
	}
	return err
}

// heartbeat answers pings, and sends one where nothing was written for a while. A write that fails shows in the session's
// own; it also ends the connection here, for a session that only listens.
func (c *conn) heartbeat() {
	due := time.NewTimer(pingInterval)
	defer due.Stop()
	for {
		var err error
		select {
		case payload := <-c.pong:
			err = c.control(websocket.PongMessage, []byte(payload), controlTimeout)
		case <-due.C:
			next := pingInterval - (time.Since(c.start) - time.Duration(c.wrote.Load()))
			if next <= 0 {
				err = c.control(websocket.PingMessage, nil, controlTimeout)
				next = pingInterval
			}
			due.Reset(next)
		case <-c.closed:
			return
		}
		if err != nil {
			_ = netdial.Innermost(c.wire).Close()
			return
		}
	}
}

// control writes a control frame between the messages of others. After the goodbye there is none.
func (c *conn) control(kind int, payload []byte, limit time.Duration) error {
	if err := c.ws.WriteControl(kind, payload, time.Now().Add(limit)); !errors.Is(err, websocket.ErrCloseSent) {
		return err
	}
	return nil
}

// CloseWrite says goodbye, for at most a second.
func (c *conn) CloseWrite() error {
	return c.control(websocket.CloseMessage, websocket.FormatCloseMessage(websocket.CloseNormalClosure, ""), goodbyeTimeout)
}

// Close implements net.Conn. It says goodbye, unless the connection is gone or takes long.
func (c *conn) Close() error {
	err := net.ErrClosed
	c.once.Do(func() {
		close(c.closed)
		_ = c.CloseWrite()
		err = netdial.Innermost(c.wire).Close()
	})
	c.beat.Wait()
	return err
}

// NetConn returns the connection below.
func (c *conn) NetConn() net.Conn { return c.wire.Conn }

// LocalAddr implements net.Conn.
func (c *conn) LocalAddr() net.Addr { return c.wire.LocalAddr() }

// RemoteAddr implements net.Conn.
func (c *conn) RemoteAddr() net.Addr { return c.wire.RemoteAddr() }

// SetDeadline implements net.Conn.
func (c *conn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

// SetReadDeadline implements net.Conn. A Read that it ends is the last.
func (c *conn) SetReadDeadline(t time.Time) error { return c.wire.SetReadDeadline(t) }

// SetWriteDeadline implements net.Conn. A Write that it ends is the last.
func (c *conn) SetWriteDeadline(t time.Time) error {
	c.deadline.Store(&t)
	return c.wire.SetWriteDeadline(t) // for one that is under way, which gorilla would not change
}
