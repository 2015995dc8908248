package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/fairlead-iot/fairlead/core"
)

// call is what the engine keeps of something inbound until the machine discards it.
type call struct {
	in      core.Inbound
	session core.Session // whose token it is; nil for one whose session was not up yet
	epoch   core.Epoch
	answer  core.Answer
	plugin  string
	cancel  context.CancelFunc
	came    time.Time
}

// DeadLetter is a message that no plugin took. The hub has been told that it is done, since over MQTT a message that
// is not would hold up all later ones.
type DeadLetter struct {
	Time    time.Time     `json:"time"`
	Reason  string        `json:"reason"`
	Message *core.Message `json:"message"`
}

// deadLettersKept bounds the dead letters kept in memory.
const deadLettersKept = 100

// received runs on the engine's goroutine.
func (e *Engine) received(a *attempt, in core.Inbound) core.Event {
	if in.Kind == core.InboundDesired {
		e.desired.push(in.Version, in.Payload)
		return core.DesiredChanged{Epoch: a.epoch, Version: in.Version}
	}
	e.lastCall++
	e.calls[e.lastCall] = &call{in: in, epoch: a.epoch, session: a.getSession(), came: time.Now()}
	if in.Kind == core.InboundMethod {
		return core.MethodCalled{Epoch: a.epoch, Call: e.lastCall, Name: in.Method}
	}
	return core.MessageReceived{
		Epoch: a.epoch, Call: e.lastCall, ID: in.Message.ID, Redelivered: in.Redelivered, Properties: in.Message.Properties,
	}
}

func (e *Engine) deliver(f core.Deliver) {
	c := e.calls[f.Call]
	p := e.plugins[f.Plugin]
	d := core.Delivery{Kind: c.in.Kind, Method: c.in.Method, Payload: c.in.Payload, Message: c.in.Message}
	c.plugin = p.cfg.Name
	e.handle(p, f.Start, f.Call, c, d)
}

// handle carries a call to a plugin and posts what it returns.
func (e *Engine) handle(p *pluginSlot, start core.Start, id core.Call, c *call, d core.Delivery) {
	ctx, cancel := context.WithCancel(p.ctx)
	c.cancel = cancel
	target := p.plugin
	p.active++
	e.background(func() {
		defer cancel()
		answer, err := target.Handle(ctx, d)
		e.inbox.run(func() core.Event {
			p.active--
			if p.active == 0 && p.exited != nil {
				e.inbox.post(p.exited) // after what is returned here
				p.exited = nil
			}
			c.answer = answer
			if id >= core.DesiredCall {
				delete(e.calls, id)
			}
			if err != nil && !errors.Is(err, context.Canceled) {
				e.log.Warn("plugin did not carry a call through", "plugin", p.cfg.Name, "error", err)
			}
			return core.Returned{Plugin: p.index, Start: start, Call: id, Verdict: answer.Verdict, Failed: err != nil}
		})
	})
}

func (e *Engine) abort(id core.Call) {
	if c := e.calls[id]; c != nil && c.cancel != nil {
		c.cancel()
	}
}

func (e *Engine) respond(f core.Respond) {
	c, a := e.calls[f.Call], e.attempts[f.Epoch]
	if c == nil || a == nil {
		return
	}
	r := core.MethodResponse{RequestID: c.in.RequestID, Status: c.answer.Status, Payload: c.answer.Payload}
	if f.Status != 0 {
		r.Status, r.Payload = f.Status, ownAnswer(f.Status, c)
	} else if n := len(r.Payload); n > core.MaxMethodPayload || n > 0 && !json.Valid(r.Payload) {
		// The hub would close the session over it, and over its repetition in the next one.
		r.Status, r.Payload = 500, ownAnswer(500, c)
	}
	s := a.getSession()
	e.begin(a, func(ctx context.Context) core.Event {
		ctx, cancel := context.WithTimeout(ctx, respondTimeout)
		defer cancel()
		err := s.Respond(ctx, r)
		if err != nil && isOver(s) {
			return nil
		}
		return core.Responded{Epoch: f.Epoch, Call: f.Call, Failed: err != nil}
	})
}

// ownAnswer is the JSON reason of an answer that the runtime gives in a plugin's place.
func ownAnswer(status int, c *call) []byte {
	reason := "the runtime could not carry out the call"
	switch {
	case status == 500:
		reason = fmt.Sprintf("plugin %q gave an answer that cannot be sent: %d bytes, at most %d of JSON", c.plugin, len(c.answer.Payload), core.MaxMethodPayload)
	case status == 404:
		reason = fmt.Sprintf("no plugin handles the method %q", c.in.Method)
	case status == 429:
		reason = "too many method calls are open"
	case status == 503 && c.plugin == "":
		reason = "the plugin that handles the method is not running"
	case status == 503:
		reason = fmt.Sprintf("plugin %q stopped during the call; how far it came is not known", c.plugin)
	case status == 504 && c.plugin == "":
		reason = "the plugin that handles the method did not start in time"
	case status == 504:
		reason = fmt.Sprintf("plugin %q gave no answer in time", c.plugin)
	}
	body, _ := json.Marshal(map[string]string{"error": reason}) // strings always marshal
	return body
}

func (e *Engine) acknowledge(f core.Acknowledge) {
	c, a := e.calls[f.Call], e.attempts[f.Epoch]
	if c == nil || a == nil || c.epoch != f.Epoch {
		return
	}
	if s := a.getSession(); s != nil {
		s.Complete(c.in.Token)
	}
}

func (e *Engine) bury(ctx context.Context, f core.Bury) {
	c := e.calls[f.Call]
	if c == nil {
		return
	}
	e.log.ErrorContext(ctx, "message became a dead letter", "message_id", c.in.Message.ID, "reason", f.Reason, "size", len(c.in.Message.Payload))
	if len(e.deadLetters) >= deadLettersKept {
		e.deadLetters = append(e.deadLetters[:0], e.deadLetters[1:]...)
	}
	e.deadLetters = append(e.deadLetters, DeadLetter{Time: time.Now(), Reason: f.Reason, Message: c.in.Message})
}
