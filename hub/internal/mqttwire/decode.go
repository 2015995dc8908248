package mqttwire

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

// Errors of the codec. All of them mean: close the connection.
var (
	// ErrMalformed is a packet that breaks the standard.
	ErrMalformed = errors.New("mqttwire: malformed packet")
	// ErrTooLarge is a packet whose header announces more than the limit.
	ErrTooLarge = errors.New("mqttwire: packet too large")
	// ErrProtocol is a CONNECT of another protocol name or level. CONNACK code 1
	// may be sent before closing, [MQTT-3.1.2-2].
	ErrProtocol = errors.New("mqttwire: not MQTT 3.1.1")
)

// Type is the packet type of MQTT 3.1.1, section 2.2.1.
type Type byte

// The packet types that a hub handles.
const (
	Connect     Type = 1
	Connack     Type = 2
	Publish     Type = 3
	Puback      Type = 4
	Subscribe   Type = 8
	Suback      Type = 9
	Unsubscribe Type = 10
	Unsuback    Type = 11
	Pingreq     Type = 12
	Pingresp    Type = 13
	Disconnect  Type = 14
)

// Packet is one decoded packet. Which fields are set follows from Type. The
// slices alias the decoded frame.
type Packet struct {
	Type    Type
	QoS     byte // Publish
	Dup     bool // Publish
	Retain  bool // Publish
	ID      uint16
	Topic   []byte // Publish
	Payload []byte // Publish
	Filters []Filter
	Connect *ConnectInfo
}

// Filter is one topic filter of SUBSCRIBE (with the asked QoS) or UNSUBSCRIBE.
type Filter struct {
	Topic string
	QoS   byte
}

// ConnectInfo is the content of CONNECT, copied out of the frame.
type ConnectInfo struct {
	ClientID    string
	Clean       bool
	KeepAlive   uint16 // seconds, 0: none
	HasUsername bool
	Username    string
	HasPassword bool
	Password    []byte
	Will        *Will
}

// Will is the message that is published when the connection ends without
// DISCONNECT.
type Will struct {
	Topic   string
	Payload []byte
	QoS     byte
	Retain  bool
}

// Frame returns the whole length of the first packet in buf, fixed header
// included, or 0 when the fixed header is not complete yet. A packet longer than
// limit bytes is ErrTooLarge as soon as its header is there, so that nothing is
// ever allocated for it.
func Frame(buf []byte, limit int) (int, error) {
	length, shift := 0, 0
	for i := 1; i < len(buf); i++ {
		b := buf[i]
		length |= int(b&0x7f) << shift
		if b&0x80 == 0 {
			if i > 1 && b == 0 {
				return 0, fmt.Errorf("%w: remaining length not in its shortest form", ErrMalformed)
			}
			total := 1 + i + length
			if total > limit {
				return 0, fmt.Errorf("%w: %d bytes, at most %d", ErrTooLarge, total, limit)
			}
			return total, nil
		}
		shift += 7
		if i == 4 {
			return 0, fmt.Errorf("%w: remaining length of more than 4 bytes", ErrMalformed)
		}
	}
	return 0, nil
}

// Decode parses one whole packet, as delimited by Frame.
func Decode(frame []byte) (Packet, error) {
	if len(frame) < 2 {
		return Packet{}, fmt.Errorf("%w: no fixed header", ErrMalformed)
	}
	total, err := Frame(frame, len(frame))
	if err != nil {
		return Packet{}, err
	}
	if total != len(frame) {
		return Packet{}, fmt.Errorf("%w: %d bytes for a packet of %d", ErrMalformed, len(frame), total)
	}
	start := 2
	for frame[start-1]&0x80 != 0 {
		start++
	}
	r := reader{b: frame[start:]}
	p := Packet{Type: Type(frame[0] >> 4)}
	flags := frame[0] & 0x0f
	// [MQTT-2.2.2-2]: invalid flags close the connection.
	want := byte(0)
	if p.Type == Subscribe || p.Type == Unsubscribe {
		want = 2
	}
	if p.Type != Publish && flags != want {
		return Packet{}, fmt.Errorf("%w: flags %#x in a packet of type %d", ErrMalformed, flags, p.Type)
	}
	switch p.Type {
	case Connect:
		p.Connect, err = decodeConnect(&r)
	case Publish:
		err = decodePublish(&r, flags, &p)
	case Puback:
		p.ID, err = r.id()
	case Subscribe, Unsubscribe:
		err = decodeFilters(&r, &p)
	case Pingreq, Disconnect:
	case Connack, Suback, Unsuback, Pingresp:
		err = fmt.Errorf("%w: type %d is not for a client to send", ErrMalformed, p.Type)
	default:
		err = fmt.Errorf("%w: type %d", ErrMalformed, p.Type)
	}
	if err != nil {
		return Packet{}, err
	}
	if len(r.b) != 0 {
		return Packet{}, fmt.Errorf("%w: %d bytes after a packet of type %d", ErrMalformed, len(r.b), p.Type)
	}
	return p, nil
}

func decodeConnect(r *reader) (*ConnectInfo, error) {
	name, err := r.bytes("protocol name")
	if err != nil {
		return nil, err
	}
	level, err := r.byte("protocol level")
	if err != nil {
		return nil, err
	}
	if string(name) != "MQTT" || level != 4 {
		return nil, fmt.Errorf("%w: protocol %q level %d", ErrProtocol, name, level)
	}
	flags, err := r.byte("connect flags")
	if err != nil {
		return nil, err
	}
	if flags&1 != 0 { // [MQTT-3.1.2-3]
		return nil, fmt.Errorf("%w: reserved connect flag", ErrMalformed)
	}
	c := &ConnectInfo{Clean: flags&0x02 != 0, HasUsername: flags&0x80 != 0, HasPassword: flags&0x40 != 0}
	hasWill, willQoS, willRetain := flags&0x04 != 0, flags>>3&3, flags&0x20 != 0
	if willQoS > 2 || !hasWill && (willQoS != 0 || willRetain) { // [MQTT-3.1.2-11,13,14,15]
		return nil, fmt.Errorf("%w: will flags", ErrMalformed)
	}
	if c.HasPassword && !c.HasUsername { // [MQTT-3.1.2-22]
		return nil, fmt.Errorf("%w: password without user name", ErrMalformed)
	}
	if c.KeepAlive, err = r.uint16("keep alive"); err != nil {
		return nil, err
	}
	if c.ClientID, err = r.text("client id"); err != nil {
		return nil, err
	}
	if hasWill {
		w := &Will{QoS: willQoS, Retain: willRetain}
		if w.Topic, err = r.text("will topic"); err != nil {
			return nil, err
		}
		if w.Topic == "" || strings.ContainsAny(w.Topic, "#+") { // [MQTT-3.3.2-2], [MQTT-4.7.3-1]
			return nil, fmt.Errorf("%w: will topic empty or with a wildcard", ErrMalformed)
		}
		payload, err := r.bytes("will message")
		if err != nil {
			return nil, err
		}
		w.Payload, c.Will = bytes.Clone(payload), w
	}
	if c.HasUsername {
		if c.Username, err = r.text("user name"); err != nil {
			return nil, err
		}
	}
	if c.HasPassword {
		password, err := r.bytes("password")
		if err != nil {
			return nil, err
		}
		c.Password = bytes.Clone(password)
	}
	return c, nil
}

func decodePublish(r *reader, flags byte, p *Packet) error {
	p.Dup, p.QoS, p.Retain = flags&8 != 0, flags>>1&3, flags&1 != 0
	if p.QoS == 3 || p.QoS == 0 && p.Dup { // [MQTT-3.3.1-2,4]
		return fmt.Errorf("%w: PUBLISH flags %#x", ErrMalformed, flags)
	}
	var err error
	if p.Topic, err = r.bytes("topic"); err != nil {
		return err
	}
	if len(p.Topic) == 0 || bytes.ContainsAny(p.Topic, "#+") { // [MQTT-3.3.2-2], [MQTT-4.7.3-1]
		return fmt.Errorf("%w: PUBLISH topic empty or with a wildcard", ErrMalformed)
	}
	if err := checkText(p.Topic, "topic"); err != nil {
		return err
	}
	if p.QoS > 0 {
		if p.ID, err = r.id(); err != nil {
			return err
		}
	}
	p.Payload, r.b = r.b, nil
	return nil
}

func decodeFilters(r *reader, p *Packet) error {
	var err error
	if p.ID, err = r.id(); err != nil {
		return err
	}
	for len(r.b) > 0 {
		var f Filter
		if f.Topic, err = r.text("topic filter"); err != nil {
			return err
		}
		if f.Topic == "" {
			return fmt.Errorf("%w: empty topic filter", ErrMalformed)
		}
		if p.Type == Subscribe {
			if f.QoS, err = r.byte("asked QoS"); err != nil {
				return err
			}
			if f.QoS > 2 { // [MQTT-3-8.3-4]
				return fmt.Errorf("%w: asked QoS %d", ErrMalformed, f.QoS)
			}
		}
		p.Filters = append(p.Filters, f)
	}
	if len(p.Filters) == 0 { // [MQTT-3.8.3-3], [MQTT-3.10.3-2]
		return fmt.Errorf("%w: no topic filter", ErrMalformed)
	}
	return nil
}

// reader takes fields off the front of b.
type reader struct{ b []byte }

func (r *reader) byte(field string) (byte, error) {
	if len(r.b) < 1 {
		return 0, fmt.Errorf("%w: %s missing", ErrMalformed, field)
	}
	v := r.b[0]
	r.b = r.b[1:]
	return v, nil
}

func (r *reader) uint16(field string) (uint16, error) {
	if len(r.b) < 2 {
		return 0, fmt.Errorf("%w: %s missing", ErrMalformed, field)
	}
	v := binary.BigEndian.Uint16(r.b)
	r.b = r.b[2:]
	return v, nil
}

// id reads a packet identifier, which is never 0, [MQTT-2.3.1-1].
func (r *reader) id() (uint16, error) {
	v, err := r.uint16("packet identifier")
	if err == nil && v == 0 {
		err = fmt.Errorf("%w: packet identifier 0", ErrMalformed)
	}
	return v, err
}

func (r *reader) bytes(field string) ([]byte, error) {
	n, err := r.uint16(field)
	if err != nil {
		return nil, err
	}
	if int(n) > len(r.b) {
		return nil, fmt.Errorf("%w: %s cut short", ErrMalformed, field)
	}
	v := r.b[:n:n]
	r.b = r.b[n:]
	return v, nil
}

func (r *reader) text(field string) (string, error) {
	v, err := r.bytes(field)
	if err != nil {
		return "", err
	}
	if err := checkText(v, field); err != nil {
		return "", err
	}
	return string(v), nil
}

// checkText holds [MQTT-1.5.3-1] and [MQTT-1.5.3-2]: well-formed UTF-8 without
// U+0000.
func checkText(v []byte, field string) error {
	if !utf8.Valid(v) || bytes.IndexByte(v, 0) >= 0 {
		return fmt.Errorf("%w: %s is not MQTT text", ErrMalformed, field)
	}
	return nil
}
