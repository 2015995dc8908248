// Package sdktest tests a plugin without a process, a runtime or a hub.
//
// # Usage
//
//	func TestSetPoint(t *testing.T) {
//		h := sdktest.Start(t, thermostat.New(), sdktest.Config{Settings: map[string]string{"interval": "1ms"}})
//		if status, answer := h.Method("setPoint", 25); status != 200 {
//			t.Errorf("%d %s", status, answer)
//		}
//		last := h.WaitSent(3)[2]
//		...
//	}
//
// The plugin speaks through the very stream that it has in a runtime, to the very host, over a connection in memory; only
// the Device behind is a fake, whose comment says what it models. The plugin is closed with the test.
//
// # Concurrency
//
// A Harness is for the test's goroutine, except for Handle, Done, Err, Logs and its Device, which may be used from any.
// Every wait is bounded, and ends the test with the plugin's log when the bound is reached.
//
// # Expected behaviour of the other side
//
// The plugin's loop must return when its context ends; Close says so if it does not.
//
// # Debugging
//
// Harness.Logs has what the plugin has logged, at every level.
//
// # Testing
//
// Faults: Device.Full (the outbox takes nothing), Hold (nothing is settled), FailSends, FailReports, SetConnection,
// BackgroundError; Harness.Handle with a context that ends; CloseWithin with a short one.
package sdktest
