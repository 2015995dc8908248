package mqttwire_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	paho "github.com/eclipse/paho.mqtt.golang/packets"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	mochi "github.com/mochi-mqtt/server/v2/packets"

	"github.com/fairlead-iot/fairlead/hub/internal/mqttwire"
)

// difference is a deliberate one between the hub's codec and mochi's.
type difference struct {
	name, why string
	// takes says that the hub takes what mochi refuses; otherwise it is the other way about.
	takes   bool
	example string
	// applies looks at the packet's bytes and at what mochi made of them: never at what the hub says.
	applies func(frame []byte, m *mochi.Packet) bool
}

func typeIn(frame []byte, types ...mqttwire.Type) bool {
	return slices.Contains(types, mqttwire.Type(frame[0]>>4))
}

// version4 reports a CONNECT of MQTT 3.1.1, with its flags.
func version4(m *mochi.Packet) bool {
	return m.FixedHeader.Type == mochi.Connect && string(m.Connect.ProtocolName) == "MQTT" && m.ProtocolVersion == 4
}

// differences are all that there are. paho's decoder checks next to nothing: where the hub refuses and paho does not,
// mochi must refuse too, or a line of this table must apply.
var differences = []difference{
	{
		"length in a longer form", "only the shortest form can be written again to the same bytes, as MQTT 5 demands; no client uses another", false, "\xc0\x80\x00",
		func(f []byte, _ *mochi.Packet) bool {
			i := 1
			for i < len(f) && f[i]&0x80 != 0 {
				i++
			}
			return i > 1 && i < len(f) && f[i] == 0
		},
	},
	{
		"length of more than four bytes", "section 2.2.3: at most four", false, "\xc0\x80\x80\x80\x80",
		func(f []byte, _ *mochi.Packet) bool {
			return len(f) > 4 && f[1]&f[2]&f[3]&f[4]&0x80 != 0
		},
	},
	{
		"a packet that a hub sends", "a client must not send it; the peers decode for both sides", false, "\x20\x02\x00\x00",
		func(f []byte, _ *mochi.Packet) bool {
			return typeIn(f, mqttwire.Connack, mqttwire.Suback, mqttwire.Unsuback, mqttwire.Pingresp)
		},
	},
	{
		"QoS 2", "IoT Hub has none: its PUBREC, PUBREL and PUBCOMP never come", false, "\x62\x02\x00\x01",
		func(f []byte, _ *mochi.Packet) bool { return typeIn(f, 5, 6, 7) },
	},
	{
		"another version", "IoT Hub speaks 3.1.1 alone; CONNACK 1 says so", false, "\x10\x0f\x00\x06MQIsdp\x03\x02\x00\x3c\x00\x01a",
		func(_ []byte, m *mochi.Packet) bool { return m.FixedHeader.Type == mochi.Connect && !version4(m) },
	},
	{
		"will QoS without a will", "[MQTT-3.1.2-13]: it must be 0", false, "\x10\x0d\x00\x04MQTT\x04\x0a\x00\x3c\x00\x01a",
		func(_ []byte, m *mochi.Packet) bool {
			return version4(m) && !m.Connect.WillFlag && m.Connect.WillQos != 0
		},
	},
	{
		"will topic empty or with a wildcard", "[MQTT-3.3.2-2], [MQTT-4.7.3-1]: a message is to be published to it", false, "\x10\x13\x00\x04MQTT\x04\x06\x00\x3c\x00\x01a\x00\x01#\x00\x01x",
		func(_ []byte, m *mochi.Packet) bool {
			return version4(m) && m.Connect.WillFlag && (m.Connect.WillTopic == "" || strings.ContainsAny(m.Connect.WillTopic, "#+"))
		},
	},
	{
		"password without a user name", "[MQTT-3.1.2-22]", false, "\x10\x10\x00\x04MQTT\x04\x42\x00\x3c\x00\x01a\x00\x01p",
		func(_ []byte, m *mochi.Packet) bool {
			return version4(m) && m.Connect.PasswordFlag && !m.Connect.UsernameFlag
		},
	},
	{
		"user name that is no text", "[MQTT-3.1.3-11]: it is UTF-8, [MQTT-1.5.3-2]: without NUL", false, "\x10\x10\x00\x04MQTT\x04\x82\x00\x3c\x00\x01a\x00\x01\xff",
		func(_ []byte, m *mochi.Packet) bool { return version4(m) && !isText(m.Connect.Username) },
	},
	{
		"bytes after CONNECT", "they belong to nothing", false, "\x10\x0e\x00\x04MQTT\x04\x02\x00\x3c\x00\x01a!",
		func(_ []byte, m *mochi.Packet) bool {
			return version4(m) && consumed(m.Connect) != m.FixedHeader.Remaining
		},
	},
	{
		"PUBACK of number 0", "[MQTT-2.3.1-1]: no packet has it", false, "\x40\x02\x00\x00",
		func(f []byte, m *mochi.Packet) bool { return typeIn(f, mqttwire.Puback) && m.PacketID == 0 },
	},
	{
		"bytes after a packet of fixed length", "sections 3.4.1, 3.12.1, 3.14.1: the length is 2, or 0", false, "\xc0\x01x",
		func(f []byte, m *mochi.Packet) bool {
			return typeIn(f, mqttwire.Puback) && m.FixedHeader.Remaining > 2 ||
				typeIn(f, mqttwire.Pingreq, mqttwire.Disconnect) && m.FixedHeader.Remaining > 0
		},
	},
	{
		"empty topic filter", "[MQTT-4.7.3-1]; mochi's server checks it elsewhere", false, "\x82\x05\x00\x01\x00\x00\x01",
		func(f []byte, m *mochi.Packet) bool {
			return typeIn(f, mqttwire.Subscribe, mqttwire.Unsubscribe) && slices.ContainsFunc(m.Filters, func(s mochi.Subscription) bool { return s.Filter == "" })
		},
	},
	{
		"empty password", "a device with a certificate has one, by IoT Hub's documents; 3.1.1 allows 0 to 65535 bytes", true, "\x10\x12\x00\x04MQTT\x04\xc2\x00\x3c\x00\x01a\x00\x01u\x00\x00",
		func(_ []byte, m *mochi.Packet) bool {
			return version4(m) && m.Connect.PasswordFlag && len(m.Connect.Password) == 0
		},
	},
	{
		"empty will", "section 3.1.3.3: a will of zero bytes is one", true, "\x10\x12\x00\x04MQTT\x04\x06\x00\x3c\x00\x01a\x00\x01t\x00\x00",
		func(_ []byte, m *mochi.Packet) bool {
			return version4(m) && m.Connect.WillFlag && m.Connect.WillTopic != "" && len(m.Connect.WillPayload) == 0
		},
	},
}

// explain returns the difference that covers a verdict, "" for none.
func explain(takes bool, frame []byte, m *mochi.Packet) string {
	if m == nil {
		m = &mochi.Packet{}
	}
	for _, d := range differences {
		if d.takes == takes && d.applies(frame, m) {
			return d.name
		}
	}
	return ""
}

// same compares the fields of a packet; an absent slice and an empty one are the same.
func same(a, b mqttwire.Packet) string { return cmp.Diff(a, b, cmpopts.EquateEmpty()) }

// compare holds the three readings of the first packet in b together. It returns the packet's length, 0 when there is none
// or when the hub refuses it, and the difference that was met.
func compare(t *testing.T, b []byte) (total int, met string) {
	t.Helper()
	ours, total, err := byHub(b)
	theirs, mochiTotal, m, mochiErr := byMochi(b)
	pahos, pahoTotal, pahoErr := byPaho(b)

	if errors.Is(err, errIncomplete) {
		// Who looks at the first byte alone may refuse before the rest is there.
		if mochiErr == nil || pahoErr == nil {
			t.Errorf("%x: the hub waits for more; mochi: %v, paho: %v", b, mochiErr, pahoErr)
		}
		return 0, ""
	}
	frame := b
	if total > 0 {
		frame = b[:total]
	}
	switch {
	case err == nil && mochiErr == nil:
		if mochiTotal != total {
			t.Errorf("%x: %d bytes, mochi: %d", frame, total, mochiTotal)
		}
		if diff := same(theirs, ours); diff != "" {
			t.Errorf("%x (-mochi +hub):\n%s", frame, diff)
		}
	case err == nil:
		if met = explain(true, frame, m); met == "" {
			t.Errorf("%x: the hub takes it, mochi says: %v", frame, mochiErr)
		}
	case mochiErr == nil || errors.Is(mochiErr, errIncomplete):
		if met = explain(false, frame, m); met == "" {
			t.Errorf("%x: the hub says: %v, mochi says: %v", frame, err, mochiErr)
		}
	}
	switch {
	case err == nil && pahoErr != nil:
		t.Errorf("%x: the hub takes it, paho says: %v", frame, pahoErr)
	case err == nil:
		if pahoTotal != total {
			t.Errorf("%x: %d bytes, paho: %d", frame, total, pahoTotal)
		}
		if diff := same(pahos, ours); diff != "" {
			t.Errorf("%x (-paho +hub):\n%s", frame, diff)
		}
	case pahoErr == nil && mochiErr == nil && met == "":
		t.Errorf("%x: the hub says %v, paho and mochi take it", frame, err)
	}
	if err != nil {
		return 0, met
	}
	return total, met
}

// captures are the bytes of clients as they were on the wire (the signatures are overwritten): Microsoft's
// azure-iot-device 1.18.4 and paho.mqtt.golang 1.5.1, and what the hub sent to them.
func captures(tb testing.TB, pattern string) [][]byte {
	tb.Helper()
	names, err := filepath.Glob(filepath.Join("testdata", "captures", pattern))
	if err != nil || len(names) == 0 {
		tb.Fatalf("no captures %s: %v", pattern, err)
	}
	var all [][]byte
	for _, name := range names {
		text, err := os.ReadFile(name)
		if err != nil {
			tb.Fatal(err)
		}
		all = append(all, text)
	}
	return all
}

func TestCapturesAreReadAlike(t *testing.T) {
	for _, text := range captures(t, "*-to-hub.bin") {
		seen := map[byte]bool{}
		for rest := text; len(rest) > 0; {
			total, met := compare(t, rest)
			if total == 0 || met != "" {
				t.Fatalf("%x: a packet of a real client is refused or read otherwise (%s)", rest, met)
			}
			seen[rest[0]>>4] = true
			rest = rest[total:]
		}
		for _, kind := range []byte{1, 3, 4, 8, 14} {
			if !seen[kind] {
				t.Errorf("the capture has no packet of type %d", kind)
			}
		}
	}
}

// A line of the table that no packet meets would hide something one day.
func TestEveryDifferenceIsReal(t *testing.T) {
	for _, d := range differences {
		t.Run(d.name, func(t *testing.T) {
			if _, met := compare(t, []byte(d.example)); met != d.name {
				t.Errorf("%x meets %q", d.example, met)
			}
			if _, _, err := byHub([]byte(d.example)); (err == nil) != d.takes {
				t.Errorf("the hub says %v", err)
			}
		})
	}
}

// FuzzDifferential reads whole streams with the three codecs, packet by packet.
func FuzzDifferential(f *testing.F) {
	for _, text := range captures(f, "*.bin") {
		f.Add(text)
		for len(text) > 0 { // and each packet alone
			total, err := mqttwire.Frame(text, len(text))
			if err != nil || total == 0 {
				f.Fatal(total, err)
			}
			f.Add(text[:total])
			text = text[total:]
		}
	}
	for _, d := range differences {
		f.Add([]byte(d.example))
	}
	for _, broken := range []string{
		"\x36\x05\x00\x01t\x00\x07", "\x38\x03\x00\x01t", "\x32\x05\x00\x01t\x00\x00", "\x30\x03\x00\x01#", "\x30\x03\x00\x01\x00", "\x30\x03\x00\x01\xff",
		"\x30\x03\x00\x09t", "\x30\x02\x00\x00", "\x80\x08\x00\x01\x00\x03a/#\x01", "\x82\x08\x00\x01\x00\x03a/#\x03", "\x82\x08\x00\x00\x00\x03a/#\x01",
		"\x82\x02\x00\x01", "\x82\x07\x00\x01\x00\x03a/#", "\xa2\x02\x00\x01", "\xa2\x04\x00\x01\x00\x09", "\x40\x01\x00", "\xd0\x01\x00", "\xf0\x00", "\x00\x00",
		"\x10\x0d\x00\x04MQTT\x04\x03\x00\x3c\x00\x01a", "\x10\x12\x00\x04MQTT\x04\x1e\x00\x3c\x00\x01a\x00\x01t\x00\x00",
	} {
		f.Add([]byte(broken))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		if len(in) > 4<<10 {
			return // nothing new
		}
		for len(in) > 0 {
			total, _ := compare(t, in)
			if total == 0 {
				return
			}
			in = in[total:]
		}
	})
}

// FuzzEncode has both peers read what the hub writes.
func FuzzEncode(f *testing.F) {
	f.Add("devices/dev1/messages/devicebound/%24.mid=m1", []byte("body"), uint16(7), byte(1), true)
	f.Add("$iothub/twin/res/200/?$rid=1", []byte(`{"desired":{"$version":1}}`), uint16(0), byte(0), false)
	f.Add(strings.Repeat("t", 200), bytes.Repeat([]byte{0}, 300), uint16(0xffff), byte(1), false)
	f.Fuzz(func(t *testing.T, topic string, payload []byte, id uint16, qos byte, flag bool) {
		if qos &= 1; id == 0 {
			id = 1
		}
		if topic == "" || len(topic) > 0xffff || !isText([]byte(topic)) || strings.ContainsAny(topic, "#+") {
			topic = "t" // the hub's topics are made by the hub
		}
		code := byte(len(payload)) % 6
		granted := bytes.Clone(payload[:min(len(payload), 5)])
		for i := range granted {
			if granted[i] &= 0x81; granted[i] > 1 {
				granted[i] = 0x80
			}
		}
		var out []byte
		out = mqttwire.AppendConnack(out, flag, code)
		out = mqttwire.AppendPublish(out, topic, payload, qos, flag && qos > 0, id)
		out = mqttwire.AppendPuback(out, id)
		out = mqttwire.AppendSuback(out, id, granted)
		out = mqttwire.AppendUnsuback(out, id)
		out = mqttwire.AppendPingresp(out)
		checkPaho(t, out, topic, payload, id, qos, code, flag, granted)
		checkMochi(t, out, topic, payload, id, qos, code, flag, granted)
	})
}

func checkPaho(t *testing.T, out []byte, topic string, payload []byte, id uint16, qos, code byte, flag bool, granted []byte) {
	t.Helper()
	r := bytes.NewReader(out)
	next := func() paho.ControlPacket {
		t.Helper()
		p, err := paho.ReadPacket(r)
		if err != nil {
			t.Fatalf("paho: %v of %x", err, out)
		}
		return p
	}
	if p, ok := next().(*paho.ConnackPacket); !ok || p.SessionPresent != (flag && code == 0) || p.ReturnCode != code {
		t.Errorf("CONNACK %v", p)
	}
	p, ok := next().(*paho.PublishPacket)
	if !ok || p.TopicName != topic || !bytes.Equal(p.Payload, payload) || p.Qos != qos || qos > 0 && p.MessageID != id || p.Dup != (flag && qos > 0) || p.Retain {
		t.Errorf("PUBLISH %v", p)
	}
	if p, ok := next().(*paho.PubackPacket); !ok || p.MessageID != id {
		t.Errorf("PUBACK %v", p)
	}
	if p, ok := next().(*paho.SubackPacket); !ok || p.MessageID != id || !bytes.Equal(p.ReturnCodes, granted) {
		t.Errorf("SUBACK %v", p)
	}
	if p, ok := next().(*paho.UnsubackPacket); !ok || p.MessageID != id {
		t.Errorf("UNSUBACK %v", p)
	}
	if p, ok := next().(*paho.PingrespPacket); !ok || r.Len() != 0 {
		t.Errorf("PINGRESP %v, %d bytes left", p, r.Len())
	}
}

func checkMochi(t *testing.T, out []byte, topic string, payload []byte, id uint16, qos, code byte, flag bool, granted []byte) {
	t.Helper()
	next := func() *mochi.Packet {
		t.Helper()
		_, total, m, err := byMochi(out)
		if err != nil {
			t.Fatalf("mochi: %v of %x", err, out)
		}
		out = out[total:]
		return m
	}
	if m := next(); m.SessionPresent != (flag && code == 0) || m.ReasonCode != code {
		t.Errorf("CONNACK %+v", m)
	}
	m := next()
	if m.TopicName != topic || !bytes.Equal(m.Payload, payload) || m.FixedHeader.Qos != qos || qos > 0 && m.PacketID != id || m.FixedHeader.Dup != (flag && qos > 0) {
		t.Errorf("PUBLISH %+v", m)
	}
	if m := next(); m.PacketID != id {
		t.Errorf("PUBACK %+v", m)
	}
	if m := next(); m.PacketID != id || !bytes.Equal(m.ReasonCodes, granted) {
		t.Errorf("SUBACK %+v", m)
	}
	if m := next(); m.PacketID != id {
		t.Errorf("UNSUBACK %+v", m)
	}
	if m := next(); m.FixedHeader.Type != mochi.Pingresp || len(out) != 0 {
		t.Errorf("PINGRESP %+v, %d bytes left", m, len(out))
	}
}
