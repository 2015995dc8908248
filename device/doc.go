// Package device is the device SDK for Azure IoT Hub in Go: one Client is one device, or one module of a device, that
// stays connected whatever the network does.
//
// It has what Microsoft's device clients for other languages have, under the names that they use where Go has no better:
// docs/parity.md sets it beside the Python client, row by row.
//
// # Usage
//
//	c, err := device.FromConnectionString(os.Getenv("DEVICE_CS"))
//	...
//	defer c.Shutdown(ctx)
//	c.HandleMethod("reboot", reboot)                               // direct methods
//	c.HandleMessages(print)                                        // cloud-to-device messages
//	c.HandleDesired(apply)                                         // desired properties
//	err = c.Send(ctx, &device.Message{Payload: []byte("21.5")})    // telemetry; connects by itself
//	version, err := c.PatchReported(ctx, map[string]any{"fw": 3})  // reported properties
//
// The examples are whole programs. What arrives can be handled in two ways, chosen for each kind: by a function (Handle…),
// or in a loop of the program's own (Messages, MethodRequests, DesiredChanges). A method may be answered later and from
// elsewhere: HandleMethodRequests and MethodRequest.Respond.
//
// A module is made like a device, of its own connection string: Message.Output names the output of what it sends,
// Message.Input the input of what it gets.
//
// A certificate makes a client by FromX509, a token that somebody else signed by FromSASToken, IoT Edge's environment by
// FromEdgeEnvironment; Provision says which hub a device belongs to.
//
// For another way of proving the identity, another route to the hub, or plugins in processes of their own, New takes the
// parts: a CredentialSource, transports, engine.Plugin. The handlers set here are one more plugin, within this process.
//
// # Errors
//
// Operations return errors that wrap one of the sentinels (ErrTimeout, ErrNotConnected …), for errors.Is, and where the
// network or the hub is behind it an *Error, for errors.As, with its kind, the hub's status, the wait that the hub asked
// for, and the hub's tracking id:
//
//	if e, ok := errors.AsType[*device.Error](err); ok && e.Kind == device.Throttled {
//		wait(e.RetryAfter)
//	}
//
// An operation goes on over lost sessions until its context ends, as long as ConnectionRetry is on. So give each a context
// with a deadline. What happens in the background is told to OnConnection and OnBackgroundError.
//
// # Concurrency
//
// All methods may be called from any goroutine, handlers included. Handlers of methods run at once with others; those of
// messages and of desired properties one at a time, in order. New starts goroutines; Shutdown ends them all.
//
// # Expected behaviour
//
// Send returns nil once the hub has the message. What ends first, the operation or its context, decides: a message whose
// context ended is withdrawn and will not be sent later. A message that was under way when its session was lost is sent
// again, under the same id: it may arrive twice, and never after a later one. A handler that panics has failed that call
// only. A cloud-to-device message is acknowledged when its handler has returned, not before. The hub
// drops the older of two clients with one identity; the one that was dropped again and again then waits for minutes, says
// so in Connection, and goes on trying.
//
// # Debugging
//
// Connection says how things stand and why; Engine().Trace what happened before. Options.Logger at level debug shows all but
// payloads and secrets.
//
// # Testing
//
// client_test.go uses core/coretest's fakes, hub_test.go the real transport and the embedded hub; both in virtual time.
// For tests of your own, hub/hubtest is the hub: the examples show it.
package device
