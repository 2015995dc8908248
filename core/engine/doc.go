// Package engine is the loop around core.Machine: one goroutine, one inbox, one timer. It carries out the machine's
// orders through the ports of package core, and tells it what happens. It decides nothing.
//
// # Usage
//
//	e, err := engine.New(engine.Config{…})
//	go func() { result <- e.Run(ctx) }() // ctx's end asks for an orderly shutdown
//	d := e.Device(0)                      // what a plugin may ask, for this process itself
//
// Package device wraps it for programs.
//
// # Concurrency
//
// Run's goroutine owns the machine and everything else in Engine below the mark. Others reach it through the inbox:
// with an event, or with a function that runs on that goroutine and may return one. Whatever blocks has a goroutine of
// its own, bounded by a context, which posts exactly one event at its end; Run waits for all of them. The outbox and the
// watchers have locks of their own: a sender must not wait for the loop, nor the loop for a watcher. Watchers may call
// back, even wait for Run's end; the last state may reach them a moment after it.
//
// Neighbours in the inbox that mean the same as one are merged, so that batches grow with the load.
//
// # Expected behaviour of the other side
//
// The ports' comments in core/ports.go say what is expected of transports, credential sources and launchers. An engine
// bounds the time of each call of theirs (the constants in engine.go), and trusts them to end when their context does.
//
// # Debugging
//
// Trace holds the last events and orders, the flow of messages aside; `fairlead events` shows it. At level debug the
// logger gets every line.
//
// # Testing
//
// In testing/synctest bubbles against core/coretest's fakes, for timing and lifecycle, here and through package device;
// there also against the real transport and the embedded hub, for the whole.
package engine
