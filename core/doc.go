// Package core is the device as a pure machine: it decides everything and does nothing.
//
// The device needs certain things to be true: a session, subscriptions, the twin's desired state, running plugins, the
// acknowledgement of what the outbox holds, an answer to each call. A loss makes some of them untrue. The machine asks
// for what is missing, when it may. Connecting, retrying, renewing, resubscribing and catching up are not procedures
// here; they follow.
//
// # Usage
//
//	m := core.New(cfg, rng)
//	for {
//		for _, effect := range m.Step(now, event) { … carry it out … }
//		at, ok := m.Deadline() // step with Ticked then
//	}
//
// Events (events.go) are facts in the past tense, effects (effects.go) are orders in the imperative; each has a stable
// line as its String. Each effect with a number gets the events that its comment names; an event with a number that is
// over changes nothing. Package core/engine is this loop. ports.go holds the interfaces of everything around it,
// which know the core and not each other.
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
// now; read the difference as code. docs/architecture.md tells the whole story.
package core
