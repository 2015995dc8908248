package sdk_test

import (
	"context"
	"net"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"

	"github.com/fairlead-iot/fairlead/plugins/pluginv1"
	"github.com/fairlead-iot/fairlead/plugins/sdk"
)

type clientStream = grpc.BidiStreamingClient[pluginv1.SessionRequest, pluginv1.SessionResponse]

// rawHost speaks to a plugin frame by frame.
type rawHost struct {
	t      *testing.T
	client pluginv1.PluginServiceClient
	stream clientStream
}

func dialRaw(t *testing.T, p *sdk.Plugin) *rawHost {
	t.Helper()
	listener := bufconn.Listen(1 << 20)
	server := grpc.NewServer()
	p.Register(server, nil)
	served := make(chan struct{})
	go func() { defer close(served); _ = server.Serve(listener) }()
	conn, err := grpc.NewClient("passthrough:///plugin",
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }),
		grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(func() { cancel(); _ = conn.Close(); server.Stop(); <-served })
	h := &rawHost{t: t, client: pluginv1.NewPluginServiceClient(conn)}
	if h.stream, err = h.client.Session(ctx); err != nil {
		t.Fatal(err)
	}
	return h
}

func (h *rawHost) send(f *pluginv1.SessionRequest) {
	h.t.Helper()
	if err := h.stream.Send(f); err != nil {
		h.t.Fatal(err)
	}
}

func (h *rawHost) recv() *pluginv1.SessionResponse {
	h.t.Helper()
	f, err := h.stream.Recv()
	if err != nil {
		h.t.Fatal(err)
	}
	return f
}

func (h *rawHost) init() *pluginv1.Register {
	h.t.Helper()
	h.send(&pluginv1.SessionRequest{Frame: &pluginv1.SessionRequest_Init{Init: &pluginv1.Init{PluginName: "raw"}}})
	r := h.recv().GetRegister()
	if r == nil {
		h.t.Fatal("the first frame is no Register")
	}
	h.send(&pluginv1.SessionRequest{Frame: &pluginv1.SessionRequest_Connection{Connection: &pluginv1.ConnectionState{}}})
	return r
}

func (h *rawHost) credit(messages, bytes uint64) {
	h.t.Helper()
	h.send(&pluginv1.SessionRequest{Frame: &pluginv1.SessionRequest_Credit{Credit: &pluginv1.Credit{Messages: messages, Bytes: bytes}}})
}

// barrier returns the messages that come before the answer to a ping.
func (h *rawHost) barrier() (tags []uint64, frames int) {
	h.t.Helper()
	h.send(&pluginv1.SessionRequest{Frame: &pluginv1.SessionRequest_Ping{Ping: &pluginv1.Ping{Number: 1}}})
	for {
		f := h.recv()
		if f.GetPong() != nil {
			return tags, frames
		}
		if ms := f.GetMessages(); ms != nil {
			frames++
			for i := range ms.GetMessages() {
				tags = append(tags, ms.GetFirst()+uint64(i))
			}
		}
	}
}

func TestNothingIsSentWithoutCredit(t *testing.T) {
	p := sdk.New("test")
	queued := make(chan struct{})
	p.Run(func(ctx context.Context, dev *sdk.Device) error {
		defer close(queued)
		for range 10 {
			if err := dev.SendAsync(ctx, &sdk.Message{Payload: make([]byte, 100)}, nil); err != nil {
				return err
			}
		}
		return nil
	})
	h := dialRaw(t, p)
	if r := h.init(); r.GetName() != "test" || r.GetSdk() == "" {
		t.Errorf("register: %v", r)
	}
	<-queued
	if tags, _ := h.barrier(); len(tags) != 0 {
		t.Errorf("without credit came %v", tags)
	}
	var all []uint64
	next := func(want int, why string) {
		t.Helper()
		// What credit has set free comes before the answer to the ping, or right after.
		got, _ := h.barrier()
		more, _ := h.barrier()
		got = append(got, more...)
		if len(got) != want {
			t.Errorf("%s: %d messages came, want %d", why, len(got), want)
		}
		all = append(all, got...)
	}
	h.credit(3, 1000)
	next(3, "three messages' credit")
	h.credit(100, 0)
	next(7, "the bytes left are enough for the rest")
	for i, tag := range all {
		if tag != uint64(i+1) {
			t.Errorf("tags %v", all)
			break
		}
	}
}

func TestFramesStayUnderTheirLimit(t *testing.T) {
	p := sdk.New("test")
	const n = 40
	p.Run(func(ctx context.Context, dev *sdk.Device) error {
		for range n {
			if err := dev.SendAsync(ctx, &sdk.Message{Payload: make([]byte, 200<<10)}, nil); err != nil {
				return err
			}
		}
		return nil
	})
	h := dialRaw(t, p)
	h.init()
	h.credit(1000, 64<<20)
	for got := 0; got < n; {
		ms := h.recv().GetMessages().GetMessages()
		size := 0
		for _, m := range ms {
			size += len(m.GetPayload())
		}
		if len(ms) > 1 && size > 1<<20 {
			t.Errorf("a frame of %d messages has %d bytes", len(ms), size)
		}
		got += len(ms)
	}
}

func TestTheHostAsksForANewToken(t *testing.T) {
	p := sdk.New("test")
	asked, ready := make(chan struct{}), make(chan struct{})
	p.Run(func(_ context.Context, dev *sdk.Device) error {
		dev.OnNewSASToken(func() { close(asked) })
		close(ready)
		return nil
	})
	h := dialRaw(t, p)
	h.init()
	<-ready
	h.send(&pluginv1.SessionRequest{Frame: &pluginv1.SessionRequest_TokenWanted{TokenWanted: &pluginv1.TokenWanted{}}})
	<-asked
}

func TestAPluginHasOneSessionThatBeginsWithInit(t *testing.T) {
	h := dialRaw(t, sdk.New("test"))
	h.send(&pluginv1.SessionRequest{})
	if _, err := h.stream.Recv(); status.Code(err) != codes.InvalidArgument {
		t.Errorf("without Init: %v", err)
	}
	again, err := h.client.Session(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := again.Recv(); status.Code(err) != codes.FailedPrecondition {
		t.Errorf("a second session: %v", err)
	}
}

func TestAnUnknownCallIsAnswered(t *testing.T) {
	h := dialRaw(t, sdk.New("test"))
	h.init()
	h.send(&pluginv1.SessionRequest{Frame: &pluginv1.SessionRequest_Call{Call: &pluginv1.Call{Id: 7}}})
	h.send(&pluginv1.SessionRequest{}) // a frame of a later protocol
	if r := h.recv().GetReturn(); r.GetId() != 7 || r.GetStatus() != 501 {
		t.Errorf("return: %v", r)
	}
}

// The loop waits for the connection's state, but not for ever.
func TestAHostThatNeverTellsTheStateDoesNotHoldUpTheLoop(t *testing.T) {
	p := sdk.New("test")
	began := make(chan bool, 1)
	p.Run(func(_ context.Context, dev *sdk.Device) error { began <- dev.Connected(); return nil })
	h := dialRaw(t, p)
	h.send(&pluginv1.SessionRequest{Frame: &pluginv1.SessionRequest_Init{Init: &pluginv1.Init{PluginName: "raw"}}})
	select {
	case connected := <-began:
		if connected {
			t.Error("connected, although nobody said so")
		}
	case <-time.After(time.Minute):
		t.Error("the loop did not begin")
	}
}
