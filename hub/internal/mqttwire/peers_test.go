package mqttwire_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"unicode/utf8"

	paho "github.com/eclipse/paho.mqtt.golang/packets"
	mochi "github.com/mochi-mqtt/server/v2/packets"

	"github.com/fairlead-iot/fairlead/hub/internal/mqttwire"
)

// The readings of one packet by the three codecs, in the hub's form. A peer's fields are written out here one by one:
// that is the comparison.

// errIncomplete is said of bytes that are not a whole packet yet.
var errIncomplete = errors.New("incomplete")

// byHub reads the first packet of b.
func byHub(b []byte) (mqttwire.Packet, int, error) {
	total, err := mqttwire.Frame(b, 1<<29)
	if err != nil {
		return mqttwire.Packet{}, 0, err
	}
	if total == 0 || total > len(b) {
		return mqttwire.Packet{}, 0, errIncomplete
	}
	p, err := mqttwire.Decode(b[:total])
	return p, total, err
}

// byMochi reads it as mochi's server does: decoded, then validated.
func byMochi(b []byte) (mqttwire.Packet, int, *mochi.Packet, error) {
	r := bytes.NewReader(b)
	first, err := r.ReadByte()
	if err != nil {
		return mqttwire.Packet{}, 0, nil, errIncomplete
	}
	in := &mochi.Packet{ProtocolVersion: 4}
	if err := in.FixedHeader.Decode(first); err != nil {
		return mqttwire.Packet{}, 0, nil, err
	}
	length, _, err := mochi.DecodeLength(r)
	if errors.Is(err, io.EOF) || err == nil && length > r.Len() {
		return mqttwire.Packet{}, 0, nil, errIncomplete
	}
	if err != nil {
		return mqttwire.Packet{}, 0, nil, err
	}
	in.FixedHeader.Remaining = length
	total := len(b) - r.Len() + length
	body := bytes.Clone(b[total-length : total]) // it keeps the bytes
	p := mqttwire.Packet{Type: mqttwire.Type(in.FixedHeader.Type)}
	valid := mochi.CodeSuccess
	switch in.FixedHeader.Type {
	case mochi.Connect:
		if err = in.ConnectDecode(body); err == nil {
			valid = in.ConnectValidate()
		}
		c := in.Connect
		p.Connect = &mqttwire.ConnectInfo{
			ClientID: c.ClientIdentifier, Clean: c.Clean, KeepAlive: c.Keepalive, HasUsername: c.UsernameFlag, Username: string(c.Username),
			HasPassword: c.PasswordFlag, Password: c.Password,
		}
		if c.WillFlag {
			p.Connect.Will = &mqttwire.Will{Topic: c.WillTopic, Payload: c.WillPayload, QoS: c.WillQos, Retain: c.WillRetain}
		}
	case mochi.Publish:
		if err = in.PublishDecode(body); err == nil {
			valid = in.PublishValidate(0)
		}
		p.QoS, p.Dup, p.Retain = in.FixedHeader.Qos, in.FixedHeader.Dup, in.FixedHeader.Retain
		p.ID, p.Topic, p.Payload = in.PacketID, []byte(in.TopicName), in.Payload
	case mochi.Puback:
		err = in.PubackDecode(body)
		p.ID = in.PacketID
	case mochi.Pubrec, mochi.Pubrel, mochi.Pubcomp:
		err = in.PubackDecode(body) // of one form
	case mochi.Subscribe:
		if err = in.SubscribeDecode(body); err == nil {
			valid = in.SubscribeValidate()
		}
		p.ID = in.PacketID
		for _, f := range in.Filters {
			p.Filters = append(p.Filters, mqttwire.Filter{Topic: f.Filter, QoS: f.Qos})
		}
	case mochi.Unsubscribe:
		if err = in.UnsubscribeDecode(body); err == nil {
			valid = in.UnsubscribeValidate()
		}
		p.ID = in.PacketID
		for _, f := range in.Filters {
			p.Filters = append(p.Filters, mqttwire.Filter{Topic: f.Filter})
		}
	case mochi.Connack:
		err = in.ConnackDecode(body)
	case mochi.Suback:
		err = in.SubackDecode(body)
	case mochi.Unsuback:
		err = in.UnsubackDecode(body)
	case mochi.Pingreq, mochi.Pingresp:
	case mochi.Disconnect:
		err = in.DisconnectDecode(body)
	default: // 0 is reserved, 15 is of MQTT 5
		err = fmt.Errorf("type %d", in.FixedHeader.Type)
	}
	if err == nil && valid != mochi.CodeSuccess {
		err = valid
	}
	return p, total, in, err
}

// byPaho reads it as paho does, which checks next to nothing.
func byPaho(b []byte) (mqttwire.Packet, int, error) {
	length := 0
	for i := 1; i < min(len(b), 5); i++ {
		length |= int(b[i]&0x7f) << (7 * (i - 1))
		if b[i]&0x80 == 0 {
			break
		}
	}
	if length > len(b) { // paho would say so too, after it has made a buffer of up to 256 MiB
		return mqttwire.Packet{}, 0, errIncomplete
	}
	r := bytes.NewReader(b)
	in, err := paho.ReadPacket(r)
	if errors.Is(err, io.EOF) && in == nil || errors.Is(err, io.ErrUnexpectedEOF) {
		return mqttwire.Packet{}, 0, errIncomplete
	}
	if err != nil {
		return mqttwire.Packet{}, 0, err
	}
	p := mqttwire.Packet{Type: mqttwire.Type(b[0] >> 4)}
	switch in := in.(type) {
	case *paho.ConnectPacket:
		p.Connect = &mqttwire.ConnectInfo{
			ClientID: in.ClientIdentifier, Clean: in.CleanSession, KeepAlive: in.Keepalive, HasUsername: in.UsernameFlag, Username: in.Username,
			HasPassword: in.PasswordFlag, Password: in.Password,
		}
		if in.WillFlag {
			p.Connect.Will = &mqttwire.Will{Topic: in.WillTopic, Payload: in.WillMessage, QoS: in.WillQos, Retain: in.WillRetain}
		}
	case *paho.PublishPacket:
		p.QoS, p.Dup, p.Retain = in.Qos, in.Dup, in.Retain
		p.ID, p.Topic, p.Payload = in.MessageID, []byte(in.TopicName), in.Payload
	case *paho.PubackPacket:
		p.ID = in.MessageID
	case *paho.SubscribePacket:
		p.ID = in.MessageID
		for i, topic := range in.Topics {
			p.Filters = append(p.Filters, mqttwire.Filter{Topic: topic, QoS: in.Qoss[i]})
		}
	case *paho.UnsubscribePacket:
		p.ID = in.MessageID
		for _, topic := range in.Topics {
			p.Filters = append(p.Filters, mqttwire.Filter{Topic: topic})
		}
	}
	return p, len(b) - r.Len(), nil
}

// consumed is how much of a CONNECT's body mochi has looked at.
func consumed(c mochi.ConnectParams) int {
	n := 2 + len(c.ProtocolName) + 1 + 1 + 2 + 2 + len(c.ClientIdentifier)
	if c.WillFlag {
		n += 2 + len(c.WillTopic) + 2 + len(c.WillPayload)
	}
	if c.UsernameFlag {
		n += 2 + len(c.Username)
	}
	if c.PasswordFlag {
		n += 2 + len(c.Password)
	}
	return n
}

func isText(b []byte) bool { return utf8.Valid(b) && bytes.IndexByte(b, 0) < 0 }
