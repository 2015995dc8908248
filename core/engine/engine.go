package engine

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"math"
	mathrand "math/rand/v2"
	"sync"
	"time"

	"github.com/fairlead-iot/fairlead/core"
)

// Config wires an engine. Nothing of it may be changed afterwards.
type Config struct {
	// Identity names the device. Without a DeviceID it is not known yet: the first credential says it, and plugins, which
	// are told it at their start, are started then.
	Identity core.Identity
	// Machine configures the decisions. Routes and Plugins are filled in from Transports and Plugins.
	Machine core.Config
	// Transports are the routes to the hub, in order of preference; at least one.
	Transports []core.Transport
	// Route is the name of the route to begin with: the one that worked last. "" or an unknown one is the first.
	Route string
	// OnRoute, if set, is told by which route a session came about, where that is another than before: it should be the
	// Route of the next start. It must not block.
	OnRoute func(name string)
	// OnHappening, if set, is told what becomes of each session and attempt, in order. It must not block.
	OnHappening func(Happening)
	Credentials core.CredentialSource
	Plugins     []Plugin
	// OutboxMessages and OutboxBytes bound what waits for the hub's acknowledgement. 0 means DefaultOutboxMessages and
	// DefaultOutboxBytes.
	OutboxMessages, OutboxBytes int
	Logger                      *slog.Logger
	// OnPluginFailed, if set, is told of a plugin that will not be started again until somebody mends it. It must not
	// block.
	OnPluginFailed func(name string, start core.Start, reason string)
	// Rand gives the jitter; nil means one seeded from the system.
	Rand *mathrand.Rand
}

// Plugin is one configured plugin.
type Plugin struct {
	core.PluginConfig
	Launcher core.Launcher
	// TwinKeys are the top-level desired keys that it is given; nil means all.
	TwinKeys []string
}

// Bounds of the outbox where the configuration has none.
const (
	DefaultOutboxMessages = 10_000
	DefaultOutboxBytes    = 64 << 20
)

// How long the ports are given. Each phase of a dial is bounded more tightly by the transport.
const (
	credentialTimeout = 2 * time.Minute  // a source that asks a service bounds each step itself
	dialTimeout       = 30 * time.Second // the link and the session together
	openTimeout       = 25 * time.Second // of it for the link: some is left for the hub's answer
	subscribeTimeout  = 10 * time.Second
	respondTimeout    = 30 * time.Second
	closeTimeout      = 2 * time.Second
	launchTimeout     = 30 * time.Second
	pluginStopTimeout = 4500 * time.Millisecond
)

// ErrUnsent is what Run returns when messages were left at the end.
var ErrUnsent = errors.New("left unsent")

// Engine runs one device. Make it with New, call Run once; every other method may be called from any goroutine.
type Engine struct {
	cfg    Config
	log    *slog.Logger
	m      *core.Machine
	start  time.Time
	inbox  *inbox
	outbox *outbox
	trace  *trace
	watch  *watchers
	ended  chan struct{} // closed when the loop has ended: the machine does not change any more
	done   chan struct{} // closed when Run ends
	wg     sync.WaitGroup
	who    *identity

	// What follows belongs to the goroutine of Run.
	attempts    map[core.Epoch]*attempt
	ops         map[core.Op]*operation
	lastOp      core.Op
	calls       map[core.Call]*call
	lastCall    core.Call
	plugins     []*pluginSlot
	desired     desired
	doubt       string // of the last credential
	reported    int64  // the highest $version of the reported properties that an answer named
	deadLetters []DeadLetter
	unsent      int
	stopped     bool
}

// New makes an engine. It does nothing until Run.
func New(cfg Config) (*Engine, error) {
	if len(cfg.Transports) == 0 || cfg.Credentials == nil {
		return nil, errors.New("engine: a transport and a credential source are needed")
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.OutboxMessages == 0 {
		cfg.OutboxMessages = DefaultOutboxMessages
	}
	if cfg.OutboxBytes == 0 {
		cfg.OutboxBytes = DefaultOutboxBytes
	}
	if cfg.Rand == nil {
		cfg.Rand = mathrand.New(mathrand.NewPCG(mathrand.Uint64(), mathrand.Uint64())) //nolint:gosec // jitter
	}
	var random [6]byte
	if _, err := rand.Read(random[:]); err != nil {
		return nil, fmt.Errorf("read random bytes: %w", err)
	}
	cfg.Machine.Routes = len(cfg.Transports)
	cfg.Machine.Plugins = nil
	e := &Engine{
		cfg: cfg, log: cfg.Logger, start: time.Now(), inbox: newInbox(), trace: newTrace(), watch: newWatchers(), ended: make(chan struct{}), done: make(chan struct{}),
		outbox:   newOutbox(cfg.OutboxMessages, cfg.OutboxBytes, hex.EncodeToString(random[:])),
		who:      newIdentity(cfg.Identity),
		attempts: map[core.Epoch]*attempt{}, ops: map[core.Op]*operation{}, lastOp: core.CallerOp, calls: map[core.Call]*call{},
	}
	for i, p := range cfg.Plugins {
		cfg.Machine.Plugins = append(cfg.Machine.Plugins, p.PluginConfig)
		e.plugins = append(e.plugins, &pluginSlot{index: core.PluginIndex(i), cfg: p})
	}
	cfg.Machine.Route = max(0, e.findRoute(cfg.Route))
	e.m = core.New(cfg.Machine, cfg.Rand)
	return e, nil
}

// Run runs the device until it has been shut down: ctx's end asks for that, and it takes at most Limits.Shutdown and a
// little more. It returns nil, or an error that wraps ErrUnsent and says how many messages were left.
func (e *Engine) Run(ctx context.Context) error {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	shutdown := ctx.Done()
	// What the engine starts outlives ctx: a shutdown still sends. It ends with Run.
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	e.step(ctx, core.Started{})
	for !e.stopped {
		if at, ok := e.m.Deadline(); ok {
			timer.Reset(time.Duration(at) - time.Since(e.start))
		} else {
			timer.Stop()
		}
		select {
		case <-e.inbox.signal:
			for _, it := range e.inbox.take() {
				ev := it.event
				if it.do != nil {
					ev = it.do()
				}
				if ev != nil && !e.stopped {
					e.step(ctx, ev)
				}
			}
		case <-timer.C:
			e.step(ctx, core.Ticked{})
		case <-shutdown:
			shutdown = nil
			e.step(ctx, core.ShutdownRequested{})
		}
	}
	e.inbox.close()
	for l := range e.outbox.close() { // what came after the machine's last word
		runs, live := e.outbox.take(core.Lane(l), 0, math.MaxUint64)
		e.unsent += live
		settle(runs, core.ErrClosed)
	}
	close(e.ended)
	for epoch := range e.attempts { // one that would not close in time
		e.closeAttempt(ctx, core.Close{Epoch: epoch, Why: "shutdown"})
	}
	cancel()
	e.wg.Wait()
	e.watch.close()
	close(e.done)
	if e.unsent > 0 {
		noun := "messages"
		if e.unsent == 1 {
			noun = "message"
		}
		return fmt.Errorf("%d %s %w", e.unsent, noun, ErrUnsent)
	}
	return nil
}

// Done is closed when Run has ended.
func (e *Engine) Done() <-chan struct{} { return e.done }

func (e *Engine) now() core.Instant { return core.Instant(time.Since(e.start)) }

// step puts one event through the machine and carries out what follows. Effects are values in a slice that the next
// step overwrites; carrying one out never steps.
func (e *Engine) step(ctx context.Context, ev core.Event) {
	now := e.now()
	e.trace.event(now, ev)
	e.debug(ctx, "event", ev)
	for _, effect := range e.m.Step(now, ev) {
		e.trace.effect(now, effect)
		e.debug(ctx, "effect", effect)
		e.execute(ctx, now, effect)
	}
}

func (e *Engine) debug(ctx context.Context, what string, line fmt.Stringer) {
	if _, isTick := line.(core.Ticked); isTick || !e.log.Enabled(ctx, slog.LevelDebug) {
		return
	}
	e.log.DebugContext(ctx, what, "line", line.String())
}

func (e *Engine) execute(ctx context.Context, now core.Instant, effect core.Effect) {
	switch f := effect.(type) {
	case core.FetchCredential:
		e.fetchCredential(ctx, f.Epoch)
	case core.Open:
		e.open(f)
	case core.Connect:
		e.connect(f.Epoch)
	case core.Close:
		e.closeAttempt(ctx, f)
	case core.RememberRoute:
		if e.cfg.OnRoute != nil {
			e.cfg.OnRoute(e.routeName(f.Route))
		}
	case core.Subscribe:
		e.subscribe(f)
	case core.Announce:
		e.announce(ctx, now, f)
	case core.Warn:
		e.warn(ctx, f.Fault)
	case core.WantCredential:
		e.log.WarnContext(ctx, "the SAS token ends soon, or has ended: a new one is wanted (fairlead token update, the token's file, or a plugin)", "in", f.Left)
		e.watch.want(true)
	case core.Stop:
		e.stopped = true

	case core.Send:
		e.send(f)
	case core.Resolve:
		runs, _ := e.outbox.take(f.Lane, 0, f.Upto)
		settle(runs, nil)
	case core.Forget:
		e.outbox.forget(f.Lane, f.Upto)
	case core.GiveUp:
		e.giveUp(f)

	case core.Ask:
		e.ask(f)
	case core.Finish:
		e.finish(f)

	case core.Deliver:
		e.deliver(f)
	case core.DeliverDesired:
		e.deliverDesired(ctx, f)
	case core.Abort:
		e.abort(f.Call)
	case core.Respond:
		e.respond(f)
	case core.Acknowledge:
		e.acknowledge(f)
	case core.Bury:
		e.bury(ctx, f)
	case core.Discard:
		delete(e.calls, f.Call)
	case core.AdoptTwin:
		e.desired.adopt()
	case core.MergeDesired:
		e.mergeDesired(ctx, f.Version)

	case core.StartPlugin:
		e.startPlugin(ctx, f)
	case core.StopPlugin:
		e.stopPlugin(ctx, f)
	case core.FailPlugin:
		e.failPlugin(ctx, f)
	}
}

// background runs f on a goroutine that Run waits for.
func (e *Engine) background(f func()) {
	e.wg.Go(f)
}

func (e *Engine) announce(ctx context.Context, now core.Instant, f core.Announce) {
	c := core.Connection{State: f.State, Reason: f.Reason, Route: e.routeName(f.Route)}
	s := e.m.Status()
	c.Kind, c.Epoch, c.Causes = s.Fault.Kind, s.Epoch, e.causes(s)
	e.trace.add(traced{now, time.Now(), true, f, e.lineConnection(c, s)})
	old := e.watch.connection(c, s, e.start)
	level := slog.LevelInfo
	if f.State == core.StateConnecting || f.State == core.StateWaiting && old == core.StateConnecting {
		level = slog.LevelDebug // the attempts of a long outage
	}
	e.log.Log(ctx, level, "connection", "from", old.String(), "to", f.State.String(), "reason", f.Reason, "route", c.Route, "epoch", uint64(c.Epoch))
}

func (e *Engine) warn(ctx context.Context, f core.Fault) {
	e.log.WarnContext(ctx, "trouble", "kind", f.Kind.String(), "reason", f.Reason)
	err := &core.Error{Op: f.Reason, Kind: f.Kind, Phase: f.Phase, Status: f.Status, RetryAfter: f.RetryAfter, Clean: f.Clean}
	if f.Kind == core.Unauthorized {
		err.Op, err.Err = core.ErrCredential.Error(), &reason{f.Reason, []error{core.ErrCredential}}
	}
	e.watch.error(err)
}

// ctxError turns a context's end into the sentinel that callers know, keeping the context's own error.
func ctxError(ctx context.Context) error {
	switch err := ctx.Err(); {
	case err == nil:
		return nil
	case errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("%w: %w", core.ErrTimeout, err)
	default:
		return fmt.Errorf("%w: %w", core.ErrCancelled, err)
	}
}
