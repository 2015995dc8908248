package mqtt

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/eclipse/paho.mqtt.golang/packets"

	"github.com/fairlead-iot/fairlead/core"
)

func newTestFilter(limit int) *filter {
	return &filter{
		limit:      limit,
		connack:    func(bool, byte) error { return nil },
		subscribed: func(id uint16, _ bool) bool { return id == 7 },
	}
}

// good is a stream with every kind of packet that the hub may send.
func good(tb testing.TB) []byte {
	tb.Helper()
	var b bytes.Buffer
	b.Write(connackOK)
	for _, size := range []int{0, 1, 200, 20_000} {
		for qos := range byte(2) {
			p := packets.NewControlPacket(packets.Publish).(*packets.PublishPacket)
			p.TopicName, p.Payload, p.Qos, p.MessageID = "$iothub/twin/res/200/?$rid=1", make([]byte, size), qos, 3
			if err := p.Write(&b); err != nil {
				tb.Fatal(err)
			}
		}
	}
	b.Write(twoPubacks)
	b.Write([]byte{packetSuback << 4, 3, 0, 7, 1, packetPingresp << 4, 0})
	return b.Bytes()
}

var twoPubacks = []byte{packetPuback << 4, 2, 0, 3, packetPuback << 4, 2, 0x80, 1}

// The filter must come to the same result however the stream is cut.
func TestFilterDoesNotDependOnTheSizesOfReads(t *testing.T) {
	stream := good(t)
	forPaho := bytes.Replace(stream, twoPubacks, nil, 1)
	for seed := range uint64(200) {
		rng := rand.New(rand.NewPCG(seed, 1))
		f := newTestFilter(maxPacket)
		var kept []byte
		var acked []uint16
		for rest := bytes.Clone(stream); len(rest) > 0; {
			n := min(len(rest), 1+rng.IntN(1+rng.IntN(300)))
			k, err := f.feed(rest[:n])
			if err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
			kept = append(kept, rest[:k]...)
			acked = append(acked, f.pubacks...)
			rest = rest[n:]
		}
		if !bytes.Equal(kept, forPaho) {
			t.Fatalf("seed %d: paho is given something else than the stream without its PUBACKs", seed)
		}
		if !slices.Equal(acked, []uint16{3, 0x8001}) {
			t.Fatalf("seed %d: the PUBACKs are %v", seed, acked)
		}
		if !f.boundary() {
			t.Fatalf("seed %d: the filter stands inside a packet at the end", seed)
		}
	}
}

func TestFilterKnowsWhereAPacketEnds(t *testing.T) {
	f := newTestFilter(maxPacket)
	for i, b := range good(t)[:60] {
		if _, err := f.feed([]byte{b}); err != nil {
			t.Fatal(err)
		}
		if i == 3 && !f.boundary() {
			t.Error("after CONNACK the filter is not at a boundary")
		}
		if i == 10 && f.boundary() {
			t.Error("inside a PUBLISH the filter is at a boundary")
		}
	}
}

// FuzzFilter: whatever passes the filter, paho parses without an error of its own, and without taking much memory.
func FuzzFilter(f *testing.F) {
	f.Add(good(f))
	f.Add(append(bytes.Clone(connackOK), 0x32, 5, 0, 1, 't', 0, 0))
	f.Add(append(bytes.Clone(connackOK), 0x30, 0xff, 0xff, 0xff, 0x7f))
	f.Fuzz(func(t *testing.T, stream []byte) {
		f := newTestFilter(4096)
		passed := 0
		var kept []byte
		var acked []uint16
		for i := range stream { // byte by byte, to know what passed
			p := []byte{stream[i]}
			k, err := f.feed(p)
			if err != nil {
				if _, ok := errors.AsType[*core.Error](err); !ok {
					t.Fatalf("%v is not typed", err)
				}
				break
			}
			kept = append(kept, p[:k]...)
			acked = append(acked, f.pubacks...)
			passed = i + 1
		}
		whole := newTestFilter(4096)
		p := bytes.Clone(stream)
		k, err := whole.feed(p)
		if (err == nil) != (passed == len(stream)) {
			t.Fatalf("fed whole: %v, byte by byte: %d of %d passed", err, passed, len(stream))
		}
		if err == nil && (!bytes.Equal(p[:k], kept) || !slices.Equal(whole.pubacks, acked)) {
			t.Fatalf("fed whole it keeps %x and PUBACKs %v; byte by byte %x and %v", p[:k], whole.pubacks, kept, acked)
		}
		for r := bytes.NewReader(kept); ; {
			p, err := packets.ReadPacket(r)
			if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
				return
			}
			if err != nil {
				t.Fatalf("paho: %v", err)
			}
			switch p := p.(type) {
			case *packets.SubackPacket:
				if len(p.ReturnCodes) != 1 {
					t.Fatalf("a SUBACK with %d codes passed", len(p.ReturnCodes))
				}
			case *packets.PubackPacket:
				t.Fatal("a PUBACK passed")
			}
		}
	})
}

// What the session publishes past paho is what paho would write.
func TestPublishIsPahosToTheByte(t *testing.T) {
	for _, n := range []int{0, 1, 100, 122, 123, 124, 16_378, 16_379, 16_380, 16_383, 300_000} {
		p := packets.NewControlPacket(packets.Publish).(*packets.PublishPacket)
		p.TopicName, p.Payload, p.Qos, p.MessageID = "t", make([]byte, n), 1, 0x8003
		var b bytes.Buffer
		if err := p.Write(&b); err != nil {
			t.Fatal(err)
		}
		if got := appendPublish(nil, []byte("t"), 0x8003, p.Payload); !bytes.Equal(got, b.Bytes()) {
			t.Errorf("payload of %d: it begins with %x, want %x", n, got[:min(len(got), 12)], b.Bytes()[:min(b.Len(), 12)])
		}
	}
}
