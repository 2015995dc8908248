package wire_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/fairlead-iot/fairlead/internal/quietio"
	"github.com/fairlead-iot/fairlead/plugins/internal/wire"
	"github.com/fairlead-iot/fairlead/plugins/pluginv1"
)

func messagesFrame(first uint64, size int) *pluginv1.SessionResponse {
	return &pluginv1.SessionResponse{Frame: &pluginv1.SessionResponse_Messages{Messages: &pluginv1.Messages{
		First: first, Messages: []*pluginv1.Message{{Payload: bytes.Repeat([]byte{byte(first)}, size)}},
	}}}
}

// ends returns the two ends of a pair of pipes of the system.
func ends(t *testing.T) (wire.HostPipe, wire.PluginPipe) {
	t.Helper()
	pluginIn, hostOut, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	hostIn, pluginOut, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	h, p := wire.NewHostPipe(quietio.NewPipe(hostIn, hostOut)), wire.NewPluginPipe(quietio.NewPipe(pluginIn, pluginOut))
	t.Cleanup(func() { _ = h.Close(); _ = p.Close() })
	return h, p
}

func TestFramesArriveWholeAndInOrder(t *testing.T) {
	h, p := ends(t)
	sizes := []int{0, 1, 255, 256, 65_000, 200_000, 256 << 10, 3}
	sent := make(chan error, 1)
	go func() {
		var frames []*pluginv1.SessionResponse
		for i, size := range sizes {
			frames = append(frames, messagesFrame(uint64(i), size))
		}
		err := p.Send(frames...)
		for i := range sizes {
			err = errors.Join(err, p.Send(frames[i]))
		}
		sent <- err
	}()
	for range 2 {
		for i, size := range sizes {
			got, err := h.Recv()
			if err != nil {
				t.Fatal(err)
			}
			if !proto.Equal(got, messagesFrame(uint64(i), size)) {
				t.Fatalf("frame %d of %d bytes is another", i, size)
			}
		}
	}
	if err := <-sent; err != nil {
		t.Error(err)
	}
}

func TestATriedFrameIsFinishedLater(t *testing.T) {
	h, p := ends(t)
	if !p.CanTry() {
		t.Skip("no write can be tried on this system")
	}
	isWhole, err := p.TrySend(messagesFrame(1, 10))
	if err != nil || !isWhole {
		t.Fatalf("a small frame: %v, %v", isWhole, err)
	}
	isWhole, err = p.TrySend(messagesFrame(2, 250_000)) // more than a pipe holds
	if err != nil || isWhole {
		t.Fatalf("a large frame: %v, %v", isWhole, err)
	}
	sent := make(chan error, 1)
	go func() { sent <- errors.Join(p.Flush(), p.Send(messagesFrame(3, 10))) }()
	for i, size := range []int{10, 250_000, 10} {
		got, err := h.Recv()
		if err != nil {
			t.Fatal(err)
		}
		if !proto.Equal(got, messagesFrame(uint64(i+1), size)) {
			t.Fatalf("frame %d is another", i+1)
		}
	}
	if err := <-sent; err != nil {
		t.Error(err)
	}
}

func TestAFrameThatNobodyWouldTakeIsNotSent(t *testing.T) {
	_, p := ends(t)
	if err := p.Send(messagesFrame(1, wire.MaxReceive)); err == nil {
		t.Error("a frame of more than MaxReceive was sent")
	}
}

func TestTheEndOfAPluginsPipe(t *testing.T) {
	ended := func(reason string) []byte {
		b, err := proto.Marshal(&pluginv1.SessionResponse{Frame: &pluginv1.SessionResponse_Ended{Ended: &pluginv1.Ended{Reason: reason}}})
		if err != nil {
			t.Fatal(err)
		}
		return append(binary.BigEndian.AppendUint32(nil, uint32(len(b))), b...)
	}
	for _, c := range []struct {
		name  string
		bytes []byte
		code  codes.Code // OK stands for io.EOF
	}{
		{"in order", ended(""), codes.OK},
		{"it gave up", ended("the press is gone"), codes.Aborted},
		{"nothing", nil, codes.Unavailable},
		{"half a length", []byte{0, 0}, codes.Unavailable},
		{"half a frame", []byte{0, 0, 0, 9, 1}, codes.Unavailable},
		{"half a large frame", append([]byte{0, 3, 0, 0}, make([]byte, 100_000)...), codes.Unavailable},
		{"too large a frame", []byte{0xff, 0xff, 0xff, 0xff}, codes.ResourceExhausted},
		{"no protobuf", []byte{0, 0, 0, 1, 0xff}, codes.Internal},
	} {
		t.Run(c.name, func(t *testing.T) {
			ours, theirs := net.Pipe()
			go func() { _, _ = theirs.Write(c.bytes); _ = theirs.Close() }()
			h := wire.NewHostPipe(ours)
			f, err := h.Recv()
			switch {
			case err == nil:
				t.Errorf("a frame came: %v", f)
			case c.code == codes.OK:
				if !errors.Is(err, io.EOF) {
					t.Errorf("error %v, want io.EOF", err)
				}
			case status.Code(err) != c.code:
				t.Errorf("error %v, want code %s", err, c.code)
			}
			_ = h.Close()
		})
	}
}

// FuzzRecv: whatever a plugin writes, the host gets frames or the end.
func FuzzRecv(f *testing.F) {
	f.Add([]byte{0, 0, 0, 0})
	f.Add([]byte{0, 0, 0, 2, 0x1a, 0})
	f.Add([]byte{0xff, 0, 0, 0, 1, 2, 3})
	f.Fuzz(func(t *testing.T, b []byte) {
		h := wire.NewHostPipe(readOnly{bytes.NewReader(b)})
		for n := 0; ; n++ {
			if _, err := h.Recv(); err != nil {
				return
			}
			if n > len(b) {
				t.Fatal("more frames than bytes")
			}
		}
	})
}

type readOnly struct{ io.Reader }

func (readOnly) Write([]byte) (int, error) { return 0, io.ErrClosedPipe }
func (readOnly) Close() error              { return nil }
