// Package transporttest is the contract of core.Transport as a test, and a scripted hub to run it against.
//
// # Usage
//
//	func TestContract(t *testing.T) {
//		transporttest.Run(t, func(t *testing.T) transporttest.Harness {
//			hub := transporttest.NewFakeHub()
//			t.Cleanup(hub.Close)
//			return transporttest.Harness{Transport: …, Hub: hub}
//		})
//	}
//
// The harness is made anew for each part. Any hub with Hub's few switches will do: the same suite judges a transport
// against the FakeHub and against the embedded hub.
//
// # Concurrency
//
// FakeHub's methods may be called from any goroutine. Run's parts run one after another, since some count goroutines.
//
// # Expected behaviour of the other side
//
// The transport under test must not need a real clock: parts that are about waiting use short real time-outs, and poll
// conditions with a deadline.
//
// # Debugging
//
// FakeHub.Log and Received tell what reached the hub.
//
// # Testing
//
// The package is tested by its use in transports/mqtt.
package transporttest
