package sdk

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"
	"unicode/utf8"

	"github.com/fairlead-iot/fairlead/core"
	"github.com/fairlead-iot/fairlead/plugins/internal/wire"
	"github.com/fairlead-iot/fairlead/plugins/pluginv1"
)

// Device is the device as a plugin sees it. Its methods may be called from any goroutine; each that waits ends when its
// context does.
type Device struct {
	s        *session
	name     string
	identity Identity
	settings json.RawMessage
	log      *slog.Logger
	events   *worker
	known    chan struct{} // closed when state is the host's word

	mu       sync.Mutex
	state    Connection
	watchers map[int]func(Connection)
	errs     map[int]func(error)
	tokens   map[int]func()
	wants    bool // the host asked for a token, and got none from here
	nextID   int
}

// Name returns the name that the plugin has in the configuration.
func (d *Device) Name() string { return d.name }

// Identity returns the device's identity.
func (d *Device) Identity() Identity { return d.identity }

// Settings decodes the plugin's settings into v, as Plugin.Settings does.
func (d *Device) Settings(v any) error { return decodeSettings(d.settings, v) }

// Log returns a logger whose records go to the host's log under the plugin's name.
func (d *Device) Log() *slog.Logger { return d.log }

// Send sends m to the hub and returns when it is accepted: the hub has it, or the disk has it synced. If ctx ends first
// the message is withdrawn; the error's text says whether the hub may have it nevertheless.
func (d *Device) Send(ctx context.Context, m *Message) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("send: %w; it was not sent", context.Cause(ctx))
	}
	if err := check(m); err != nil {
		return fmt.Errorf("send: %w", err)
	}
	f := newFuture(1)
	t := []*ticket{{m: m, to: f, size: m.Size()}}
	if _, err := d.s.out.enqueue(ctx, t, false); err != nil {
		return fmt.Errorf("send: %w", err)
	}
	if err := f.close(f.wait(ctx, d.s.out, t))[0]; err != nil {
		return fmt.Errorf("send: %w", err)
	}
	return nil
}

// check refuses what the hub would not take, or the stream could not carry.
func check(m *Message) error {
	if err := m.Check(); err != nil {
		return err
	}
	for _, s := range []string{
		m.ID, m.CorrelationID, m.UserID, m.ContentType, m.ContentEncoding, m.InterfaceID, m.Component, m.Output, m.Input, m.To, m.Ack,
	} {
		if !utf8.ValidString(s) {
			return fmt.Errorf("message field %q: %w: it is not UTF-8", s, ErrInvalid)
		}
	}
	for k, v := range m.Properties {
		if !utf8.ValidString(k) || !utf8.ValidString(v) {
			return fmt.Errorf("message property %q: %w: it is not UTF-8", k, ErrInvalid)
		}
	}
	return nil
}

// SendJSON sends v as JSON, with content type and encoding set so that the hub's routing can read it.
func (d *Device) SendJSON(ctx context.Context, v any) error {
	m, err := JSON(v)
	if err != nil {
		return err
	}
	return d.Send(ctx, m)
}

// JSON returns a message with v as its body, and content type and encoding set.
func JSON(v any) (*Message, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("encode message: %w", err)
	}
	return &Message{ContentType: "application/json", ContentEncoding: "utf-8", Payload: b}, nil
}

// SendBatch sends messages, in order, and returns when each is accepted or given up. If not all were accepted the error
// is a *BatchError.
func (d *Device) SendBatch(ctx context.Context, ms []*Message) error {
	if len(ms) == 0 {
		return nil
	}
	f := newFuture(len(ms))
	ts := make([]*ticket, 0, len(ms))
	backing := make([]ticket, len(ms))
	for i, m := range ms {
		if err := check(m); err != nil {
			f.settled(i, err)
			continue
		}
		backing[i] = ticket{m: m, to: f, index: i, size: m.Size()}
		ts = append(ts, &backing[i])
	}
	n, err := d.s.out.enqueue(ctx, ts, false)
	for _, t := range ts[n:] {
		f.settled(t.index, err)
	}
	errs := f.close(f.wait(ctx, d.s.out, ts[:n]))
	if slices.ContainsFunc(errs, func(err error) bool { return err != nil }) {
		return &BatchError{Errs: errs}
	}
	return nil
}

// SendAsync queues m and returns; done, which may be nil, is told what became of it, in the order of sending, and must
// not block. While the host takes no more, SendAsync itself waits, until ctx ends; after it has returned nil, ctx has no
// say any more. In a stream of messages one may wait a few milliseconds for the next ones; see SetLinger.
func (d *Device) SendAsync(ctx context.Context, m *Message, done func(error)) error {
	if err := check(m); err != nil {
		return fmt.Errorf("send: %w", err)
	}
	if _, err := d.s.out.enqueue(ctx, []*ticket{{m: m, to: callback(done), size: m.Size()}}, true); err != nil {
		return fmt.Errorf("send: %w", err)
	}
	return nil
}

// SetLinger sets how long a message of SendAsync may wait for the ones behind it; DefaultLinger if it is never called. Each
// departure wakes this process, the host and the hub, so that at a thousand messages a second leaving together costs a
// fraction of leaving one by one. A message that comes alone, limit after the one before or later, leaves at once; so does
// everything where waiting has brought no company, where enough has gathered, and where Send or SendBatch wait for it.
// With 0 nothing ever waits.
func (d *Device) SetLinger(limit time.Duration) { d.s.out.setLinger(limit) }

type callback func(error)

func (c callback) settled(_ int, err error) {
	if c != nil {
		c(err)
	}
}

// BatchError says which messages of a SendBatch were not accepted.
type BatchError struct {
	// Errs has one entry per message of the batch; nil for an accepted one.
	Errs []error
}

// Error counts the messages that were not accepted and gives the first reason.
func (e *BatchError) Error() string {
	n, first := 0, error(nil)
	for _, err := range e.Errs {
		if err != nil {
			if n++; first == nil {
				first = err
			}
		}
	}
	return fmt.Sprintf("send: %d of %d messages were not accepted: %v", n, len(e.Errs), first)
}

// Unwrap returns the reasons.
func (e *BatchError) Unwrap() []error {
	var errs []error
	for _, err := range e.Errs {
		if err != nil {
			errs = append(errs, err)
		}
	}
	return errs
}

// errOpen marks what nobody has settled yet.
var errOpen = errors.New("open")

// future collects what became of one message or a batch. errs[i] is errOpen until message i is settled.
type future struct {
	mu   sync.Mutex
	left int
	errs []error
	done chan struct{} // closed when left is 0
}

func newFuture(n int) *future {
	f := &future{left: n, errs: make([]error, n), done: make(chan struct{})}
	for i := range f.errs {
		f.errs[i] = errOpen
	}
	return f
}

func (f *future) settled(i int, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.errs[i] != errOpen { //nolint:errorlint // identity, not kind
		return
	}
	f.errs[i] = err
	if f.left--; f.left == 0 {
		close(f.done)
	}
}

// close settles with err what is still open, and returns what became of all.
func (f *future) close(err error) []error {
	for i := range f.errs {
		f.settled(i, err)
	}
	return f.errs
}

// wait returns nil when everything is settled. When ctx ends it withdraws what is open and waits a moment for the answer.
func (f *future) wait(ctx context.Context, out *writer, ts []*ticket) error {
	select {
	case <-f.done:
		return nil
	case <-ctx.Done():
	}
	cause := context.Cause(ctx)
	out.withdraw(ts, cause)
	limit := time.NewTimer(wire.WithdrawWait)
	defer limit.Stop()
	select {
	case <-f.done:
		return nil
	case <-limit.C:
		return fmt.Errorf("%w; the hub may have it", cause)
	}
}

// Report changes the reported properties by a merge patch (RFC 7396) and returns their new $version. patch is marshalled
// to JSON; a json.RawMessage is sent as it is.
func (d *Device) Report(ctx context.Context, patch any) (version int64, err error) {
	b, err := json.Marshal(patch)
	if err != nil {
		return 0, fmt.Errorf("report: encode patch: %w", err)
	}
	r, err := d.s.request(ctx, "report", &pluginv1.Request{Request: &pluginv1.Request_Report{Report: &pluginv1.ReportRequest{Patch: b}}})
	return r.GetVersion(), err
}

// Twin is the device twin as the hub has it.
type Twin struct {
	Desired  json.RawMessage `json:"desired"`  // $version included
	Reported json.RawMessage `json:"reported"` // $version included
}

// Twin asks the hub for the whole twin.
func (d *Device) Twin(ctx context.Context) (*Twin, error) {
	r, err := d.s.request(ctx, "twin", &pluginv1.Request{Request: &pluginv1.Request_Twin{Twin: &pluginv1.TwinRequest{}}})
	if err != nil {
		return nil, err
	}
	t := new(Twin)
	if err := json.Unmarshal(r.GetPayload(), t); err != nil {
		return nil, fmt.Errorf("twin: decode: %w", err)
	}
	return t, nil
}

// Connect waits for a session with the hub.
func (d *Device) Connect(ctx context.Context) error {
	_, err := d.s.request(ctx, "connect", &pluginv1.Request{Request: &pluginv1.Request_Connect{Connect: &pluginv1.ConnectRequest{}}})
	return err
}

// Disconnect ends the session with the hub until the next Connect, whoever asks for it.
func (d *Device) Disconnect(ctx context.Context) error {
	_, err := d.s.request(ctx, "disconnect", &pluginv1.Request{Request: &pluginv1.Request_Disconnect{Disconnect: &pluginv1.DisconnectRequest{}}})
	return err
}

// UpdateSASToken replaces the SAS token that the device was given (device.sastoken). It returns when the token has been
// taken; the session is renewed with it behind the scenes. ErrInvalid: it is malformed, has ended, or is another
// device's. ErrUnsupported: the device proves itself by something else.
func (d *Device) UpdateSASToken(ctx context.Context, token string) error {
	_, err := d.s.request(ctx, "update SAS token", &pluginv1.Request{Request: &pluginv1.Request_UpdateSasToken{
		UpdateSasToken: &pluginv1.UpdateSasTokenRequest{Token: token},
	}})
	if err == nil {
		d.mu.Lock()
		d.wants = false
		d.mu.Unlock()
	}
	return err
}

// Connected reports whether there is a session with the hub. A renewal does not end it.
func (d *Device) Connected() bool { return d.State().Connected() }

// State returns the state of the connection.
func (d *Device) State() Connection {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.state
}

// OnState calls f with the state of the connection now and after each change, in order, from one goroutine, until stop
// is called.
func (d *Device) OnState(f func(Connection)) (stop func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	id := d.id()
	d.watchers[id] = f
	now := d.state
	d.events.add(func() { d.tell(id, now) })
	return func() { d.mu.Lock(); delete(d.watchers, id); d.mu.Unlock() }
}

// OnBackgroundError calls f with each error that no operation asked for (losses, failed attempts, failed renewals), from
// the goroutine of OnState, until stop is called.
func (d *Device) OnBackgroundError(f func(error)) (stop func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	id := d.id()
	d.errs[id] = f
	return func() { d.mu.Lock(); delete(d.errs, id); d.mu.Unlock() }
}

// OnNewSASToken calls f when the SAS token that the user gave ends soon (in two minutes) or has ended, until stop is
// called; answer with UpdateSASToken. It is also called if that was so before.
func (d *Device) OnNewSASToken(f func()) (stop func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	id := d.id()
	d.tokens[id] = f
	if d.wants {
		d.askTokenLocked(id)
	}
	return func() { d.mu.Lock(); delete(d.tokens, id); d.mu.Unlock() }
}

// id returns a new number for a watcher; d.mu is held.
func (d *Device) id() int { d.nextID++; return d.nextID }

// tell calls one watcher, if it is still there.
func (d *Device) tell(id int, c Connection) {
	d.mu.Lock()
	f := d.watchers[id]
	d.mu.Unlock()
	if f != nil {
		f(c)
	}
}

func (d *Device) setState(c core.Connection) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.state = c
	select {
	case <-d.known:
	default:
		close(d.known)
	}
	for id := range d.watchers {
		d.events.add(func() { d.tell(id, c) })
	}
}

func (d *Device) background(err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for id := range d.errs {
		d.events.add(func() {
			d.mu.Lock()
			f := d.errs[id]
			d.mu.Unlock()
			if f != nil {
				f(err)
			}
		})
	}
}

func (d *Device) tokenWanted() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.wants = true
	for id := range d.tokens {
		d.askTokenLocked(id)
	}
}

func (d *Device) askTokenLocked(id int) {
	d.events.add(func() {
		d.mu.Lock()
		f := d.tokens[id]
		d.mu.Unlock()
		if f != nil {
			f()
		}
	})
}

// Metric reports the current value of something; labels are pairs of name and value. The name is lower case, with the
// unit last: "queue_bytes".
func (d *Device) Metric(name string, value float64, labels ...string) {
	d.metric(pluginv1.Metric_KIND_GAUGE, name, value, labels)
}

// Count adds n to a counter; labels are pairs of name and value.
func (d *Device) Count(name string, n float64, labels ...string) {
	d.metric(pluginv1.Metric_KIND_COUNTER, name, n, labels)
}

func (d *Device) metric(k pluginv1.Metric_Kind, name string, value float64, labels []string) {
	m := make(map[string]string, len(labels)/2)
	for i := 0; i+1 < len(labels); i += 2 {
		m[valid(labels[i])] = valid(labels[i+1])
	}
	d.s.out.offer(&pluginv1.SessionResponse{Frame: &pluginv1.SessionResponse_Metric{
		Metric: &pluginv1.Metric{Name: valid(name), Kind: k, Value: value, Labels: m},
	}})
}
