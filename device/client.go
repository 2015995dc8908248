package device

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"sync"
	"time"

	"github.com/fairlead-iot/fairlead/core"
	"github.com/fairlead-iot/fairlead/core/engine"
	"github.com/fairlead-iot/fairlead/transports/http"
	"github.com/fairlead-iot/fairlead/uploads"
)

// Config assembles a client. Start from DefaultConfig.
type Config struct {
	// Provisioning, if set, takes the place of Identity, Credentials and Transports: the device learns them.
	Provisioning *Provisioning
	Identity     Identity
	Credentials  core.CredentialSource
	// Transports are the routes to the hub, in order of preference.
	Transports []core.Transport
	// Route is the name of the route to begin with: what OnRoute was told last, perhaps by an earlier process. OnRoute is
	// told by which route a session came about where that is another than before, and OnHappening what becomes of each
	// session and attempt. They must not block.
	Route       string
	OnRoute     func(name string)
	OnHappening func(engine.Happening)
	// Plugins run beside the client's own handlers; each has its own stream of messages.
	Plugins []engine.Plugin

	// Files, if set, makes what asks the hub about uploads of files. The source may be called from any goroutine.
	Files func(id Identity, source core.CredentialSource) (core.FileService, error)
	// Uploads, if set, makes the queue of uploads; its Files are those above, its Logger is the client's unless it has one.
	Uploads *uploads.Config

	// AutoConnect: an operation that needs a session makes one. ConnectAtStart: a session is made without being asked.
	AutoConnect, ConnectAtStart bool
	// ConnectionRetry: a lost session is made again, a failed attempt repeated.
	ConnectionRetry bool
	// ConnectionRetryInterval bounds the wait between attempts in the first 5 minutes of an outage, ConnectionRetryMax
	// later.
	ConnectionRetryInterval, ConnectionRetryMax time.Duration
	// EnsureDesiredProperties: each session begins with a look at the twin, so that no desired change is missed.
	EnsureDesiredProperties bool
	// OutboxMessages and OutboxBytes bound what waits for the hub; 0 means the engine's defaults.
	OutboxMessages, OutboxBytes int
	Logger                      *slog.Logger
	// OnPluginFailed, if set, is told of a plugin that will not be started again until somebody mends it. It must not
	// block.
	OnPluginFailed func(name string, start core.Start, reason string)
	// Limits are the machine's; the zero value means its defaults.
	Limits core.Limits
}

// DefaultConfig returns the seed client's defaults. Identity, Credentials and Transports are to be filled in.
func DefaultConfig() Config {
	return Config{
		AutoConnect: true, ConnectionRetry: true, ConnectionRetryInterval: 10 * time.Second, ConnectionRetryMax: 10 * time.Minute,
		EnsureDesiredProperties: true,
	}
}

// Client is one device, or one module, at one hub. It is made by New and ends with Shutdown. All methods may be called
// from any goroutine; each that takes a context ends when that does.
type Client struct {
	engine  *engine.Engine
	own     core.Device
	in      *handlers
	files   core.FileService // nil where there is none
	uploads *uploads.Queue   // nil where there is none
	// invoker calls methods of others; nil for whom that is not.
	invoker *http.Client
	// provisioner is that of a device that is provisioned; nil for others.
	provisioner *provisioner
	stop        context.CancelFunc
	result      error         // of the engine's Run
	ended       chan struct{} // closed when result is set

	mu      sync.Mutex
	lastTag uint64
	pending map[uint64]chan error
}

// New makes a client of parts: where FromConnectionString and FromSymmetricKey do not have what it takes (another
// CredentialSource, several routes, plugins). It starts the engine, and does not touch the network before something asks
// for a session.
func New(cfg Config) (*Client, error) {
	var provisioner *provisioner
	if cfg.Provisioning != nil {
		p, err := newProvisioner(*cfg.Provisioning)
		if err != nil {
			return nil, err
		}
		provisioner = p
		cfg.Identity, cfg.Credentials, cfg.Transports = p.identity(), p, p.routes()
	} else if cfg.Identity.Hostname == "" || cfg.Identity.DeviceID == "" {
		return nil, fmt.Errorf("device: %w: hostname and device id are needed", core.ErrInvalid)
	}
	c := &Client{in: newHandlers(), provisioner: provisioner, pending: map[uint64]chan error{}, ended: make(chan struct{})}
	if cfg.Files != nil {
		cfg.Credentials = serialize(cfg.Credentials)
		files, err := cfg.Files(cfg.Identity, cfg.Credentials)
		if err != nil {
			return nil, err
		}
		c.files = files
	}
	plugins := append([]engine.Plugin{{PluginConfig: core.PluginConfig{Name: "(this process)"}, Launcher: c.in}}, cfg.Plugins...)
	e, err := engine.New(engine.Config{
		Identity: cfg.Identity, Transports: cfg.Transports, Route: cfg.Route, OnRoute: cfg.OnRoute, OnHappening: cfg.OnHappening, Credentials: cfg.Credentials, Plugins: plugins,
		Logger: cfg.Logger, OnPluginFailed: cfg.OnPluginFailed,
		OutboxMessages: cfg.OutboxMessages, OutboxBytes: cfg.OutboxBytes,
		Machine: core.Config{
			AutoConnect: cfg.AutoConnect, ConnectAtStart: cfg.ConnectAtStart, ConnectionRetry: cfg.ConnectionRetry,
			RetryInterval: cfg.ConnectionRetryInterval, RetryMax: cfg.ConnectionRetryMax, EnsureDesired: cfg.EnsureDesiredProperties,
			Limits: cfg.Limits,
		},
	})
	if err != nil {
		return nil, err
	}
	c.engine, c.own = e, e.Device(0)
	if err := c.makeUploads(cfg); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background()) // the engine's life is the client's: it ends by Shutdown
	c.stop = cancel
	uploaded := c.runUploads(ctx)
	go func() {
		c.result = e.Run(ctx)
		<-uploaded
		close(c.ended)
	}()
	return c, nil
}

// Engine gives the engine, for status and trace.
func (c *Client) Engine() *engine.Engine { return c.engine }

// Connect makes a session and returns when it is up. With ConnectionRetry it keeps trying until ctx ends, and the error
// then holds the last failure; without, it returns the first attempt's. It ends a wait between attempts, but does not have a
// proxy asked sooner that refused the user: see [ProxyOptions].
func (c *Client) Connect(ctx context.Context) error { return c.own.Connect(ctx) }

// Disconnect ends the session: what is in flight is waited for (at most Limits.DisconnectDrain), what is pending then
// is cancelled. A later operation connects again where AutoConnect is on.
func (c *Client) Disconnect(ctx context.Context) error { return c.engine.Disconnect(ctx, false) }

// Shutdown lets handlers finish, sends what it still can, ends the session and stops for good. It returns when that is
// done or ctx has ended; the error wraps engine.ErrUnsent when messages were left. It may be called more than once, also
// by a handler or a watcher.
func (c *Client) Shutdown(ctx context.Context) error {
	c.stop()
	select {
	case <-c.ended:
		return c.result
	case <-ctx.Done():
		return fmt.Errorf("shut down: %w: %w", core.ErrTimeout, ctx.Err())
	}
}

// Provisioning says where the provisioning service has sent the device; ok is false for one that has its identity from
// elsewhere.
func (c *Client) Provisioning() (s ProvisioningStatus, ok bool) {
	if c.provisioner == nil {
		return s, false
	}
	c.provisioner.mu.Lock()
	defer c.provisioner.mu.Unlock()
	return c.provisioner.shown, true
}

// Done is closed when the client has been shut down.
func (c *Client) Done() <-chan struct{} { return c.ended }

// Identity names the device or module, and its hub.
func (c *Client) Identity() Identity { return c.own.Identity() }

// Connected reports whether there is a session now. A renewal of the credential does not end it.
func (c *Client) Connected() bool { return c.engine.Connection().Connected() }

// Connection returns the state of the connection, why it is so, since when, by which route, and when the next attempt is
// made; without a session also what stands in the way of each route.
func (c *Client) Connection(ctx context.Context) (Connection, error) {
	s, err := c.engine.Status(ctx)
	return s.Connection, err
}

// UseRoute moves the session to the route of this name (a transport's Name), without a loss, and prefers it from then on to
// the order of Config.Transports, which "auto" brings back. It returns when there is a session by the route; where none is
// wanted now, at once. An error that wraps ErrInvalid names the routes that there are; ErrConnectionFailed says that the
// route does not get through, and then nothing changes.
func (c *Client) UseRoute(ctx context.Context, name string) error {
	return c.engine.UseRoute(ctx, name)
}

// NetworkChanged tells the client that a network link or an address came up, for a program that knows: a wait between
// attempts ends. It may be called as often as one likes, since what it causes is bounded.
func (c *Client) NetworkChanged() { c.engine.NetworkChanged() }

// OnConnection calls f with the state now and after each change, until stop is called.
func (c *Client) OnConnection(f func(Connection)) (stop func()) { return c.own.Watch(f) }

// OnBackgroundError calls f with each loss, failed attempt and failed renewal, until stop is called. Mostly it is an *Error.
func (c *Client) OnBackgroundError(f func(error)) (stop func()) { return c.own.OnError(f) }

// OnNewSASToken calls f when the SAS token that the client was given ends in two minutes, or has ended, until stop is
// called; also now, if that was so before. Answer with UpdateSASToken.
func (c *Client) OnNewSASToken(f func()) (stop func()) { return c.own.OnTokenWanted(f) }

// UpdateSASToken replaces the SAS token that the client was given (credentials.GivenToken). It returns when the token has
// been taken; a session is renewed with it behind the scenes, without a loss, and a wait between attempts ends.
// core.ErrInvalid: it is malformed, has ended, or is another device's, module's or hub's. core.ErrUnsupported: the
// client has another proof of identity.
func (c *Client) UpdateSASToken(ctx context.Context, token string) error {
	return c.own.UpdateToken(ctx, core.Secret(token))
}

// Send sends a message and returns nil when the hub has acknowledged it. When ctx ends first the message is withdrawn:
// it will not be sent later, and the error says whether the hub may have it already. A message that the hub would not
// take is refused at once (core.ErrTooLarge, core.ErrInvalid).
func (c *Client) Send(ctx context.Context, m *Message) error {
	if err := m.Check(); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("send: %w: %w", core.ErrCancelled, err)
	}
	own := *m // the engine's from now on; the caller keeps hers
	own.Properties, own.Payload = maps.Clone(m.Properties), bytes.Clone(m.Payload)
	done := make(chan error, 1)
	c.mu.Lock()
	c.lastTag++
	tag := c.lastTag
	c.pending[tag] = done
	c.mu.Unlock()
	if err := c.own.Submit(ctx, c, tag, []*core.Message{&own}); err != nil {
		c.forget(tag)
		return fmt.Errorf("send: %w", err)
	}
	select {
	case err := <-done:
		return wrapSend(err)
	case <-ctx.Done():
		c.own.Withdraw(c, tag)
	case <-c.ended:
	}
	// The engine says what became of it: withdrawn, or acknowledged in the meantime.
	select {
	case err := <-done:
		if errors.Is(err, core.ErrCancelled) && ctx.Err() != nil {
			return fmt.Errorf("send: %w (%w)", err, ctx.Err())
		}
		return wrapSend(err)
	case <-c.ended:
		c.forget(tag)
		select {
		case err := <-done: // told at the last moment
			return wrapSend(err)
		default:
			return fmt.Errorf("send: %w", core.ErrClosed)
		}
	}
}

func wrapSend(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("send: %w", err)
}

func (c *Client) forget(tag uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.pending, tag)
}

// Settled implements core.Settler.
func (c *Client) Settled(from, to uint64, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for tag := from; tag <= to; tag++ {
		if done, ok := c.pending[tag]; ok {
			done <- err
			delete(c.pending, tag)
		}
	}
}

var _ core.Settler = (*Client)(nil)

// Twin is the hub's document of the device.
type Twin struct {
	Desired  json.RawMessage `json:"desired"`  // with $version
	Reported json.RawMessage `json:"reported"` // with $version
}

// GetTwin asks the hub for the twin. It connects where AutoConnect is on, and asks again when the session is lost before the
// answer comes; a refusal by the hub is ErrService, with its status and tracking id in the *Error.
func (c *Client) GetTwin(ctx context.Context) (Twin, error) {
	raw, err := c.own.Twin(ctx)
	if err != nil {
		return Twin{}, err
	}
	var t Twin
	if err := json.Unmarshal(raw, &t); err != nil {
		return Twin{}, fmt.Errorf("parse twin: %w", err)
	}
	return t, nil
}

// PatchReported changes the reported properties by a JSON merge patch (anything that marshals to an object) and returns
// their new $version. A null removes a property. Errors are as for GetTwin.
func (c *Client) PatchReported(ctx context.Context, patch any) (int64, error) {
	raw, err := json.Marshal(patch)
	if err != nil {
		return 0, fmt.Errorf("report: %w: %w", core.ErrInvalid, err)
	}
	return c.own.Report(ctx, raw)
}

// HandleMethod sets the handler of a direct method, in place of what handled it before; nil removes it. A method without
// one is answered 404. The name AnyMethod stands for all that have none of their own.
func (c *Client) HandleMethod(name string, f MethodHandler) {
	c.in.setMethod(name, methodOf(f))
	c.engine.Reregister(0)
}

// HandleMessages sets the handler of cloud-to-device messages (for a module, of its inputs: Message.Input says which), in
// place of what handled them before; nil removes it. Messages come one at a time, in order. A handler has 50 s; a message
// that took longer is a dead letter, and so is one that comes when there is no handler any more.
func (c *Client) HandleMessages(f MessageHandler) {
	c.in.setMessages(f)
	c.engine.Reregister(0)
}

// HandleDesired sets the handler of the desired properties. It is called with the current state after each connect that
// found a change, and after each change; changes that come while it runs are given together. nil removes it.
func (c *Client) HandleDesired(f DesiredHandler) {
	c.in.setDesired(f)
	c.engine.Reregister(0)
}
