package mqttwire

import (
	"bytes"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestDecode(t *testing.T) {
	connect := []byte("\x10\x1d\x00\x04MQTT\x04\xc2\x00\x3c\x00\x04dev1\x00\x04user\x00\x05p\x00ss!")
	tests := map[string]struct {
		in      []byte
		want    Packet
		wantErr error
	}{
		"connect with user name and password": {connect, Packet{Type: Connect, Connect: &ConnectInfo{
			ClientID: "dev1", Clean: true, KeepAlive: 60, HasUsername: true, Username: "user", HasPassword: true, Password: []byte("p\x00ss!"),
		}}, nil},
		"publish QoS 1": {[]byte("\x32\x06\x00\x01t\x00\x07x"), Packet{
			Type: Publish, QoS: 1, ID: 7, Topic: []byte("t"), Payload: []byte("x"),
		}, nil},
		"publish QoS 2 is decoded, the hub closes": {[]byte("\x34\x05\x00\x01t\x00\x07"), Packet{
			Type: Publish, QoS: 2, ID: 7, Topic: []byte("t"), Payload: []byte{},
		}, nil},
		"subscribe": {[]byte("\x82\x08\x00\x01\x00\x03a/#\x01"), Packet{Type: Subscribe, ID: 1, Filters: []Filter{{"a/#", 1}}}, nil},
		"pingreq":   {[]byte{0xc0, 0}, Packet{Type: Pingreq}, nil},

		"old protocol name":            {[]byte("\x10\x0f\x00\x06MQIsdp\x03\x02\x00\x3c\x00\x01a"), Packet{}, ErrProtocol},
		"level 5":                      {[]byte("\x10\x0d\x00\x04MQTT\x05\x02\x00\x3c\x00\x01a"), Packet{}, ErrProtocol},
		"reserved connect flag":        {[]byte("\x10\x0d\x00\x04MQTT\x04\x03\x00\x3c\x00\x01a"), Packet{}, ErrMalformed},
		"will flags without a will":    {[]byte("\x10\x0d\x00\x04MQTT\x04\x22\x00\x3c\x00\x01a"), Packet{}, ErrMalformed},
		"will topic with a wildcard":   {[]byte("\x10\x13\x00\x04MQTT\x04\x06\x00\x3c\x00\x01a\x00\x01#\x00\x01x"), Packet{}, ErrMalformed},
		"empty will topic":             {[]byte("\x10\x12\x00\x04MQTT\x04\x06\x00\x3c\x00\x01a\x00\x00\x00\x01x"), Packet{}, ErrMalformed},
		"password without a user name": {[]byte("\x10\x10\x00\x04MQTT\x04\x42\x00\x3c\x00\x01a\x00\x01p"), Packet{}, ErrMalformed},
		"QoS 3":                        {[]byte("\x36\x05\x00\x01t\x00\x07"), Packet{}, ErrMalformed},
		"DUP with QoS 0":               {[]byte("\x38\x03\x00\x01t"), Packet{}, ErrMalformed},
		"packet id 0":                  {[]byte("\x32\x05\x00\x01t\x00\x00"), Packet{}, ErrMalformed},
		"wildcard in a topic":          {[]byte("\x30\x03\x00\x01#"), Packet{}, ErrMalformed},
		"topic with NUL":               {[]byte("\x30\x03\x00\x01\x00"), Packet{}, ErrMalformed},
		"topic not UTF-8":              {[]byte("\x30\x03\x00\x01\xff"), Packet{}, ErrMalformed},
		"topic longer than the packet": {[]byte("\x30\x03\x00\x09t"), Packet{}, ErrMalformed},
		"subscribe with wrong flags":   {[]byte("\x80\x08\x00\x01\x00\x03a/#\x01"), Packet{}, ErrMalformed},
		"subscribe to nothing":         {[]byte("\x82\x02\x00\x01"), Packet{}, ErrMalformed},
		"trailing bytes":               {[]byte{0xc0, 1, 0}, Packet{}, ErrMalformed},
		"a hub's packet":               {[]byte{0x20, 2, 0, 0}, Packet{}, ErrMalformed},
		"PUBREC":                       {[]byte{0x50, 2, 0, 1}, Packet{}, ErrMalformed},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := Decode(tt.in)
			if !errors.Is(err, tt.wantErr) {
				t.Fatalf("Decode: %v, want %v", err, tt.wantErr)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("Decode (-want +got):\n%s", diff)
			}
		})
	}
}

func TestFrame(t *testing.T) {
	tests := map[string]struct {
		in      []byte
		want    int
		wantErr error
	}{
		"nothing yet":             {nil, 0, nil},
		"length not complete":     {[]byte{0x30, 0x80}, 0, nil},
		"body not there yet":      {[]byte{0x30, 0x80, 0x01}, 131, nil},
		"over the limit at once":  {[]byte{0x30, 0xff, 0xff, 0xff, 0x7f}, 0, ErrTooLarge},
		"five bytes of length":    {[]byte{0x30, 0x80, 0x80, 0x80, 0x80, 0x01}, 0, ErrMalformed},
		"length in a longer form": {[]byte{0x30, 0x80, 0x00}, 0, ErrMalformed},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := Frame(tt.in, 1000)
			if got != tt.want || !errors.Is(err, tt.wantErr) {
				t.Errorf("Frame = %d, %v; want %d, %v", got, err, tt.want, tt.wantErr)
			}
		})
	}
}

func FuzzDecode(f *testing.F) {
	for _, seed := range []string{
		"\x10\x1d\x00\x04MQTT\x04\xc2\x00\x3c\x00\x04dev1\x00\x04user\x00\x05p\x00ss!", "\x32\x06\x00\x01t\x00\x07x", "\x82\x08\x00\x01\x00\x03a/#\x01",
		"\xa2\x07\x00\x01\x00\x03a/#", "\xc0\x00", "\xe0\x00", "\x40\x02\x00\x01", "\x10\x16\x00\x04MQTT\x04\x06\x00\x3c\x00\x01a\x00\x01t\x00\x04will",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		total, err := Frame(in, 1<<20)
		if err != nil || total == 0 || total > len(in) {
			return
		}
		p, err := Decode(in[:total])
		if err != nil {
			return
		}
		var again []byte
		switch p.Type {
		case Publish:
			again = AppendPublish(nil, string(p.Topic), p.Payload, p.QoS, p.Dup, p.ID)
			if p.Retain {
				again[0] |= 1
			}
		case Puback:
			again = AppendPuback(nil, p.ID)
		default:
			return
		}
		if !bytes.Equal(again, in[:total]) {
			t.Errorf("%x decoded and written again is %x", in[:total], again)
		}
	})
}
