package engine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fairlead-iot/fairlead/core"
	"github.com/fairlead-iot/fairlead/core/coretest"
)

func machineConfig() core.Config {
	return core.Config{
		AutoConnect: true, ConnectionRetry: true, RetryInterval: 10 * time.Second, RetryMax: 10 * time.Minute, EnsureDesired: true,
	}
}

// newEngine makes an engine on a fake hub.
func newEngine(t *testing.T, hub *coretest.Hub, change ...func(*Config)) *Engine {
	t.Helper()
	cfg := Config{Identity: core.Identity{Hostname: "hub", DeviceID: "d"}, Machine: machineConfig(), Transports: []core.Transport{hub}, Credentials: hub}
	for _, f := range change {
		f(&cfg)
	}
	e, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// run runs the engine until the returned function is called, which returns what Run did.
func run(t *testing.T, e *Engine) (stop func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	result := make(chan error, 1)
	go func() { result <- e.Run(ctx) }()
	stop = sync.OnceValue(func() error {
		cancel()
		return <-result
	})
	t.Cleanup(func() { _ = stop() })
	return stop
}

func refused() error {
	return &core.Error{Op: "dial", Kind: core.Transient, Err: errors.New("refused")}
}

// send submits one message and returns its outcome; it gives up when ctx ends.
func send(ctx context.Context, e *Engine, text string) error {
	s := outcome(make(chan error, 1))
	if err := e.Device(0).Submit(ctx, s, 1, []*core.Message{{Payload: []byte(text)}}); err != nil {
		return err
	}
	select {
	case err := <-s:
		return err
	case <-ctx.Done():
		e.Device(0).Withdraw(s, 1)
		return <-s
	}
}

type outcome chan error

func (o outcome) Settled(_, _ uint64, err error) { o <- err }

func TestNothingIsKeptOfAttemptsThatFailed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hub := coretest.NewHub()
		for range 50 {
			hub.Refuse(refused())
		}
		e := newEngine(t, hub)
		run(t, e)
		if err := e.Device(0).Connect(t.Context()); err != nil {
			t.Fatal(err)
		}
		kept := make(chan int, 1)
		e.inbox.run(func() core.Event { kept <- len(e.attempts); return nil })
		if n := <-kept; n != 1 {
			t.Errorf("%d attempts are kept after 50 failures, want that of the session", n)
		}
	})
}

// The hub receives and is silent, as one over its quota is. Callers give up after 10 s each; the session is recycled all
// the same, and nothing of the messages is kept.
func TestAHubThatAcknowledgesNothingIsFoundOutThoughCallersGiveUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hub := coretest.NewHub()
		hub.Withhold(true)
		e := newEngine(t, hub)
		run(t, e)
		for i := range 10 {
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			if err := send(ctx, e, fmt.Sprint(i)); !errors.Is(err, core.ErrCancelled) {
				t.Fatalf("send: %v", err)
			}
			cancel()
		}
		if s, _ := hub.State(); s.Sessions < 3 {
			t.Errorf("%d sessions in 100 s without an acknowledgement", s.Sessions)
		}
		hub.Withhold(false)
		if err := send(t.Context(), e, "last"); err != nil {
			t.Fatal(err)
		}
		synctest.Wait() // the caller is told before the numbers are forgotten
		e.outbox.mu.Lock()
		defer e.outbox.mu.Unlock()
		if o := e.outbox; o.count != 0 || o.bytes != 0 || o.slots != 0 {
			t.Errorf("the outbox keeps %d messages, %d bytes, %d numbers of nothing", o.count, o.bytes, o.slots)
		}
	})
}

func TestWithdrawnMessagesTakeNoRoomWhileTheHubIsAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hub := coretest.NewHub()
		for range 10_000 {
			hub.Refuse(refused())
		}
		e := newEngine(t, hub, func(c *Config) { c.OutboxMessages = 10 })
		stop := run(t, e)
		for i := range 1000 {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			if err := send(ctx, e, "x"); !errors.Is(err, core.ErrCancelled) {
				t.Fatalf("send %d: %v", i, err)
			}
			cancel()
		}
		synctest.Wait()
		if n := len(e.outbox.lanes[0].entries); n > 10 {
			t.Errorf("%d entries are kept of 1000 withdrawn messages", n)
		}
		began := time.Now()
		if err := stop(); err != nil || time.Since(began) > time.Second {
			t.Errorf("a shutdown with nothing left took %v: %v", time.Since(began), err)
		}
	})
}

// Sends, withdrawals, operations, losses and a shutdown all at once: everybody is told something, and what was told
// "acknowledged" is at the hub.
func TestEverybodyIsToldSomethingWhateverHappensAtOnce(t *testing.T) {
	for round := range 20 {
		hub := coretest.NewHub()
		e := newEngine(t, hub, func(c *Config) { c.OutboxMessages = 50 })
		stop := run(t, e)
		var callers sync.WaitGroup
		for n := range 8 {
			callers.Go(func() {
				for i := range 60 {
					ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), time.Duration(1+(n*i)%7)*time.Millisecond)
					text := fmt.Sprintf("%d-%d-%d", round, n, i)
					if err := send(ctx, e, text); err == nil {
						s, _ := hub.State()
						isThere := false
						for _, m := range s.Received {
							isThere = isThere || string(m.Payload) == text
						}
						if !isThere {
							t.Errorf("%s was acknowledged by nobody", text)
						}
					}
					switch i % 20 {
					case 3:
						_, _ = e.Device(0).Twin(ctx)
					case 9:
						_ = e.Disconnect(ctx, false)
					case 15:
						_ = e.Device(0).Connect(ctx)
					}
					cancel()
				}
			})
		}
		callers.Go(func() {
			for range 30 {
				hub.Lose(refused())
				time.Sleep(200 * time.Microsecond) // only spreads the losses; nothing depends on it
			}
		})
		if round%2 == 0 {
			if err := stop(); err != nil && !errors.Is(err, ErrUnsent) {
				t.Errorf("run: %v", err)
			}
		}
		callers.Wait()
	}
}

func TestAWatcherMayCallBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine(t, coretest.NewHub())
		stop := run(t, e)
		ended := make(chan struct{})
		e.Device(0).Watch(func(c core.Connection) {
			if c.State == core.StateConnected {
				_, _ = e.Device(0).Twin(t.Context())
				_, _ = e.Status(t.Context())
				_ = stop() // waits for Run's end
				close(ended)
			}
		})
		if err := e.Device(0).Connect(t.Context()); err != nil {
			t.Fatal(err)
		}
		<-ended
	})
}

func TestOperationsBeforeRunAndAfterItsEndDoNotHang(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine(t, coretest.NewHub())
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := e.Device(0).Twin(ctx); !errors.Is(err, core.ErrTimeout) {
			t.Errorf("twin before Run: %v", err)
		}
		if _, err := e.Status(ctx); !errors.Is(err, core.ErrTimeout) {
			t.Errorf("status before Run: %v", err)
		}
		stop := run(t, e)
		if _, err := e.Device(0).Twin(t.Context()); err != nil {
			t.Errorf("twin: %v", err)
		}
		if err := stop(); err != nil {
			t.Errorf("run: %v", err)
		}
		if _, err := e.Device(0).Twin(t.Context()); !errors.Is(err, core.ErrClosed) {
			t.Errorf("twin after the end: %v", err)
		}
		if err := send(t.Context(), e, "late"); !errors.Is(err, core.ErrClosed) {
			t.Errorf("send after the end: %v", err)
		}
		if s, err := e.Status(t.Context()); err != nil || s.Connection.State != core.StateStopped {
			t.Errorf("status after the end: %v, %v", s.Connection.State, err)
		}
		e.Device(0).Withdraw(outcome(nil), 1)
		e.CredentialChanged()
		e.Device(0).Watch(func(core.Connection) {})()
	})
}

func TestAConnectThatIsGivenUpSaysWhatItWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hub := coretest.NewHub()
		for range 100 {
			hub.Refuse(refused())
		}
		e := newEngine(t, hub)
		run(t, e)
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		if err := e.Device(0).Connect(ctx); !errors.Is(err, core.ErrTimeout) || !strings.Contains(err.Error(), "refused") {
			t.Errorf("connect: %v", err)
		}
	})
}

func TestAReportTooLargeIsRefusedBeforeItIsSent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hub := coretest.NewHub()
		e := newEngine(t, hub)
		run(t, e)
		patch := `{"k":"` + strings.Repeat("x", core.MaxMessageSize) + `"}`
		if _, err := e.Device(0).Report(t.Context(), []byte(patch)); !errors.Is(err, core.ErrTooLarge) {
			t.Errorf("report: %v", err)
		}
		if s, _ := hub.State(); s.Sessions != 0 {
			t.Errorf("%d sessions", s.Sessions)
		}
	})
}

// slowTransport opens and connects only when it is let, or its context ends.
type slowTransport struct {
	*coretest.Hub
	at     string // "open" or "connect"
	opened chan struct{}
}

func (s slowTransport) Open(ctx context.Context, c core.Credential) (core.Link, error) {
	if s.at == "open" {
		close(s.opened)
		<-ctx.Done()
		return nil, ctx.Err()
	}
	l, err := s.Hub.Open(ctx, c)
	return slowLink{l, s}, err
}

type slowLink struct {
	core.Link
	s slowTransport
}

func (l slowLink) Connect(ctx context.Context, _ core.Credential, _ core.Handler) (core.Session, error) {
	close(l.s.opened)
	<-ctx.Done()
	return nil, ctx.Err()
}

func TestAShutdownDuringOpenOrConnectIsQuick(t *testing.T) {
	for _, at := range []string{"open", "connect"} {
		t.Run(at, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := slowTransport{coretest.NewHub(), at, make(chan struct{})}
				e := newEngine(t, s.Hub, func(c *Config) { c.Transports, c.Machine.ConnectAtStart = []core.Transport{s}, true })
				stop := run(t, e)
				<-s.opened
				began := time.Now()
				if err := stop(); err != nil || time.Since(began) > time.Second {
					t.Errorf("shutdown took %v: %v", time.Since(began), err)
				}
			})
		})
	}
}

// late is a launcher whose plugin is ready just when it is told to stop.
type late struct {
	done chan struct{}
	once sync.Once
}

func (l *late) Launch(ctx context.Context, _ core.Device) (core.Plugin, error) {
	<-ctx.Done()
	return l, nil
}
func (l *late) Info() core.PluginInfo { return core.PluginInfo{Name: "late", Messages: true} }
func (l *late) Handle(context.Context, core.Delivery) (core.Answer, error) {
	return core.Answer{}, errors.New("ended")
}
func (l *late) Close(context.Context) error { l.once.Do(func() { close(l.done) }); return nil }
func (l *late) Done() <-chan struct{}       { return l.done }
func (l *late) Err() error                  { return nil }

func TestAPluginThatIsReadyDuringTheShutdownIsClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &late{done: make(chan struct{})}
		e := newEngine(t, coretest.NewHub(), func(c *Config) {
			c.Plugins = []Plugin{{PluginConfig: core.PluginConfig{Name: "late"}, Launcher: l}}
		})
		stop := run(t, e)
		synctest.Wait()
		if err := stop(); err != nil {
			t.Errorf("run: %v", err)
		}
		select {
		case <-l.done:
		default:
			t.Error("the plugin still runs")
		}
	})
}

// giant answers a method with more than the hub takes.
type giant struct{ done chan struct{} }

func (g *giant) Launch(context.Context, core.Device) (core.Plugin, error) { return g, nil }
func (g *giant) Info() core.PluginInfo                                    { return core.PluginInfo{Methods: []string{"large", "bad"}} }

func (g *giant) Handle(_ context.Context, d core.Delivery) (core.Answer, error) {
	if d.Method == "bad" {
		return core.Answer{Status: 200, Payload: []byte("{")}, nil
	}
	return core.Answer{Status: 200, Payload: []byte(`"` + strings.Repeat("x", core.MaxMethodPayload) + `"`)}, nil
}
func (g *giant) Close(context.Context) error { close(g.done); return nil }
func (g *giant) Done() <-chan struct{}       { return g.done }
func (g *giant) Err() error                  { return nil }

func TestAnAnswerThatTheHubWouldNotTakeBecomesA500(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hub := coretest.NewHub()
		e := newEngine(t, hub, func(c *Config) {
			c.Machine.ConnectAtStart = true
			c.Plugins = []Plugin{{PluginConfig: core.PluginConfig{Name: "g"}, Launcher: &giant{make(chan struct{})}}}
		})
		run(t, e)
		synctest.Wait()
		for _, name := range []string{"large", "bad"} {
			hub.Push(core.Inbound{Kind: core.InboundMethod, Method: name, RequestID: name})
			synctest.Wait()
		}
		s, _ := hub.State()
		if len(s.Answers) != 2 || s.Answers[0].Status != 500 || s.Answers[1].Status != 500 || !strings.Contains(string(s.Answers[0].Payload), "131074 bytes") {
			t.Errorf("answers: %d %.200v", len(s.Answers), s.Answers)
		}
	})
}

// secondThoughts is a plugin within this process to which a method is added just as it is asked for the first time.
type secondThoughts struct {
	late
	isAsked atomic.Bool
	added   func()
}

func (s *secondThoughts) Launch(context.Context, core.Device) (core.Plugin, error) { return s, nil }
func (s *secondThoughts) Info() core.PluginInfo {
	if s.isAsked.CompareAndSwap(false, true) {
		s.added()
		return core.PluginInfo{Name: "second thoughts", Methods: []string{"first"}}
	}
	return core.PluginInfo{Name: "second thoughts", Methods: []string{"first", "second"}}
}

// A handler that is set while the plugin starts is heard of: it waited for ever otherwise.
func TestWhatIsRegisteredDuringAStartCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &secondThoughts{late: late{done: make(chan struct{})}}
		e := newEngine(t, coretest.NewHub(), func(c *Config) {
			c.Plugins = []Plugin{{PluginConfig: core.PluginConfig{Name: "second thoughts"}, Launcher: s}}
		})
		s.added = func() { e.Reregister(0) }
		run(t, e)
		synctest.Wait()
		status, err := e.Status(t.Context())
		if err != nil || !slices.Equal(status.Plugins[0].Methods, []string{"first", "second"}) {
			t.Errorf("methods %q, %v", status.Plugins[0].Methods, err)
		}
	})
}

// slowEnd is a hub whose sessions take a second to say why they ended. If isDeaf, the first answers no subscription.
type slowEnd struct {
	*coretest.Hub
	isDeaf bool
}

func (s slowEnd) Open(ctx context.Context, c core.Credential) (core.Link, error) {
	l, err := s.Hub.Open(ctx, c)
	return slowEndLink{l, s}, err
}

type slowEndLink struct {
	core.Link
	slowEnd
}

func (l slowEndLink) Close() error { return l.Link.Close() }

func (l slowEndLink) Connect(ctx context.Context, c core.Credential, h core.Handler) (core.Session, error) {
	s, err := l.Link.Connect(ctx, c, h)
	state, _ := l.State()
	return slowEndSession{s, l.isDeaf && state.Sessions == 1}, err
}

type slowEndSession struct {
	core.Session
	isDeaf bool
}

func (s slowEndSession) Subscribe(ctx context.Context, f core.Feature) error {
	if s.isDeaf {
		<-s.Done()
		return refused()
	}
	return s.Session.Subscribe(ctx, f)
}

func (s slowEndSession) Err() error {
	time.Sleep(time.Second)
	return s.Session.Err()
}

// TestAnAnswerThatTheEndOfASessionStopsLeavesInTheNext: its error comes before the news of the end.
func TestAnAnswerThatTheEndOfASessionStopsLeavesInTheNext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hub := coretest.NewHub()
		answer := make(chan struct{})
		e := newEngine(t, hub, func(c *Config) {
			c.Transports = []core.Transport{slowEnd{hub, false}}
			c.Machine.ConnectAtStart = true
			c.Plugins = []Plugin{{PluginConfig: core.PluginConfig{Name: "p"}, Launcher: &patient{late{done: make(chan struct{})}, answer}}}
		})
		run(t, e)
		synctest.Wait()
		hub.Push(core.Inbound{Kind: core.InboundMethod, Method: "m", RequestID: "1"})
		synctest.Wait()
		hub.Lose(refused())
		close(answer)
		time.Sleep(time.Minute)
		if s, _ := hub.State(); len(s.Answers) != 1 || s.Answers[0].Status != 200 || s.Sessions != 2 {
			t.Errorf("%d sessions, answers %+v, want one in the second", s.Sessions, s.Answers)
		}
	})
}

// patient is a plugin that answers a method when it may.
type patient struct {
	late
	answer chan struct{}
}

func (p *patient) Launch(context.Context, core.Device) (core.Plugin, error) { return p, nil }
func (p *patient) Info() core.PluginInfo                                    { return core.PluginInfo{Name: "p", Methods: []string{"m"}} }

func (p *patient) Handle(context.Context, core.Delivery) (core.Answer, error) {
	<-p.answer
	return core.Answer{Status: 200}, nil
}

// TestASubscriptionThatTheEndOfASessionStopsIsNotRefused: the next session asks for it at once, and nobody is warned.
func TestASubscriptionThatTheEndOfASessionStopsIsNotRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hub := coretest.NewHub()
		var log bytes.Buffer
		answer := make(chan struct{})
		close(answer)
		e := newEngine(t, hub, func(c *Config) {
			c.Transports = []core.Transport{slowEnd{hub, true}}
			c.Machine.ConnectAtStart = true
			c.Plugins = []Plugin{{PluginConfig: core.PluginConfig{Name: "p"}, Launcher: &patient{late{done: make(chan struct{})}, answer}}}
			c.Logger = slog.New(slog.NewTextHandler(&log, nil))
		})
		stop := run(t, e)
		synctest.Wait()
		hub.Lose(refused())
		time.Sleep(time.Minute)
		if s, _ := hub.State(); s.Sessions != 2 {
			t.Errorf("%d sessions, want 2", s.Sessions)
		}
		if err := stop(); err != nil {
			t.Error(err)
		}
		if strings.Contains(log.String(), "subscribe to") {
			t.Errorf("the log tells of a refusal:\n%s", &log)
		}
	})
}
