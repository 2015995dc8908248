package mqttws

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
)

// wire is the connection below gorilla's WebSocket. It bounds the answer to the upgrade, which net/http reads without a
// limit, and ends it where its headers end; afterwards it counts the messages that have come whole. gorilla does not
// tell whether another message is there already, and reading one to see would wait for it.
//
// It is read by one goroutine.
type wire struct {
	net.Conn
	// Until upgraded, bytes are handed on one by one, so that nothing behind the answer's end lies in a reader of HTTP.
	upgraded bool
	served   int
	line     int    // bytes of the answer's line at hand
	headed   bool   // the blank line that ends the answer's headers was served
	rest     []byte // read and not handed on
	frames   frames
	err      error // of the connection, not of what came over it
}

// Read implements net.Conn.
func (w *wire) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if w.upgraded {
		n := copy(p, w.rest)
		if w.rest = w.rest[n:]; len(w.rest) == 0 {
			w.rest = nil
		}
		if n == 0 {
			if n, w.err = w.Conn.Read(p); n == 0 {
				return 0, w.err
			}
		}
		w.frames.feed(p[:n])
		return n, w.err
	}
	if w.headed {
		return 0, io.EOF // gorilla would wait for a refusal's body
	}
	if w.served++; w.served > maxAnswer {
		return 0, errLongAnswer
	}
	for len(w.rest) == 0 {
		buffer := make([]byte, 512)
		n, err := w.Conn.Read(buffer)
		if w.rest = buffer[:n]; n == 0 && err != nil {
			w.err = err
			return 0, err
		}
	}
	p[0] = w.rest[0]
	w.rest = w.rest[1:]
	switch p[0] {
	case '\n':
		w.headed, w.line = w.line == 0, 0
	case '\r':
	default:
		w.line++
	}
	return 1, nil
}

// NetConn returns the connection below, as tls.Conn.NetConn does.
func (w *wire) NetConn() net.Conn { return w.Conn }

var errLongAnswer = fmt.Errorf("the answer to the upgrade is longer than %d bytes", maxAnswer)

// frames walks over the frames of a server, which are not masked. What is wrong with them is gorilla's to say.
// https://www.rfc-editor.org/rfc/rfc6455#section-5.2
type frames struct {
	header [10]byte
	have   int    // bytes of the header
	rest   uint64 // bytes of the frame's body that have not come
	last   bool   // the frame ends a message
	whole  uint64 // messages that have come whole
}

// feed walks over the next bytes.
func (f *frames) feed(p []byte) {
	for len(p) > 0 {
		if f.rest > 0 {
			n := min(uint64(len(p)), f.rest)
			p = p[n:]
			if f.rest -= n; f.rest == 0 && f.last {
				f.whole++
			}
			continue
		}
		f.header[f.have] = p[0]
		f.have++
		p = p[1:]
		f.begin()
	}
}

// begin begins the body, when the header is complete.
func (f *frames) begin() {
	if f.have < 2 {
		return
	}
	switch length := f.header[1] & 0x7f; {
	case length < 126:
		f.rest = uint64(length)
	case length == 126 && f.have == 4:
		f.rest = uint64(binary.BigEndian.Uint16(f.header[2:]))
	case length == 127 && f.have == 10:
		f.rest = binary.BigEndian.Uint64(f.header[2:])
	default:
		return
	}
	const final, control = 0x80, 0x08
	f.have, f.last = 0, f.header[0]&final != 0 && f.header[0]&control == 0
	if f.rest == 0 && f.last {
		f.whole++
	}
}

// boundary reports whether the stream stands between two frames.
func (f *frames) boundary() bool { return f.have == 0 && f.rest == 0 }
