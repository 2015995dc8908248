package sdktest

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/fairlead-iot/fairlead/core"
)

// Device is a device without a hub. It models: acceptance of messages in order, a full outbox, refused sends, messages
// that stay unsettled and can be withdrawn, a twin whose reported properties follow merge patches and count versions, a
// connection state that the test sets. It does not model: the disk, sending again, expiry, or the hub's own limits.
//
// Its methods may be called from any goroutine. The zero value is not ready; see NewDevice.
type Device struct {
	mu        sync.Mutex
	changed   chan struct{} // closed and renewed with every change
	id        core.Identity
	sent      []*core.Message
	held      []held // submitted, not settled
	hold      bool
	full      bool
	sendErr   error
	reportErr error
	reported  map[string]any
	version   int64
	desired   json.RawMessage
	conn      core.Connection
	watchers  map[int]func(core.Connection)
	errs      map[int]func(error)
	wanted    map[int]func()
	wants     bool
	tokens    []core.Secret
	next      int
}

type held struct {
	by  core.Settler
	tag uint64
	m   *core.Message
}

var _ core.Device = (*Device)(nil)

// NewDevice returns a connected device with an empty twin.
func NewDevice() *Device {
	return &Device{
		changed:  make(chan struct{}),
		id:       core.Identity{Hostname: "hub.test", DeviceID: "device-1"},
		reported: make(map[string]any), desired: json.RawMessage(`{"$version":1}`), version: 1,
		conn:     core.Connection{State: core.StateConnected, Reason: "test", Epoch: 1},
		watchers: make(map[int]func(core.Connection)), errs: make(map[int]func(error)), wanted: make(map[int]func()),
	}
}

// change runs f under the lock and wakes those who wait.
func (d *Device) change(f func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	f()
	close(d.changed)
	d.changed = make(chan struct{})
}

// wait waits until done, called under the lock, says yes.
func (d *Device) wait(ctx context.Context, done func() bool) error {
	for {
		d.mu.Lock()
		ok, changed := done(), d.changed
		d.mu.Unlock()
		if ok {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// Sent returns the messages accepted so far, in order.
func (d *Device) Sent() []*core.Message {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.sent)
}

// WaitSent waits until n messages were accepted and returns them all.
func (d *Device) WaitSent(ctx context.Context, n int) ([]*core.Message, error) {
	err := d.wait(ctx, func() bool { return len(d.sent) >= n })
	sent := d.Sent()
	if err != nil {
		return sent, fmt.Errorf("wait for %d messages, have %d: %w", n, len(sent), err)
	}
	return sent, nil
}

// Full says whether the outbox is full: then Submit waits.
func (d *Device) Full(full bool) { d.change(func() { d.full = full }) }

// FailSends has every message from now on given up with err; nil accepts again.
func (d *Device) FailSends(err error) { d.change(func() { d.sendErr = err }) }

// Hold keeps messages unsettled, as while offline without a disk; Hold(false) accepts them all.
func (d *Device) Hold(hold bool) {
	var release []held
	d.change(func() {
		d.hold = hold
		if !hold {
			release, d.held = d.held, nil
			for _, h := range release {
				d.sent = append(d.sent, h.m)
			}
		}
	})
	for _, h := range release {
		h.by.Settled(h.tag, h.tag, nil)
	}
}

// Held waits until n messages are unsettled.
func (d *Device) Held(ctx context.Context, n int) error {
	return d.wait(ctx, func() bool { return len(d.held) == n })
}

// FailReports has every Report from now on fail with err; nil ends that.
func (d *Device) FailReports(err error) { d.change(func() { d.reportErr = err }) }

// Reported returns the reported properties as JSON, with $version.
func (d *Device) Reported() json.RawMessage {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.reportedLocked()
}

func (d *Device) reportedLocked() json.RawMessage {
	doc := maps.Clone(d.reported)
	doc["$version"] = d.version
	b, err := json.Marshal(doc)
	if err != nil {
		return nil // cannot happen: it was JSON
	}
	return b
}

// WaitReported waits until the reported properties satisfy ok.
func (d *Device) WaitReported(ctx context.Context, ok func(json.RawMessage) bool) (json.RawMessage, error) {
	err := d.wait(ctx, func() bool { return ok(d.reportedLocked()) })
	if err != nil {
		return d.Reported(), fmt.Errorf("wait for reported properties, have %s: %w", d.Reported(), err)
	}
	return d.Reported(), nil
}

// SetTwinDesired sets what Twin gives as desired; it pushes nothing (see Harness.Desired).
func (d *Device) SetTwinDesired(doc json.RawMessage) { d.change(func() { d.desired = doc }) }

// SetConnection changes the connection's state and tells the plugin.
func (d *Device) SetConnection(c core.Connection) {
	var fs []func(core.Connection)
	d.change(func() {
		d.conn = c
		fs = slices.Collect(maps.Values(d.watchers))
	})
	for _, f := range fs {
		f(c)
	}
}

// BackgroundError tells the plugin of an error of the background.
func (d *Device) BackgroundError(err error) {
	d.mu.Lock()
	fs := slices.Collect(maps.Values(d.errs))
	d.mu.Unlock()
	for _, f := range fs {
		f(err)
	}
}

// Identity implements core.Device.
func (d *Device) Identity() core.Identity { return d.id }

// Submit implements core.Device.
func (d *Device) Submit(ctx context.Context, by core.Settler, first uint64, batch []*core.Message) error {
	if err := d.wait(ctx, func() bool { return !d.full }); err != nil {
		return err
	}
	for _, m := range batch {
		if err := m.Check(); err != nil {
			panic("sdktest: a message that does not pass Check was submitted: " + err.Error())
		}
	}
	var err error
	kept := false
	d.change(func() {
		switch {
		case d.sendErr != nil:
			err = d.sendErr
		case d.hold:
			kept = true
			for i, m := range batch {
				d.held = append(d.held, held{by, first + uint64(i), m})
			}
		default:
			d.sent = append(d.sent, batch...)
		}
	})
	if !kept {
		by.Settled(first, first+uint64(len(batch))-1, err)
	}
	return nil
}

// Withdraw implements core.Device.
func (d *Device) Withdraw(by core.Settler, tag uint64) {
	found := false
	d.change(func() {
		d.held = slices.DeleteFunc(d.held, func(h held) bool {
			if h.by == by && h.tag == tag {
				found = true
				return true
			}
			return false
		})
	})
	if found {
		by.Settled(tag, tag, fmt.Errorf("withdrawn: %w; the hub may have it", core.ErrCancelled))
	}
}

// Report implements core.Device.
func (d *Device) Report(ctx context.Context, patch json.RawMessage) (int64, error) {
	if err := ctx.Err(); err != nil {
		return 0, err
	}
	var p map[string]any
	if err := json.Unmarshal(patch, &p); err != nil {
		return 0, err
	}
	var v int64
	var err error
	d.change(func() {
		if err = d.reportErr; err != nil {
			return
		}
		d.reported = merge(d.reported, p)
		d.version++
		v = d.version
	})
	return v, err
}

// merge applies a merge patch (RFC 7396) and returns the result.
func merge(doc, patch map[string]any) map[string]any {
	out := maps.Clone(doc)
	if out == nil {
		out = make(map[string]any)
	}
	for k, v := range patch {
		switch v := v.(type) {
		case nil:
			delete(out, k)
		case map[string]any:
			old, _ := out[k].(map[string]any)
			out[k] = merge(old, v)
		default:
			out[k] = v
		}
	}
	return out
}

// Twin implements core.Device.
func (d *Device) Twin(ctx context.Context) (json.RawMessage, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return json.Marshal(map[string]json.RawMessage{"desired": d.desired, "reported": d.reportedLocked()})
}

// Connect implements core.Device: it connects at once.
func (d *Device) Connect(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	d.SetConnection(core.Connection{State: core.StateConnected, Reason: "asked to", Epoch: 2})
	return nil
}

// Disconnect implements core.Device: it disconnects at once.
func (d *Device) Disconnect(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	d.SetConnection(core.Connection{State: core.StateDisconnected, Reason: "asked to"})
	return nil
}

// Watch implements core.Device.
func (d *Device) Watch(f func(core.Connection)) func() {
	d.mu.Lock()
	d.next++
	id := d.next
	d.watchers[id] = f
	c := d.conn
	d.mu.Unlock()
	f(c)
	return func() { d.mu.Lock(); delete(d.watchers, id); d.mu.Unlock() }
}

// OnError implements core.Device.
func (d *Device) OnError(f func(error)) func() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.next++
	id := d.next
	d.errs[id] = f
	return func() { d.mu.Lock(); delete(d.errs, id); d.mu.Unlock() }
}

// WantToken says to the plugin that the device's SAS token ends soon, until it has updated it.
func (d *Device) WantToken() {
	var ask []func()
	d.change(func() {
		d.wants = true
		ask = slices.Collect(maps.Values(d.wanted))
	})
	for _, f := range ask {
		f()
	}
}

// WaitToken waits for the next SAS token that the plugin gives and returns it. It models no check of the token.
func (d *Device) WaitToken(ctx context.Context) (core.Secret, error) {
	var token core.Secret
	err := d.wait(ctx, func() bool {
		if len(d.tokens) == 0 {
			return false
		}
		token, d.tokens = d.tokens[0], d.tokens[1:]
		return true
	})
	return token, err
}

// OnTokenWanted implements core.Device.
func (d *Device) OnTokenWanted(f func()) func() {
	d.mu.Lock()
	d.next++
	id := d.next
	d.wanted[id] = f
	wants := d.wants
	d.mu.Unlock()
	if wants {
		f()
	}
	return func() { d.mu.Lock(); delete(d.wanted, id); d.mu.Unlock() }
}

// UpdateToken implements core.Device.
func (d *Device) UpdateToken(ctx context.Context, token core.Secret) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	d.change(func() { d.wants, d.tokens = false, append(d.tokens, token) })
	return nil
}

// ErrOffline is an error for FailSends and FailReports.
var ErrOffline = fmt.Errorf("sdktest: %w", core.ErrNotConnected)
