package mqtt

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
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
	b.Write([]byte{packetPuback << 4, 2, 0, 3, packetSuback << 4, 3, 0, 7, 1, packetPingresp << 4, 0})
	return b.Bytes()
}

// The filter must come to the same result however the stream is cut.
func TestFilterDoesNotDependOnTheSizesOfReads(t *testing.T) {
	stream := good(t)
	for seed := range uint64(200) {
		rng := rand.New(rand.NewPCG(seed, 1))
		f := newTestFilter(maxPacket)
		for rest := stream; len(rest) > 0; {
			n := min(len(rest), 1+rng.IntN(1+rng.IntN(300)))
			if err := f.feed(rest[:n]); err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
			rest = rest[n:]
		}
		if !f.boundary() {
			t.Fatalf("seed %d: the filter stands inside a packet at the end", seed)
		}
	}
}

func TestFilterKnowsWhereAPacketEnds(t *testing.T) {
	f := newTestFilter(maxPacket)
	for i, b := range good(t)[:60] {
		if err := f.feed([]byte{b}); err != nil {
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
		for i := range stream { // byte by byte, to know what passed
			if err := f.feed(stream[i : i+1]); err != nil {
				if _, ok := errors.AsType[*core.Error](err); !ok {
					t.Fatalf("%v is not typed", err)
				}
				break
			}
			passed = i + 1
		}
		whole := newTestFilter(4096)
		if err := whole.feed(stream); (err == nil) != (passed == len(stream)) {
			t.Fatalf("fed whole: %v, byte by byte: %d of %d passed", err, passed, len(stream))
		}
		for r := bytes.NewReader(stream[:passed]); ; {
			p, err := packets.ReadPacket(r)
			if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
				return
			}
			if err != nil {
				t.Fatalf("paho: %v", err)
			}
			if sub, ok := p.(*packets.SubackPacket); ok && len(sub.ReturnCodes) != 1 {
				t.Fatalf("a SUBACK with %d codes passed", len(sub.ReturnCodes))
			}
		}
	})
}

// The guard counts the bytes that paho holds by the size of the packet to come.
func TestPublishSize(t *testing.T) {
	for _, n := range []int{0, 1, 100, 122, 123, 124, 16_378, 16_379, 16_380, 16_383, 300_000} {
		p := packets.NewControlPacket(packets.Publish).(*packets.PublishPacket)
		p.TopicName, p.Payload, p.Qos, p.MessageID = "t", make([]byte, n), 1, 3
		var b bytes.Buffer
		if err := p.Write(&b); err != nil {
			t.Fatal(err)
		}
		if got := publishSize("t", p.Payload); got != b.Len() {
			t.Errorf("payload of %d: %d, want %d", n, got, b.Len())
		}
	}
}
