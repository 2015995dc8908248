// Package core is the device as a pure machine: it decides everything and does nothing.
//
// The device needs certain things to be true: a session, subscriptions, the twin's desired state, running plugins, the
// acknowledgement of what the outbox holds, an answer to each call. A loss makes some of them untrue. The machine asks
// for what is missing, when it may. Connecting, retrying, renewing, resubscribing and catching up are not procedures
// here; they follow.
//
// # The loop, in order
//
// Whoever drives a Machine does these things, in this order, for ever:
//
//  1. Wait for a fact: something that a port reports, something that a caller wants, or the Deadline, which is told as
//     Ticked. Facts are taken one at a time, in the order in which they came. Those of one session must keep the order of
//     the wire, since a twin's patch means something else before the answer to the get than after it.
//  2. Step(now, fact). First the fact changes what the machine knows, and only that: an event carries the number of
//     what it completes (epoch, start, call, operation), and one whose number is over finds nothing to change. So late,
//     doubled and reordered news need no special care anywhere.
//  3. Then the machine plans, whatever the fact was: each need that is unmet, not asked for, and not to be left alone
//     until later, is asked for. The plan never remembers why it is run, which is why no path can be forgotten: a
//     subscription is restored after a renewal, a loss or a refusal by the same lines. Planning is repeated until it
//     finds nothing more to do, so that stepping twice at one moment does nothing twice.
//  4. Carry out the orders, in their order, without stepping in between. Each leaves nothing to choose. What may block is
//     begun here and reported later, as a fact. Resolve comes before Forget: callers are told before the message is gone.
//  5. Ask for the Deadline again: it is the earliest moment at which the plan wants to look again, and always in the
//     future. A tick that comes late is as good; a tick too many changes nothing.
//
// After Stop comes nothing more. Every caller has been told by then.
//
// # Usage
//
//	m := core.New(cfg, rng)
//	for !stopped {
//		event := <-inbox // or Ticked, when the Deadline has come
//		for _, effect := range m.Step(now(), event) {
//			execute(effect)
//		}
//		at, ok := m.Deadline()
//		setTimer(at, ok)
//	}
//
// Events (events.go) are facts in the past tense, effects (effects.go) are orders in the imperative; each has a stable
// line as its String. Package core/engine is this loop. ports.go holds the interfaces of everything around it, which
// know the core and not each other.
//
// # Concurrency
//
// A Machine has one caller. It starts no goroutine, reads no clock, and imports neither net, os, sync nor a log;
// internal/archtest sees to that. Time is the argument now, which must not go back.
//
// # Expected behaviour of the other side
//
// None is relied on. Plugins may answer late or twice, a session may acknowledge what was not sent: what does not fit
// the facts is ignored, or ends the session.
//
// # Debugging
//
// Copy the events of a trace (fairlead events) into a transcript and step through Machine.Step: the same events always
// give the same effects. Machine.Status is all that it knows of itself.
//
// # Testing
//
// Each rule is a transcript in testdata, to be read aloud. `go test ./core -rewrite` writes down what the machine does
// now; read the difference as code. FuzzStep plays a world that may do anything against the machine and checks each
// order: `go test -fuzz FuzzStep ./core`. docs/architecture.md tells the whole story.
package core
