package engine

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"

	"github.com/fairlead-iot/fairlead/core"
)

// Device returns what a plugin may ask, bound to a lane. Each plugin has a lane of its own; lane 0 belongs to none and
// serves callers within this process.
func (e *Engine) Device(l core.Lane) core.Device { return &device{e: e, lane: l} }

// laneOf gives each plugin its lane.
func laneOf(p core.PluginIndex) core.Lane { return core.Lane(p) + 1 }

type device struct {
	e    *Engine
	lane core.Lane
}

var _ core.Device = (*device)(nil)

func (d *device) Identity() core.Identity { return d.e.who.get() }

func (d *device) Submit(ctx context.Context, by core.Settler, first uint64, batch []*core.Message) error {
	return d.e.outbox.append(ctx, d.lane, by, first, batch, func(upto core.Seq, bytes int) {
		d.e.inbox.post(core.Submitted{Lane: d.lane, Upto: upto, Bytes: bytes})
	})
}

func (d *device) Withdraw(by core.Settler, tag uint64) {
	d.e.inbox.run(func() core.Event {
		seq := d.e.outbox.find(d.lane, by, tag)
		if seq == 0 {
			return nil
		}
		return core.Withdrawn{Lane: d.lane, Seq: seq}
	})
}

func (d *device) Report(ctx context.Context, patch json.RawMessage) (int64, error) {
	if !isJSONObject(patch) {
		return 0, fmt.Errorf("report: %w: the patch must be a JSON object", core.ErrInvalid)
	}
	if len(patch) > core.MaxMessageSize {
		// The hub would close the session, and the next one, and so on.
		return 0, fmt.Errorf("report a patch of %d bytes: %w: the hub takes at most %d", len(patch), core.ErrTooLarge, core.MaxMessageSize)
	}
	r, err := d.e.operate(ctx, &operation{name: "report properties", request: &core.Request{Kind: core.ReportedPatch, Payload: patch}})
	return r.Version, err
}

func (d *device) Twin(ctx context.Context) (json.RawMessage, error) {
	r, err := d.e.operate(ctx, &operation{name: "get twin", request: &core.Request{Kind: core.TwinGet}})
	return r.Payload, err
}

func (d *device) Connect(ctx context.Context) error {
	_, err := d.e.operate(ctx, &operation{name: "connect", begin: func(op core.Op) core.Event { return core.ConnectRequested{Op: op} }})
	if err != nil && ctx.Err() != nil {
		// It ended because the caller would not wait any longer; what it waited for is more useful to know.
		if c := d.e.watch.get(); c.State == core.StateConnecting || c.State == core.StateWaiting {
			err = fmt.Errorf("%w: %s", err, c.Reason)
		}
	}
	return err
}

// Disconnect holds: what the outbox has waits for the next Connect.
func (d *device) Disconnect(ctx context.Context) error { return d.e.Disconnect(ctx, true) }

// Disconnect ends the session. With hold only Connect brings it back; without, any new operation does where
// auto_connect is on, and what is pending now is cancelled.
func (e *Engine) Disconnect(ctx context.Context, hold bool) error {
	_, err := e.operate(ctx, &operation{name: "disconnect", begin: func(op core.Op) core.Event {
		return core.DisconnectRequested{Op: op, Hold: hold}
	}})
	return err
}

// CredentialChanged ends every wait between attempts, since something that stood in the way may be gone, and renews a
// session with a fresh credential.
func (e *Engine) CredentialChanged() {
	e.watch.want(false)
	e.inbox.post(core.CredentialChanged{})
}

func (d *device) OnTokenWanted(f func()) func() { return d.e.watch.addWanted(f) }

func (d *device) UpdateToken(ctx context.Context, token core.Secret) error {
	if err := ctxError(ctx); err != nil {
		return fmt.Errorf("update SAS token: %w", err)
	}
	holder, ok := d.e.cfg.Credentials.(core.TokenHolder)
	if !ok {
		return fmt.Errorf("update SAS token: %w: the device proves itself by something else than a ready SAS token (device.sastoken), and renews that by itself", core.ErrUnsupported)
	}
	if err := holder.Replace(token); err != nil {
		return fmt.Errorf("update SAS token: %w", err)
	}
	d.e.log.Info("SAS token replaced") //nolint:contextcheck // the log's handlers take nothing from it
	d.e.CredentialChanged()
	return nil
}

func (d *device) Watch(f func(core.Connection)) func() { return d.e.watch.add(f) }

func (d *device) OnError(f func(error)) func() { return d.e.watch.addError(f) }

func isJSONObject(b []byte) bool {
	var m map[string]json.RawMessage
	return json.Unmarshal(b, &m) == nil && m != nil
}

// operation is something that a caller waits for.
type operation struct {
	name    string
	request *core.Request               // of twin operations
	begin   func(op core.Op) core.Event // of the others
	isRoute bool                        // it fails of what another route failed of
	reply   core.Reply
	once    sync.Once
	done    chan error
}

func (o *operation) finish(err error) { o.once.Do(func() { o.done <- err }) }

// operate puts an operation through the machine and waits for its end, or ctx's.
func (e *Engine) operate(ctx context.Context, o *operation) (core.Reply, error) {
	if err := ctxError(ctx); err != nil {
		return core.Reply{}, fmt.Errorf("%s: %w", o.name, err)
	}
	o.done = make(chan error, 1)
	var op core.Op
	wasPosted := e.inbox.run(func() core.Event {
		e.lastOp++
		op = e.lastOp
		e.ops[op] = o
		if o.request != nil {
			o.request.ID = uint64(op)
			return core.Requested{Op: op}
		}
		return o.begin(op)
	})
	if !wasPosted {
		return core.Reply{}, fmt.Errorf("%s: %w", o.name, core.ErrClosed)
	}
	var err error
	select {
	case err = <-o.done:
	case <-e.ended:
		select {
		case err = <-o.done:
		default:
			err = core.ErrClosed
		}
	case <-ctx.Done():
		err = ctxError(ctx)
		e.inbox.run(func() core.Event {
			delete(e.ops, op)
			return core.OpCancelled{Op: op}
		})
	}
	if err != nil {
		return core.Reply{}, fmt.Errorf("%s: %w", o.name, err)
	}
	return o.reply, replyError(o.name, o.reply)
}

func (e *Engine) ask(f core.Ask) {
	a := e.attempts[f.Epoch]
	if a == nil {
		return
	}
	r := core.Request{ID: uint64(f.Op), Kind: core.TwinGet}
	if o := e.ops[f.Op]; o != nil {
		r = *o.request
	}
	a.getSession().Request(r)
}

// replied runs on the engine's goroutine.
func (e *Engine) replied(epoch core.Epoch, r core.Reply) core.Event {
	ev := core.Replied{Epoch: epoch, Op: core.Op(r.ID), Status: r.Status}
	if ev.Op < core.CallerOp {
		if r.Status == 200 {
			var isTwin bool
			if ev.Version, ev.Changed, isTwin = e.desired.offer(r.Payload); !isTwin {
				ev.Status = 0
			}
		}
		return ev
	}
	if o := e.ops[ev.Op]; o != nil {
		o.reply = r
		if o.request.Kind == core.ReportedPatch && r.Status < 300 {
			e.reported = max(e.reported, r.Version)
		}
	}
	return ev
}

func (e *Engine) finish(f core.Finish) {
	if o := e.ops[f.Op]; o != nil {
		delete(e.ops, f.Op)
		s := e.m.Status()
		fault := s.Fault
		if o.isRoute {
			fault = s.ProbeFault
		}
		o.finish(outcomeError(f.Outcome, fault))
	}
}

// hubError is the body of the hub's twin errors.
//
// https://learn.microsoft.com/azure/iot-hub/troubleshoot-error-codes
type hubError struct {
	ErrorCode  int    `json:"errorCode"`
	TrackingID string `json:"trackingId"`
	Message    string `json:"message"`
}

// replyError makes an error of a reply with a status of 300 or more.
func replyError(op string, r core.Reply) error {
	if r.Status < 300 {
		return nil
	}
	e := &core.Error{Op: op, Kind: core.Refused, Status: r.Status, Err: core.ErrService}
	switch {
	case r.Status == 429:
		e.Kind = core.Throttled
	case r.Status >= 500:
		e.Kind = core.Transient
	case r.Status == 401 || r.Status == 403:
		e.Kind = core.Unauthorized
	}
	var body hubError
	if json.Unmarshal(r.Payload, &body) == nil && body.ErrorCode != 0 {
		e.TrackingID = body.TrackingID
		e.Err = fmt.Errorf("%w: status %d, error %d: %s", core.ErrService, r.Status, body.ErrorCode, body.Message)
	} else {
		e.Err = fmt.Errorf("%w: status %d", core.ErrService, r.Status)
	}
	return e
}
