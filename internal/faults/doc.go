// Package faults proves the built program under faults, as a user would: real processes (the embedded hub, a runtime, its
// plugins) on loopback, with links cut, processes killed and stopped, tokens that end soon. On Linux, with root's rights, hub
// and runtime also get a network namespace each and a link between them, which then does what links do: it swallows, resets,
// loses, crawls.
//
// # Usage
//
// The tests take minutes, since an outage lasts as long as it lasts; they are behind a build tag:
//
//	go test -tags faults ./internal/faults
//	go test -tags faults -v -run Kill ./internal/faults
//
// -race-programs builds what they run with the race detector. With -v they print what they measured: gaps, times to
// recovery, duplicates.
//
// # Concurrency
//
// Each test has a hub, a runtime and directories of its own; tests run in parallel, most of them waiting.
//
// # Expected behaviour of the other side
//
// Everything goes through the command line, with --json where there is a choice, and through files: nothing here imports
// what it tests. The plugin is internal/faults/numbers: it sends consecutive numbers and writes down each that was
// accepted, so that a test can compare that list with what the hub has.
//
// The hub itself is killed too, under a load of all kinds of writes, by a small client of REST and MQTT that is made here;
// -hub-seed and -hub-kills choose the moments.
//
// # Debugging
//
// A failing test prints the logs of its hub and its runtime. -keep leaves the directories in place and says where they
// are.
//
// # Testing
//
// A check that has never failed may be blind: TestTheCheckOfNumbersSeesLossesAndDisorder feeds it lists that are wrong.
package faults
