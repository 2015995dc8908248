package hubload

import (
	"bufio"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
)

// ServeSink is the least that can take the generator's load: it answers CONNECT and every PUBLISH, looks at no more than
// lengths and numbers, and keeps nothing. It returns when the listener is closed.
func ServeSink(l net.Listener, config *tls.Config) error {
	for {
		nc, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("accept: %w", err)
		}
		go func() {
			c := tls.Server(nc, config)
			_ = sink(c)   // the generator sees what is wrong
			_ = c.Close() // as above
		}()
	}
}

func sink(nc net.Conn) error {
	r := bufio.NewReaderSize(nc, 32<<10)
	var out []byte
	for {
		if len(out) > 0 && r.Buffered() == 0 {
			if _, err := nc.Write(out); err != nil {
				return err
			}
			out = out[:0]
		}
		first, err := r.ReadByte()
		if err != nil {
			return err
		}
		length, err := binary.ReadUvarint(r) // the same form, MQTT 3.1.1 section 2.2.3
		if err != nil {
			return err
		}
		switch {
		case first == 0x10:
			out = append(out, 0x20, 2, 0, 0)
		case first == 0x32 && length >= 4:
			head, err := r.Peek(2)
			if err != nil {
				return err
			}
			topic := int(binary.BigEndian.Uint16(head))
			if topic+4 > int(length) {
				return fmt.Errorf("a topic of %d in a packet of %d", topic, length)
			}
			if _, err := r.Discard(2 + topic); err != nil {
				return err
			}
			var id [2]byte
			if _, err := io.ReadFull(r, id[:]); err != nil {
				return err
			}
			out = append(out, 0x40, 2, id[0], id[1])
			length -= uint64(topic) + 4
		}
		if _, err := r.Discard(int(length)); err != nil {
			return err
		}
	}
}
