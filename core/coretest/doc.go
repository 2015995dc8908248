// Package coretest holds what tests of the machine, the engine and the device client share: the transcript runner and
// fakes of the ports.
//
// # Usage
//
// A rule of the machine is told as a transcript: a file in core/testdata with events, and under each the orders that
// follow. RunTranscripts plays all files and compares to the letter; `go test ./core -rewrite` writes down what the
// machine does now. To add one, write the prose and the events, rewrite, and read the result as critically as code: a
// transcript that was only rewritten proves nothing.
//
//	# A lost session is made again at once; what was not acknowledged is sent again.
//	started
//	…
//	submitted lane=0 upto=2 bytes=20
//	  → send epoch=1 lane=0 from=1 to=2
//	lost epoch=1 reason=reset
//	  → fetch-credential epoch=2
//
// Hub is a hub behind the fake ports, for tests of timing and lifecycle in testing/synctest bubbles:
//
//	hub := coretest.NewHub()
//	cfg.Credentials, cfg.Transports = hub, []core.Transport{hub}
//	hub.Refuse(err, err, nil) // the next opens
//	hub.Lose(err)             // the session, now
//
// # Concurrency
//
// All methods of Hub may be called from any goroutine. A session's reports come from a goroutine of its own, one at a
// time, as the contract of core.Handler says.
//
// # Expected behaviour of the other side
//
// Hub stands in for a transport that keeps the contract; it checks nothing. What a transport must keep is in
// transports/transporttest, what a hub really does in package hub.
//
// # Debugging
//
// Play gives a transcript as text, for a machine under suspicion: paste the events of a trace (fairlead events) and read.
//
// # Testing
//
// The transcripts test the runner as it tests them: a line that does not parse fails.
package coretest
