// Package sim is a deterministic world for core.Machine: a network, a hub, plugins and callers in virtual time, in which
// everything goes wrong that can, and oracles that watch what they see.
//
// # Usage
//
//	r := sim.Run(sim.Draw(seed))
//
// Draw makes a world from a seed: which faults there are and how often (Faults names them), how long tokens last, how much
// traffic there is. Run plays it: two hours of faults; a healed phase of HealTime, after which nothing may be left; some
// work, to see that everything works; a shutdown. A promise that is broken ends the story with a Violation.
//
// # Concurrency
//
// Run has one goroutine, reads no clock and keeps nothing: several worlds may run beside each other. Seed and commit are
// the whole story.
//
// # Expected behaviour of the other side
//
// The hub of this package is stricter than IoT Hub: it cuts a session the moment its token ends, takes the messages of a
// lane in order only, allows one session. It keeps or forgets subscriptions, hands a cloud-to-device message out until it
// is acknowledged, and has a twin whose versions rise until the twin is created anew. Packets of one connection keep their
// order. The store holds a number of messages for each lane, and lets its callers wait when it is full. What is not
// modelled: payloads and their JSON, quotas, HTTPS, the disk (the store is memory, as the machine sees no more of it than
// numbers), several processes (a crash of the runtime).
//
// The device's wall clock may be wrong and may jump. The machine does not read it, and has no event for it; what reaches
// it is what the credentials make of it. The hub takes a token for expired at once, or ends it long before or after its
// life as the device counts it. In half of the worlds somebody notices a jump and says so, as CredentialChanged.
//
// The engine's part is modelled as it is documented: an attempt ends with one of Closed, Lost and the failures; news of
// different goroutines may pass each other by some milliseconds. Beyond that events are doubled, and events of earlier
// epochs and starts are told again, which the engine would not do.
//
// # Debugging
//
// A failure prints its seed, the commit and the end of the transcript. `go test ./internal/sim -run TestSeeds -sim.seed=N`
// prints it whole, in the words of core/testdata; with -sim.bug=NAME it plants one of bugs_test.go. To make it a transcript
// of core, cut it down to what matters; waits have to be read anew, since jitter is left out there.
//
// # Testing
//
// The simulator is tested by planted bugs (bugs_test.go): each changes events or effects at the machine's boundary, and
// has to be found within a bounded number of seeds, by the promise that it breaks. Add one with each new oracle.
// `go test ./internal/sim -run TestSeeds -timeout 3h -sim.seeds=100000` plays more worlds than the usual 2000. Worth as
// much is to break lines of core and see whether a promise notices.
package sim
