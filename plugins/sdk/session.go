package sdk

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/fairlead-iot/fairlead/plugins/internal/wire"
	"github.com/fairlead-iot/fairlead/plugins/pluginv1"
)

// stateWait is how long the loop waits to hear how the connection stands. Only a host that never says so needs it.
const stateWait = time.Second

// service serves the one session of a plugin.
type service struct {
	pluginv1.UnimplementedPluginServiceServer
	p     *Plugin
	ended func(error) // told once, when the session is over
	stop  <-chan struct{}
	once  sync.Once
}

// Register lets a gRPC server of the caller's serve the plugin's session, once. It is for tests and for hosts of another
// kind; a plugin's main calls Serve. ended, if not nil, is told when the session is over.
func (p *Plugin) Register(s grpc.ServiceRegistrar, ended func(error)) {
	pluginv1.RegisterPluginServiceServer(s, p.service(ended, nil))
}

func (p *Plugin) service(ended func(error), stop <-chan struct{}) *service {
	if ended == nil {
		ended = func(error) {}
	}
	return &service{p: p, ended: ended, stop: stop}
}

// Session implements pluginv1.PluginServiceServer.
func (sv *service) Session(s grpc.BidiStreamingServer[pluginv1.SessionRequest, pluginv1.SessionResponse]) error {
	err := status.Error(codes.FailedPrecondition, "the plugin has had its session")
	sv.once.Do(func() {
		err = sv.p.session(s.Context(), wire.OverRPC(s), sv.stop)
		sv.ended(err)
	})
	return err
}

// stream is what carries the session's frames.
type stream = wire.Stream[*pluginv1.SessionResponse, *pluginv1.SessionRequest]

// ServeConn carries the plugin's session over a connection of bytes (version 2 of the protocol), and returns when the
// session is over and conn is closed: nil if it ended in order. It is for tests and for hosts of another kind; a plugin's
// main calls Serve.
func (p *Plugin) ServeConn(conn io.ReadWriteCloser) error { return p.serveConn(conn, nil) }

func (p *Plugin) serveConn(conn io.ReadWriteCloser, stop <-chan struct{}) error {
	s := wire.NewPluginPipe(conn)
	err := p.session(context.Background(), s, stop)
	// Whoever waits for the last words waits this long; a host that does not read gets none.
	if c, ok := conn.(interface{ SetWriteDeadline(t time.Time) error }); ok {
		_ = c.SetWriteDeadline(time.Now().Add(exitLimit))
	}
	last := new(pluginv1.Ended)
	if err != nil {
		last.Reason = valid(status.Convert(err).Message())
	}
	_ = s.Send(&pluginv1.SessionResponse{Frame: &pluginv1.SessionResponse_Ended{Ended: last}})
	_ = s.Close()
	return err
}

// session is one start of the plugin, as long as the stream lives.
type session struct {
	p    *Plugin
	dev  *Device
	out  *writer
	ctx  context.Context //nolint:containedctx // the session's life: calls that come in on the stream run under it
	loop context.CancelFunc

	loopDone chan struct{}
	// knowsUploads: the host takes streams and tells progress.
	knowsUploads bool

	mu       sync.Mutex
	open     int           // calls that are not answered, deferred ones included
	idle     chan struct{} // closed when open becomes 0; nil if nobody waits
	calls    map[uint64]context.CancelFunc
	requests map[uint64]chan *pluginv1.Reply
	uploads  map[uint64]*uploadWatch // by request
	nextID   uint64
	over     error
}

var errSessionEnded = fmt.Errorf("the session with the host ended: %w", ErrClosed)

// session carries out one session and returns when all of it has ended.
func (p *Plugin) session(ctx context.Context, stream stream, stop <-chan struct{}) error {
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	init := first.GetInit()
	if init == nil {
		return status.Error(codes.InvalidArgument, "the first frame is not Init")
	}
	if err := p.configure(init.GetSettingsJson()); err != nil {
		return stream.Send(&pluginv1.SessionResponse{Frame: &pluginv1.SessionResponse_Refuse{
			Refuse: &pluginv1.Refuse{Reason: valid(err.Error())},
		}})
	}
	if err := stream.Send(&pluginv1.SessionResponse{Frame: &pluginv1.SessionResponse_Register{Register: &pluginv1.Register{
		Name: p.name, Sdk: wire.SDK, Methods: p.methodNames(), HandlesMessages: p.messages != nil, HandlesDesired: p.desired != nil,
		Features: []string{wire.FeatureUploads},
	}}}); err != nil {
		return err
	}

	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(errSessionEnded)
	loopCtx, stopLoop := context.WithCancel(ctx)
	defer stopLoop()
	s := &session{
		p: p, out: newWriter(stream), ctx: ctx, loop: stopLoop, loopDone: make(chan struct{}),
		calls: make(map[uint64]context.CancelFunc), requests: make(map[uint64]chan *pluginv1.Reply),
		uploads: make(map[uint64]*uploadWatch), knowsUploads: slices.Contains(init.GetFeatures(), wire.FeatureUploads),
	}
	s.dev = &Device{
		s: s, name: init.GetPluginName(), identity: wire.ToIdentity(init.GetIdentity()), settings: json.RawMessage(init.GetSettingsJson()),
		log:    slog.New(&logHandler{out: s.out, level: wire.ToLevel(init.GetLogLevel())}),
		events: newWorker(), known: make(chan struct{}), watchers: make(map[int]func(Connection)), errs: make(map[int]func(error)), tokens: make(map[int]func()),
	}

	messages, desired := newWorker(), newWorker()
	var all sync.WaitGroup
	for _, w := range []*worker{messages, desired, s.dev.events} {
		all.Go(func() { w.run(ctx) })
	}
	writerCtx, stopWriter := context.WithCancel(context.WithoutCancel(ctx))
	defer stopWriter()
	writer := make(chan struct{})
	go func() {
		defer close(writer)
		if err := s.out.run(writerCtx); err != nil {
			cancel(fmt.Errorf("%w: %w", errSessionEnded, err))
		}
	}()
	all.Go(func() {
		defer close(s.loopDone)
		// The host tells the connection's state right after Register; the loop is to find it true.
		limit := time.NewTimer(stateWait)
		defer limit.Stop()
		select {
		case <-s.dev.known:
		case <-limit.C:
		case <-loopCtx.Done():
			return
		}
		if err := s.runLoop(loopCtx); err != nil {
			s.dev.log.Error("the plugin's loop ended", "error", err)
			cancel(&loopError{err})
		}
	})
	go s.read(stream, messages, desired, cancel)
	if stop != nil {
		all.Go(func() {
			select {
			case <-stop:
				s.drain(time.Now().Add(wire.StartTimeout))
				cancel(nil)
			case <-ctx.Done():
			}
		})
	}

	<-ctx.Done()
	s.fail()
	// The writer flushes the last words, unless the other side is gone and has unblocked it already.
	stopWriter()
	<-writer
	s.out.fail(errSessionEnded)
	all.Wait()
	if le, ok := errors.AsType[*loopError](context.Cause(ctx)); ok {
		return status.Error(codes.Aborted, valid(le.Error()))
	}
	return nil
}

// loopError is the error with which the author's loop gave up.
type loopError struct{ err error }

func (e *loopError) Error() string { return e.err.Error() }
func (e *loopError) Unwrap() error { return e.err }

// runLoop runs the author's loop; its end because of ctx is no error.
func (s *session) runLoop(ctx context.Context) (err error) {
	if s.p.loop == nil {
		return nil
	}
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("panic: %v\n%s", r, debug.Stack())
		}
	}()
	err = s.p.loop(ctx, s.dev)
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// read handles the host's frames until the stream ends. It never waits for an author's code, except for the callbacks of
// SendAsync.
func (s *session) read(stream stream, messages, desired *worker, cancel context.CancelCauseFunc) {
	for {
		f, err := stream.Recv()
		if err != nil {
			if errors.Is(err, io.EOF) {
				err = nil
			}
			cancel(errors.Join(errSessionEnded, err))
			return
		}
		switch f := f.GetFrame().(type) {
		case *pluginv1.SessionRequest_Credit:
			s.out.credit(f.Credit.GetMessages(), f.Credit.GetBytes())
		case *pluginv1.SessionRequest_Settled:
			s.out.settle(f.Settled.GetFrom(), f.Settled.GetTo(), wire.ToError(f.Settled.GetError()))
		case *pluginv1.SessionRequest_Call:
			s.call(f.Call, messages, desired)
		case *pluginv1.SessionRequest_Cancel:
			s.mu.Lock()
			stop := s.calls[f.Cancel.GetId()]
			s.mu.Unlock()
			if stop != nil {
				stop()
			}
		case *pluginv1.SessionRequest_Reply:
			s.mu.Lock()
			ch := s.requests[f.Reply.GetId()]
			delete(s.requests, f.Reply.GetId())
			s.mu.Unlock()
			if ch != nil {
				ch <- f.Reply
			}
		case *pluginv1.SessionRequest_UploadProgress:
			if w := s.upload(f.UploadProgress.GetId()); w != nil {
				s.dev.events.add(func() { w.tell(f.UploadProgress) })
			}
		case *pluginv1.SessionRequest_UploadCredit:
			if w := s.upload(f.UploadCredit.GetId()); w != nil && w.out != nil {
				w.out.grant(f.UploadCredit.GetBytes())
			}
		case *pluginv1.SessionRequest_Connection:
			s.dev.setState(wire.ToConnection(f.Connection))
		case *pluginv1.SessionRequest_BackgroundError:
			s.dev.background(wire.ToError(f.BackgroundError.GetError()))
		case *pluginv1.SessionRequest_TokenWanted:
			s.dev.tokenWanted()
		case *pluginv1.SessionRequest_Ping:
			s.out.control(&pluginv1.SessionResponse{Frame: &pluginv1.SessionResponse_Pong{Pong: &pluginv1.Pong{Number: f.Ping.GetNumber()}}})
		case *pluginv1.SessionRequest_Drain:
			limit := time.Now().Add(wire.ToDuration(f.Drain.GetTimeoutMs()))
			go func() {
				s.drain(limit)
				s.out.control(&pluginv1.SessionResponse{Frame: &pluginv1.SessionResponse_Drained{Drained: &pluginv1.Drained{}}})
			}()
		}
	}
}

// call starts one call of the plugin.
func (s *session) call(c *pluginv1.Call, messages, desired *worker) {
	ctx, cancel := s.ctx, context.CancelFunc(nil)
	if ms := c.GetTimeoutMs(); ms > 0 {
		ctx, cancel = context.WithTimeoutCause(ctx, wire.ToDuration(ms), ErrTimeout)
	} else {
		ctx, cancel = context.WithCancel(ctx)
	}
	id := c.GetId()
	s.mu.Lock()
	s.calls[id] = cancel
	s.open++
	s.mu.Unlock()
	finished := func() {
		cancel()
		s.mu.Lock()
		delete(s.calls, id)
		if s.open--; s.open == 0 && s.idle != nil {
			close(s.idle)
			s.idle = nil
		}
		s.mu.Unlock()
	}
	answer := func(r *pluginv1.Return) {
		r.Id = id
		s.out.control(&pluginv1.SessionResponse{Frame: &pluginv1.SessionResponse_Return{Return: r}})
		finished()
	}
	switch c := c.GetCall().(type) {
	case *pluginv1.Call_Method:
		h := s.p.methods[c.Method.GetName()]
		if h == nil {
			answer(&pluginv1.Return{Status: http.StatusNotFound, Payload: reason(fmt.Sprintf("this plugin has no method %q", c.Method.GetName()))})
			return
		}
		mc := &methodCall{id: id, ctx: ctx, s: s, finished: finished}
		// A deferred answer that never comes must not keep the call open for ever.
		context.AfterFunc(ctx, func() { mc.answer(nil, Errorf(http.StatusGatewayTimeout, "no answer in time")) })
		go mc.run(h, c.Method.GetName(), c.Method.GetPayload())
	case *pluginv1.Call_Message:
		m := wire.ToMessage(c.Message)
		messages.add(func() { answer(&pluginv1.Return{Verdict: s.message(ctx, m)}) })
	case *pluginv1.Call_Desired:
		d := wire.ToDesired(c.Desired)
		desired.add(func() { answer(s.applyDesired(ctx, d)) })
	default:
		answer(&pluginv1.Return{Status: http.StatusNotImplemented, Payload: reason("this SDK does not know that call")})
	}
}

// message has a cloud-to-device message handled.
func (s *session) message(ctx context.Context, m *Message) (v pluginv1.Verdict) {
	if s.p.messages == nil {
		return pluginv1.Verdict_VERDICT_REJECT
	}
	err := s.guard("message handler", func() error { return s.p.messages(ctx, m) })
	if err == nil {
		return pluginv1.Verdict_VERDICT_COMPLETE
	}
	s.dev.log.Warn("message was not handled", "message_id", m.ID, "error", err)
	if _, ok := errors.AsType[*rejection](err); ok {
		return pluginv1.Verdict_VERDICT_REJECT
	}
	return pluginv1.Verdict_VERDICT_ABANDON
}

// applyDesired has a state of the desired properties applied.
func (s *session) applyDesired(ctx context.Context, d *Desired) *pluginv1.Return {
	if s.p.desired == nil {
		return &pluginv1.Return{Status: http.StatusNotFound, Payload: reason("this plugin handles no desired properties")}
	}
	if err := s.guard("desired handler", func() error { return s.p.desired(ctx, d) }); err != nil {
		s.dev.log.Warn("desired properties were not applied", "version", d.Version, "error", err)
		return &pluginv1.Return{Status: http.StatusInternalServerError, Payload: reason(err.Error())}
	}
	return &pluginv1.Return{Status: http.StatusOK}
}

// guard turns a panic of f into an error.
func (s *session) guard(what string, f func() error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			s.dev.log.Error(what+" panicked", "panic", fmt.Sprint(r), "stack", string(debug.Stack()))
			err = fmt.Errorf("the %s panicked: %v", what, r)
		}
	}()
	return f()
}

// drain ends the loop, waits for the open calls and for what they sent to be settled, until limit; then it cuts the
// calls short.
func (s *session) drain(limit time.Time) {
	ctx, cancel := context.WithDeadline(s.ctx, limit)
	defer cancel()
	s.loop()
	select {
	case <-s.loopDone:
	case <-ctx.Done():
	}
	select {
	case <-s.answered():
	case <-ctx.Done():
	}
	s.mu.Lock()
	for _, stop := range s.calls {
		stop()
	}
	s.mu.Unlock()
	s.out.setLinger(0)
	// What is not settled in time stays unsettled: the author's Send says so.
	_ = s.out.settledAll(ctx)
}

// answered returns a channel that is closed when no call is open.
func (s *session) answered() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.open == 0 {
		done := make(chan struct{})
		close(done)
		return done
	}
	if s.idle == nil {
		s.idle = make(chan struct{})
	}
	return s.idle
}

// upload returns what concerns the upload of a request; nil if it has ended.
func (s *session) upload(id uint64) *uploadWatch {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.uploads[id]
}

// request asks the host, and gives up when ctx ends.
func (s *session) request(ctx context.Context, what string, r *pluginv1.Request) (*pluginv1.Reply, error) {
	return s.requestWith(ctx, what, r, nil)
}

// requestWith is request, for an upload with watch.
func (s *session) requestWith(ctx context.Context, what string, r *pluginv1.Request, watch *uploadWatch) (*pluginv1.Reply, error) {
	if ctx.Err() != nil {
		return nil, fmt.Errorf("%s: %w", what, context.Cause(ctx))
	}
	ch := make(chan *pluginv1.Reply, 1)
	s.mu.Lock()
	if s.over != nil {
		s.mu.Unlock()
		return nil, fmt.Errorf("%s: %w", what, s.over)
	}
	s.nextID++
	r.Id, r.TimeoutMs = s.nextID, wire.Timeout(ctx)
	s.requests[r.GetId()] = ch
	if watch != nil {
		if watch.out != nil {
			watch.out.id = r.GetId()
		}
		s.uploads[r.GetId()] = watch
		defer func() { s.mu.Lock(); delete(s.uploads, r.GetId()); s.mu.Unlock(); watch.close() }()
	}
	s.mu.Unlock()
	s.out.control(&pluginv1.SessionResponse{Frame: &pluginv1.SessionResponse_Request{Request: r}})
	select {
	case reply := <-ch:
		if reply == nil {
			return nil, fmt.Errorf("%s: %w", what, errSessionEnded)
		}
		if err := wire.ToError(reply.GetError()); err != nil {
			return nil, fmt.Errorf("%s: %w", what, err)
		}
		return reply, nil
	case <-ctx.Done():
		s.mu.Lock()
		delete(s.requests, r.GetId())
		s.mu.Unlock()
		s.out.control(&pluginv1.SessionResponse{Frame: &pluginv1.SessionResponse_Cancel{Cancel: &pluginv1.Cancel{Id: r.GetId()}}})
		return nil, fmt.Errorf("%s: %w", what, context.Cause(ctx))
	}
}

// fail ends the open requests and refuses further ones.
func (s *session) fail() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.over = errSessionEnded
	for id, ch := range s.requests {
		delete(s.requests, id)
		ch <- nil
	}
}
