// Package hubtest starts an embedded IoT Hub for a test.
//
// # Usage
//
// Start listens on random loopback ports; StartPipe listens nowhere and gives a
// DialContext instead, so that hub and device fit into one testing/synctest
// bubble with virtual time.
//
//	h := hubtest.Start(t)
//	text := h.AddDevice("dev1") // its connection string
//	… connect to h.MQTTAddr(), trusting h.CAPool() …
//	m := h.WaitTelemetry("dev1", func(m api.Message) bool { return string(m.Body) == "hello" })
//	n := h.WaitUpload("dev1", nil) // and h.ReadFile gives what was uploaded
//
// # Concurrency
//
// A Hub may be used by several goroutines. Methods that end the test with Fatal
// belong to the test's own goroutine.
//
// # Expected behaviour of the other side
//
// As package hub. It models IoT Hub's rules and refusals, not its throttling,
// quotas, latency or partitions.
//
// # Debugging
//
// WithLog writes the hub's log to the test's.
//
// # Testing
//
// The hub's own tests use it.
package hubtest
