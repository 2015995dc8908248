// Package bench measures the product beside a peer: stock paho in one process, without a runtime. Nothing of it ships.
//
// # Usage
//
//	make bench                                                       the figures, as a table in Markdown
//	go test -run TestFigures ./internal/bench -figures -v -rounds 3  fewer rounds
//	go test -run TestProfile ./internal/bench -profile DIR -v        CPU profiles of runtime, plugin and peer; -size, -rate
//
// docs/benchmarks.md has one run's table and says what the figures mean.
//
// # Concurrency
//
// The hub, the runtime, its plugin and the peer are processes of their own and live through the whole run; the rounds of
// the two sides alternate, so that what drifts on this machine drifts for both. Who is not measured is idle. CPU time is
// read from the clocks of the measured processes before and after a round: the hub and the measuring process do not count.
//
// # Expected behaviour of the other side
//
// The runtime is the built command with a configuration file; its plugin is internal/bench/plugin, the peer
// internal/bench/peer. Both send what package load makes. The hub is the embedded one, in a process that this test starts
// of itself, which times direct methods from within.
//
// # Debugging
//
// A failing run prints the logs of its processes.
//
// # Testing
//
// No test asserts a time. TestSmoke runs everything with small counts, so that the benchmark itself cannot rot.
package bench
