// Package host starts plugins, watches them, and carries calls and messages between them and the device.
//
// # Usage
//
//	l := host.New(host.Config{Name: "press", Command: []string{"/usr/lib/acme/press"}, Logger: log})
//	p, err := l.Launch(ctx, device) // returns when the plugin is ready for calls
//	answer, err := p.Handle(ctx, delivery)
//	<-p.Done()                      // p.Err() says why
//
// A launcher starts one configured plugin, as often as it is asked to; each start is a core.Plugin that lives once. The
// caller decides on restarts. Errors are *core.Error: kind Fatal where only an edit of the configuration or of the file
// can help, Transient otherwise, and the text says what is wrong and what to do.
//
// # Concurrency
//
// Everything exported may be called from any goroutine. Each start has a goroutine that reads the stream and never waits
// for the device, one that writes and is alone in waiting for the plugin, one that submits messages and is alone in
// waiting for the outbox, one for the heartbeat, one per open request of the plugin, one per pipe, and one locked to the
// thread that started the process. All have ended when Done is closed.
//
// # Expected behaviour of the other side
//
// None: a plugin may be of any quality. It may stop, hang, exit, print, fork, flood, lie about its tags and overstep its
// credit; the tests have one of each. Of the device it is expected that each call ends with its context, and that Watch,
// OnError and Settled do not block.
//
// # Debugging
//
// What a plugin writes on stderr and what it logs come out of Config.Logger under the attribute plugin, cut to 4 KiB a
// line and 50 lines a second; the last lines are also in the error that tells of its end. FAIRLEAD_PLUGIN=ahoy-1 in the
// environment lets a plugin be started by hand up to its handshake line.
//
// # Testing
//
// Attach and AttachConn speak to a plugin over any connection, without a process; package sdktest builds on the latter.
// The tests of this package start their own binary again in the role of good and bad plugins, of both versions of the
// protocol.
package host
