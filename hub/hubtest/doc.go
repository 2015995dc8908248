// Package hubtest starts an embedded IoT Hub for a test, in one line and without
// an Azure account. It is for anyone who writes a client of IoT Hub in Go, a
// device's or a service's: the client needs nothing of ours, it connects as it
// does to Azure.
//
// # Usage
//
//	func TestMyClient(t *testing.T) {
//		h := hubtest.Start(t)      // random loopback ports; it ends with the test
//		d := h.NewDevice("dev1")   // registered: d.ConnectionString, d.TLSConfig() …
//		rec := h.Record()          // what the hub sees from now on
//
//		… start your client with d.ConnectionString, trusting h.CAPEM() …
//
//		m := h.WaitTelemetry("dev1", func(m api.Message) bool { return string(m.Body) == "hello" })
//		h.Fault(api.Fault{Name: api.FaultCut, Device: "dev1", Count: 2}) // it has to come back by itself
//		rec.Wait("dev1", api.SawConnected)
//	}
//
// The device's view is Device: what a client needs, and what the hub has of it.
// NewCertificateDevice makes one with X.509. The service's view is Hub.Service, a
// client through the wire, and the methods of hub.Hub, which do the same without
// one. Faults are listed in package api; Recorder keeps what happened, in order.
//
// Start listens on random loopback ports; StartPipe listens nowhere and gives a
// DialContext instead, so that hub and device fit into one testing/synctest
// bubble, where hours of reconnecting and token renewal take no time. WithDir
// keeps the state for a hub that is started again; WithConfig decides what
// Microsoft's documents leave open (hub.Unsettled), so that a client can be held
// to either answer.
//
// A device that provisions itself needs an enrollment; a CA issues certificates:
//
//	e := h.AddEnrollment(api.Enrollment{RegistrationID: "dev1"})
//	… register with h.IDScope() and e.Attestation.SymmetricKey.PrimaryKey …
//
// A device uploads to the hub itself, unless WithConfig names a storage account:
//
//	n := h.WaitUpload("dev1", nil) // and h.ReadFile gives what was uploaded
//
// # Concurrency
//
// A Hub, a Device and a Recorder may be used by several goroutines. Methods that
// end the test with Fatal belong to the test's own goroutine.
//
// # Expected behaviour of the other side
//
// As package hub. It models IoT Hub's rules and refusals, not its throttling,
// quotas, latency or partitions, other than by a fault.
//
// # Debugging
//
// WithLog writes the hub's log to the test's. A recorder's wait that fails
// says what the hub saw instead.
//
// # Testing
//
// The hub's own tests use it, and its examples run.
package hubtest
