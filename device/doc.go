// Package device is the Go client of one device, or one module, at an IoT hub: core, engine and ports put together.
//
// # Usage
//
//	cfg := device.DefaultConfig()
//	cfg.Identity, cfg.Credentials, cfg.Transports = identity, source, []core.Transport{transport}
//	c, err := device.New(cfg)
//	c.HandleMethod("reboot", reboot)
//	err = c.Send(ctx, &device.Message{Payload: []byte("hello")}) // connects by itself
//	err = c.Shutdown(ctx)
//
// credentials.ParseConnectionString and NewSharedKey give the first two, transports/mqtt.New the third. Config.Plugins
// are plugins in processes of their own; the handlers set here are one more plugin, within this process.
//
// # Concurrency
//
// All methods may be called from any goroutine, handlers included. Handlers of methods run at once with others; those of
// messages and of desired properties one at a time, in order. New starts goroutines; Shutdown ends them all.
//
// # Expected behaviour
//
// Send returns nil once the hub has the message. What ends first, the operation or its context, decides: a message whose
// context ended is withdrawn and will not be sent later. Errors wrap the sentinels of package core; what happens in the
// background is told to OnConnection and OnBackgroundError. A handler that panics has failed that call only.
//
// # Debugging
//
// Connection says how things stand and why; Engine().Trace what happened before. Config.Logger at level debug shows all.
//
// # Testing
//
// client_test.go uses core/coretest's fakes, hub_test.go the real transport and the embedded hub; both in virtual time.
// For tests of your own, hub/hubtest is the hub.
package device
