package mqtt

// filter checks the hub's bytes before paho reads them. paho 1.5.1 trusts its peer: a CONNACK code it does not know is
// success to it, a SUBACK with too many codes ends the process, and any packet up to 256 MiB is allocated on sight. The
// filter keeps no payload: it walks the stream with a few words of state, whatever the sizes of the reads. PUBACKs are
// not for paho: what they acknowledge went past it.
//
// One topic per SUBSCRIBE is assumed, and no UNSUBSCRIBE at all. It is used by one goroutine.
type filter struct {
	limit int // of a packet's remaining length, in bytes
	// connack is told the hub's answer to CONNECT, before paho is.
	connack func(present bool, code byte) error
	// subscribed reports whether a SUBSCRIBE with the id awaits its answer, and forgets it with forget.
	subscribed func(id uint16, forget bool) bool

	pubacks []uint16 // the ids of the PUBACKs that the last feed has seen whole

	connected bool
	where     place
	answers   int  // packets that the hub sends only to whom it hears; PUBACKs of the short way are not among them
	kind      byte // of the packet at hand
	qos       byte
	shift     uint // of the length's next byte
	length    int  // of the packet at hand
	pos       int  // in its body
	topic     int  // length of its topic
	id        uint16
	code      byte
}

// place is where in a packet the filter stands.
type place uint8

const (
	atHeader place = iota
	atLength
	inBody
)

// boundary reports whether the stream stands between two packets.
func (f *filter) boundary() bool { return f.where == atHeader }

// feed checks the next bytes of the stream, and moves those that are for paho to the front of p; kept is their number.
func (f *filter) feed(p []byte) (kept int, err error) {
	f.pubacks = f.pubacks[:0]
	for at := 0; at < len(p); {
		// Under load nearly everything is PUBACKs.
		if f.where == atHeader && f.connected && len(p)-at >= 4 && p[at] == packetPuback<<4 && p[at+1] == 2 {
			f.id = uint16(p[at+2])<<8 | uint16(p[at+3])
			f.kind = packetPuback
			if err := f.end(); err != nil {
				return kept, err
			}
			at += 4
			continue
		}
		n, err := f.step(p[at:])
		if err != nil {
			return kept, err
		}
		if f.kind != packetPuback {
			if kept != at {
				copy(p[kept:], p[at:at+n])
			}
			kept += n
		}
		at += n
	}
	return kept, nil
}

// step checks the next bytes, which are of one packet, and returns how many it has dealt with.
func (f *filter) step(p []byte) (int, error) {
	switch f.where {
	case atHeader:
		return 1, f.header(p[0])
	case atLength:
		f.length |= int(p[0]&0x7f) << f.shift
		f.shift += 7
		if p[0]&0x80 == 0 {
			return 1, f.begin()
		}
		if f.shift > 21 {
			return 1, violation("a length of more than four bytes")
		}
		return 1, nil
	case inBody:
	}
	return f.body(p)
}

// header checks a packet's first byte.
func (f *filter) header(b byte) error {
	f.kind, f.qos = b>>4, b>>1&3
	switch {
	case !f.connected && f.kind != packetConnack:
		return violation("the first packet is of type %d, not CONNACK: does something else than MQTT answer on this port?", f.kind)
	case f.connected && f.kind == packetConnack:
		return violation("a second CONNACK")
	}
	switch f.kind {
	case packetPublish:
		if f.qos > 1 {
			return violation("a PUBLISH of QoS %d", f.qos)
		}
	case packetConnack, packetPuback, packetSuback, packetPingresp:
		if b&0x0f != 0 {
			return violation("flags %#x on a packet of type %d", b&0x0f, f.kind)
		}
	default:
		return violation("a packet of type %d, which the hub does not send", f.kind)
	}
	if f.kind == packetPingresp || f.kind == packetSuback || f.kind == packetPuback {
		f.answers++
	}
	f.where, f.shift, f.length, f.pos, f.id, f.code, f.topic = atLength, 0, 0, 0, 0, 0, 0
	return nil
}

// exactLength is the length of the packets that have only one.
var exactLength = map[byte]int{packetConnack: 2, packetPuback: 2, packetSuback: 3, packetPingresp: 0}

// begin checks a packet's length.
func (f *filter) begin() error {
	if f.length > f.limit {
		return violation("a packet of %d bytes; at most %d are taken", f.length, f.limit)
	}
	if want, ok := exactLength[f.kind]; ok && f.length != want {
		return violation("a packet of type %d with %d bytes instead of %d", f.kind, f.length, want)
	}
	if f.kind == packetPublish && f.length < 3 {
		return violation("a PUBLISH of %d bytes", f.length)
	}
	if f.length == 0 {
		f.where = atHeader
		return nil
	}
	f.where = inBody
	return nil
}

// body checks the next bytes of a packet's body and returns how many it has dealt with.
func (f *filter) body(p []byte) (int, error) {
	n := min(len(p), f.length-f.pos)
	if f.kind == packetPublish {
		if err := f.publish(p[:n]); err != nil {
			return 0, err
		}
		f.pos += n
	} else {
		for _, b := range p[:n] {
			if f.pos == 2 {
				f.code = b
			} else {
				f.id = f.id<<8 | uint16(b)
			}
			f.pos++
		}
	}
	if f.pos < f.length {
		return n, nil
	}
	f.where = atHeader
	return n, f.end()
}

// publish looks at the parts of a PUBLISH's body that matter: the topic's length and the packet id.
func (f *filter) publish(p []byte) error {
	for i := 0; i < len(p); i++ {
		at := f.pos + i
		switch {
		case at < 2:
			f.topic = f.topic<<8 | int(p[i])
			if at == 0 {
				continue
			}
			least := 2 + f.topic
			if f.qos > 0 {
				least += 2
			}
			if f.topic == 0 || least > f.length {
				return violation("a PUBLISH of %d bytes with a topic of %d", f.length, f.topic)
			}
		case f.qos == 0:
			return nil
		case at < 2+f.topic:
			i = min(len(p), 2+f.topic-f.pos) - 1 // over the topic
		case at < 4+f.topic:
			f.id = f.id<<8 | uint16(p[i])
			if at == 3+f.topic && f.id == 0 {
				return violation("a PUBLISH of QoS 1 with packet id 0")
			}
		default:
			return nil
		}
	}
	return nil
}

// end checks a packet that has been seen whole.
func (f *filter) end() error {
	switch f.kind {
	case packetConnack:
		f.connected = true
		flags, code := byte(f.id>>8), byte(f.id)
		if flags > 1 {
			return violation("flags %#x in a CONNACK", flags)
		}
		return f.connack(flags == 1, code)
	case packetPuback:
		if f.subscribed(f.id, false) {
			return violation("a PUBACK for a SUBSCRIBE")
		}
		f.pubacks = append(f.pubacks, f.id)
	case packetSuback:
		if !f.subscribed(f.id, true) {
			return violation("a SUBACK that nobody asked for")
		}
		if f.code > 2 && f.code != subackFailure {
			return violation("code %#x in a SUBACK", f.code)
		}
	}
	return nil
}
