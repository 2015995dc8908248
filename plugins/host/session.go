package host

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"

	"github.com/fairlead-iot/fairlead/core"
	"github.com/fairlead-iot/fairlead/plugins/internal/wire"
	"github.com/fairlead-iot/fairlead/plugins/pluginv1"
)

const (
	// maxFrames is how many frames may wait for a plugin that does not read; beyond it the plugin is ended. Settled
	// messages do not count: they are merged into runs, of which there are many only where good messages and bad ones
	// alternate; maxRuns bounds them.
	maxFrames = 8192
	maxRuns   = 8 * maxFrames
)

var (
	errFinished = errors.New("the host has finished with it")
	errBacklog  = errors.New("it does not read what the host sends")
)

// session is the host's side of one plugin's stream: one goroutine reads, one writes, one pings, one submits. It ends
// once, with the first cause, and then everything in it ends.
type session struct {
	cfg    Config
	log    *slog.Logger
	dev    core.Device
	stream wire.Stream[*pluginv1.SessionRequest, *pluginv1.SessionResponse]
	hangUp func()          // says that nothing more will be sent
	ctx    context.Context //nolint:containedctx // the session's life; requests of the plugin run under it
	end    context.CancelCauseFunc
	ended  chan struct{} // closed when every goroutine has ended
	info   core.PluginInfo
	// tellsUploads: the plugin knows the progress of uploads.
	tellsUploads bool
	in           *intake
	logs         *bucket
	metric       *bucket

	drained  chan struct{}
	drainOne sync.Once
	tasks    sync.WaitGroup // requests of the plugin

	mu         sync.Mutex
	frames     []*pluginv1.SessionRequest
	settled    []settled
	messages   uint64 // credit to grant
	bytes      uint64
	creditDue  bool                      // it does not wait for another frame
	connection *pluginv1.ConnectionState // the newest that was not sent
	nextID     uint64
	calls      map[uint64]chan *pluginv1.Return
	requests   map[uint64]context.CancelFunc       // until the reply is on its way: replies may be large
	replied    []uint64                            // those whose replies are in frames
	inflows    map[uint64]*inflow                  // the streams that the plugin uploads, by request
	progress   map[uint64]*pluginv1.UploadProgress // the newest that was not sent, by request
	heard      time.Time                           // when the last frame came
	finish     bool                                // the writer closes the stream when it has sent all
	wake       chan struct{}
}

type settled struct {
	from, to uint64
	err      error
}

// Attach speaks to a plugin that the caller has started, over a connection that stays the caller's, and returns when the
// plugin has registered. It is for tests of plugins; a runtime uses New. Of cfg it uses Name, Settings, Logger, Metric
// and Ping.
func Attach(ctx context.Context, cfg Config, conn grpc.ClientConnInterface, d core.Device) (core.Plugin, error) {
	s, err := attach(ctx, cfg.withDefaults(), rpcStream(conn), d)
	return attached(cfg, s, err)
}

// AttachConn is Attach for a plugin at the other end of a connection of bytes (version 2 of the protocol). The plugin's
// end closes conn.
func AttachConn(ctx context.Context, cfg Config, conn io.ReadWriteCloser, d core.Device) (core.Plugin, error) {
	s, err := attach(ctx, cfg.withDefaults(), connStream(conn), d)
	if err != nil {
		_ = conn.Close()
	}
	return attached(cfg, s, err)
}

func attached(cfg Config, s *session, err error) (core.Plugin, error) {
	if err != nil {
		kind := core.Transient
		if _, ok := errors.AsType[*refusal](err); ok {
			kind = core.Fatal
		}
		return nil, &core.Error{Op: fmt.Sprintf("attach plugin %q", cfg.Name), Kind: kind, Err: err}
	}
	p := &running{cfg: s.cfg, s: s, done: make(chan struct{}), hangUp: func() {}, cleanup: func() {}}
	go p.supervise()
	return p, nil
}

// opener opens a session's stream, which ends with the session: ctx does.
type opener func(ctx context.Context) (stream wire.Stream[*pluginv1.SessionRequest, *pluginv1.SessionResponse], hangUp func(), err error)

func rpcStream(conn grpc.ClientConnInterface) opener {
	return func(ctx context.Context) (wire.Stream[*pluginv1.SessionRequest, *pluginv1.SessionResponse], func(), error) {
		stream, err := pluginv1.NewPluginServiceClient(conn).Session(ctx)
		if err != nil {
			return nil, nil, err
		}
		return wire.OverRPC(stream), func() { _ = stream.CloseSend() }, nil
	}
}

func connStream(conn io.ReadWriteCloser) opener {
	return func(ctx context.Context) (wire.Stream[*pluginv1.SessionRequest, *pluginv1.SessionResponse], func(), error) {
		s := wire.NewHostPipe(conn)
		// The plugin needs no more than silence: it hears of the end by Drain.
		context.AfterFunc(ctx, func() { _ = s.Close() })
		return s, func() { closeWrite(conn) }, nil
	}
}

// closeWrite ends one direction of a connection.
func closeWrite(conn io.Closer) {
	if c, ok := conn.(interface{ CloseWrite() error }); ok {
		_ = c.CloseWrite()
	} else {
		_ = conn.Close()
	}
}

// attach opens the session and waits for the plugin's registration, until ctx ends.
func attach(ctx context.Context, cfg Config, open opener, d core.Device) (*session, error) {
	sctx, end := context.WithCancelCause(context.WithoutCancel(ctx))
	s := &session{
		cfg: cfg, log: cfg.Logger, dev: d, ctx: sctx, end: end, ended: make(chan struct{}), drained: make(chan struct{}),
		logs: newBucket(logRate, logBurst), metric: newBucket(metricRate, metricBurst),
		calls: make(map[uint64]chan *pluginv1.Return), requests: make(map[uint64]context.CancelFunc),
		inflows: make(map[uint64]*inflow), progress: make(map[uint64]*pluginv1.UploadProgress), wake: make(chan struct{}, 1),
	}
	s.in = newIntake(d, s, s.grant)
	stop := context.AfterFunc(ctx, func() { end(context.Cause(ctx)) })
	err := s.register(open)
	if !stop() && err == nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		if cause := context.Cause(sctx); cause != nil {
			err = cause
		}
		end(err)
		return nil, err
	}
	s.start()
	return s, nil
}

// register opens the stream and exchanges Init and Register.
func (s *session) register(open opener) error {
	stream, hangUp, err := open(s.ctx)
	if err != nil {
		return err
	}
	s.stream, s.hangUp = stream, hangUp
	init := &pluginv1.Init{
		PluginName: s.cfg.Name, Identity: wire.FromIdentity(s.dev.Identity()), SettingsJson: s.cfg.Settings, Host: wire.Host, LogLevel: s.level(),
		Features: []string{wire.FeatureUploads},
	}
	// An error of Send is io.EOF; Recv has the reason.
	_ = stream.Send(&pluginv1.SessionRequest{Frame: &pluginv1.SessionRequest_Init{Init: init}})
	f, err := stream.Recv()
	if err != nil {
		return err
	}
	switch f := f.GetFrame().(type) {
	case *pluginv1.SessionResponse_Register:
		r := f.Register
		s.tellsUploads = slices.Contains(r.GetFeatures(), wire.FeatureUploads)
		s.info = core.PluginInfo{
			Name: r.GetName(), SDK: r.GetSdk(), Methods: r.GetMethods(), Messages: r.GetHandlesMessages(), Desired: r.GetHandlesDesired(),
		}
		return nil
	case *pluginv1.SessionResponse_Refuse:
		return &refusal{f.Refuse.GetReason()}
	}
	return fmt.Errorf("its first frame is %T and not a registration", f.GetFrame())
}

// level returns the lowest level that the logger keeps.
func (s *session) level() pluginv1.Log_Level {
	for _, l := range []pluginv1.Log_Level{pluginv1.Log_LEVEL_DEBUG, pluginv1.Log_LEVEL_INFO, pluginv1.Log_LEVEL_WARN} {
		if s.log.Enabled(s.ctx, wire.ToLevel(l)) {
			return l
		}
	}
	return pluginv1.Log_LEVEL_ERROR
}

// start starts the session's goroutines.
func (s *session) start() {
	s.heard = time.Now()
	var all sync.WaitGroup
	all.Go(s.write)
	all.Go(s.read)
	all.Go(s.ping)
	all.Go(func() { s.in.run(s.ctx) })
	s.in.open()
	stopWatch := s.dev.Watch(s.watch)
	stopErrors := s.dev.OnError(s.background)
	stopWanted := s.dev.OnTokenWanted(s.tokenWanted)
	go func() {
		defer close(s.ended)
		<-s.ctx.Done()
		stopWatch()
		stopWanted()
		stopErrors()
		all.Wait()
		s.tasks.Wait()
	}()
}

// tokenWanted tells the plugin that the SAS token ends soon.
func (s *session) tokenWanted() {
	s.queue(&pluginv1.SessionRequest{Frame: &pluginv1.SessionRequest_TokenWanted{TokenWanted: &pluginv1.TokenWanted{}}})
}

// queue queues a frame for the plugin.
func (s *session) queue(f *pluginv1.SessionRequest) {
	s.mu.Lock()
	s.frames = append(s.frames, f)
	n := len(s.frames)
	s.mu.Unlock()
	if n > maxFrames {
		s.end(errBacklog)
	}
	s.signal()
}

func (s *session) signal() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// grant grants credit. It goes with the next frame, or by itself once the plugin lacks a quarter of its window: a frame
// for each message would wake the plugin for nothing. What remains is always more than the largest message.
func (s *session) grant(messages, bytes uint64) {
	s.mu.Lock()
	s.messages += messages
	s.bytes += bytes
	due := s.messages >= wire.WindowMessages/4 || s.bytes >= wire.WindowBytes/4
	s.creditDue = s.creditDue || due
	s.mu.Unlock()
	if due {
		s.signal()
	}
}

// Settled implements core.Settler: neighbours that fared alike become one frame.
func (s *session) Settled(from, to uint64, err error) {
	s.mu.Lock()
	if n := len(s.settled); n > 0 && s.settled[n-1].to+1 == from && alike(s.settled[n-1].err, err) {
		s.settled[n-1].to = to
	} else {
		s.settled = append(s.settled, settled{from, to, err})
	}
	n := len(s.settled)
	s.mu.Unlock()
	if n > maxRuns {
		s.end(errBacklog)
	}
	s.signal()
}

func alike(a, b error) bool {
	if a == nil || b == nil {
		return a == nil && b == nil
	}
	return a.Error() == b.Error()
}

// watch is told the connection's state by the device.
func (s *session) watch(c core.Connection) {
	s.mu.Lock()
	s.connection = wire.FromConnection(c)
	s.mu.Unlock()
	s.signal()
}

// background is told the errors of the background by the device.
func (s *session) background(err error) {
	s.queue(&pluginv1.SessionRequest{Frame: &pluginv1.SessionRequest_BackgroundError{
		BackgroundError: &pluginv1.BackgroundError{Error: wire.FromError(err)},
	}})
}

// take returns what is to be sent now. Requests whose replies are among it are no longer open.
func (s *session) take() (frames []*pluginv1.SessionRequest, finish bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	frames, s.frames = s.frames, nil
	if len(s.progress) > 0 {
		// Before the replies, after which nobody listens.
		var first []*pluginv1.SessionRequest
		for _, p := range s.progress {
			first = append(first, &pluginv1.SessionRequest{Frame: &pluginv1.SessionRequest_UploadProgress{UploadProgress: p}})
		}
		frames = append(first, frames...)
		clear(s.progress)
	}
	for _, id := range s.replied {
		delete(s.requests, id)
	}
	s.replied = s.replied[:0]
	if s.connection != nil {
		frames = append(frames, &pluginv1.SessionRequest{Frame: &pluginv1.SessionRequest_Connection{Connection: s.connection}})
		s.connection = nil
	}
	for _, r := range s.settled {
		frames = append(frames, &pluginv1.SessionRequest{Frame: &pluginv1.SessionRequest_Settled{
			Settled: &pluginv1.Settled{From: r.from, To: r.to, Error: wire.FromError(r.err)},
		}})
	}
	s.settled = nil
	if s.messages > 0 && (s.creditDue || len(frames) > 0) {
		frames = append(frames, &pluginv1.SessionRequest{Frame: &pluginv1.SessionRequest_Credit{
			Credit: &pluginv1.Credit{Messages: s.messages, Bytes: s.bytes},
		}})
		s.messages, s.bytes, s.creditDue = 0, 0, false
	}
	return frames, s.finish
}

// write is the stream's only sender.
func (s *session) write() {
	for {
		frames, finish := s.take()
		if len(frames) > 0 {
			if err := s.stream.Send(frames...); err != nil {
				s.deaf(err)
				return
			}
			continue
		}
		if finish {
			s.hangUp()
			return
		}
		select {
		case <-s.wake:
		case <-s.ctx.Done():
			return
		}
	}
}

// deaf is told that nothing reaches the plugin any more. As a rule the reader is about to learn why; but a plugin may have
// closed the one pipe and go on writing into the other, and then nobody would ever answer its calls.
func (s *session) deaf(err error) {
	limit := time.NewTimer(endGrace)
	defer limit.Stop()
	select {
	case <-s.ctx.Done():
	case <-limit.C:
		s.end(fmt.Errorf("it does not take what the host sends: %w", err))
	}
}

// read is the stream's only receiver. It never waits for the device, so that a full outbox stops messages only.
func (s *session) read() {
	for {
		f, err := s.stream.Recv()
		if err != nil {
			if errors.Is(err, io.EOF) {
				err = errFinished
			}
			s.end(err)
			return
		}
		s.mu.Lock()
		s.heard = time.Now()
		s.mu.Unlock()
		if err := s.handle(f); err != nil {
			s.end(err)
			return
		}
	}
}

// handle carries out one frame; an error means that the plugin broke the protocol.
func (s *session) handle(f *pluginv1.SessionResponse) error {
	switch f := f.GetFrame().(type) {
	case *pluginv1.SessionResponse_Messages:
		return s.in.take(f.Messages)
	case *pluginv1.SessionResponse_Withdraw:
		s.in.withdraw(f.Withdraw.GetTag())
	case *pluginv1.SessionResponse_Return:
		s.mu.Lock()
		ch := s.calls[f.Return.GetId()]
		delete(s.calls, f.Return.GetId())
		s.mu.Unlock()
		if ch != nil {
			ch <- f.Return
		}
	case *pluginv1.SessionResponse_Request:
		s.request(f.Request)
	case *pluginv1.SessionResponse_UploadData:
		return s.uploadData(f.UploadData)
	case *pluginv1.SessionResponse_Cancel:
		s.mu.Lock()
		stop := s.requests[f.Cancel.GetId()]
		s.mu.Unlock()
		if stop != nil {
			stop()
		}
	case *pluginv1.SessionResponse_Log:
		s.writeLog(f.Log)
	case *pluginv1.SessionResponse_Metric:
		s.observe(f.Metric)
	case *pluginv1.SessionResponse_Drained:
		s.drainOne.Do(func() { close(s.drained) })
	case *pluginv1.SessionResponse_Pong: // heard says it
	case *pluginv1.SessionResponse_Register, *pluginv1.SessionResponse_Refuse:
		return errors.New("it registered twice")
	}
	return nil
}

// ping sends pings, and ends the session when too many in a row were followed by silence. Any frame counts as an answer:
// a plugin that floods the stream is alive. The clock runs per ping, so that a host that was itself stopped for a while
// does not take that for the plugin's silence.
func (s *session) ping() {
	t := time.NewTicker(s.cfg.Ping.Interval)
	defer t.Stop()
	limit := time.NewTimer(0)
	defer limit.Stop()
	<-limit.C
	misses := 0
	began := time.Now()
	for n := uint64(1); ; n++ {
		select {
		case <-t.C:
		case <-s.ctx.Done():
			return
		}
		sent := time.Now()
		s.queue(&pluginv1.SessionRequest{Frame: &pluginv1.SessionRequest_Ping{Ping: &pluginv1.Ping{Number: n}}})
		limit.Reset(s.cfg.Ping.Timeout)
		select {
		case <-limit.C:
		case <-s.ctx.Done():
			return
		}
		s.mu.Lock()
		heard := s.heard
		s.mu.Unlock()
		if heard.After(sent) {
			misses, began = 0, heard
			continue
		}
		if misses++; misses >= s.cfg.Ping.Misses {
			s.end(&hung{time.Since(began).Round(100 * time.Millisecond)})
			return
		}
	}
}

// hung is the end of a plugin that does not answer.
type hung struct{ silent time.Duration }

func (h *hung) Error() string { return fmt.Sprintf("no answer to heartbeats for %s", h.silent) }

// call carries out one call of the plugin.
func (s *session) call(ctx context.Context, d core.Delivery) (core.Answer, error) {
	c := &pluginv1.Call{TimeoutMs: wire.Timeout(ctx)}
	switch d.Kind {
	case core.InboundMethod:
		c.Call = &pluginv1.Call_Method{Method: &pluginv1.MethodCall{Name: d.Method, Payload: d.Payload}}
	case core.InboundMessage:
		c.Call = &pluginv1.Call_Message{Message: wire.Readable(wire.FromMessage(d.Message))}
	case core.InboundDesired:
		c.Call = &pluginv1.Call_Desired{Desired: wire.FromDesired(d.Desired)}
	}
	ch := make(chan *pluginv1.Return, 1)
	s.mu.Lock()
	s.nextID++
	c.Id = s.nextID
	s.calls[c.GetId()] = ch
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(s.calls, c.GetId())
		s.mu.Unlock()
	}()
	s.queue(&pluginv1.SessionRequest{Frame: &pluginv1.SessionRequest_Call{Call: c}})
	select {
	case r := <-ch:
		return answer(d, r), nil
	case <-ctx.Done():
		s.queue(&pluginv1.SessionRequest{Frame: &pluginv1.SessionRequest_Cancel{Cancel: &pluginv1.Cancel{Id: c.GetId()}}})
		return core.Answer{}, context.Cause(ctx)
	case <-s.ctx.Done():
		select {
		case r := <-ch: // it came before the end
			return answer(d, r), nil
		default:
			return core.Answer{}, context.Cause(s.ctx)
		}
	}
}

// answer reads a Return. A method's payload goes to the hub, which wants JSON of a bounded size and hangs up on more; so
// what is not that becomes a refusal here, where authors see it in their tests.
func answer(d core.Delivery, r *pluginv1.Return) core.Answer {
	a := core.Answer{Status: int(r.GetStatus()), Payload: r.GetPayload(), Verdict: wire.ToVerdict(r.GetVerdict())}
	switch {
	case d.Kind != core.InboundMethod:
	case len(a.Payload) > core.MaxMethodPayload:
		a.Status = http.StatusInternalServerError
		a.Payload = fmt.Appendf(nil, `{"error":"the plugin's answer has %d bytes; the hub takes at most %d"}`, len(a.Payload), core.MaxMethodPayload)
	case len(a.Payload) > 0 && !json.Valid(a.Payload):
		a.Status, a.Payload = http.StatusInternalServerError, []byte(`{"error":"the plugin's answer is not JSON"}`)
	}
	return a
}
