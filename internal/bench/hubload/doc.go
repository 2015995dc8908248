// Package hubload measures the embedded hub beside mosquitto: telemetry in from 1, 100 and 1,000 connections, and the
// memory of connections that are idle. Nothing of it ships.
//
// # Usage
//
//	make bench-hub                                                       the figures, as a table in Markdown
//	go test -run TestFigures ./internal/bench/hubload -figures -v -rounds 3
//
// docs/benchmarks-hub.md has one run's table and says what the figures mean.
//
// # Concurrency
//
// The hub (the built program, with a directory), mosquitto, a sink and the generator are processes of their own. Their
// rounds alternate; who is not measured is idle. A Generator has two goroutines for each connection while it runs.
//
// # Expected behaviour of the other side
//
// Servers speak MQTT 3.1.1 over TLS 1.3 (https://docs.oasis-open.org/mqtt/mqtt/v3.1.1/os/mqtt-v3.1.1-os.html) and
// acknowledge in the order of what came, [MQTT-4.6.0-2]. The generator is no client library, and shares no code with one:
// a library would be slower than what it is to measure.
//
// # Debugging
//
// A failing run prints the logs of its processes.
//
// # Testing
//
// No test asserts a time. TestSmoke runs everything with small counts, and asserts that the hub has every message.
package hubload
