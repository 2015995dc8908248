// Package mqtt carries a device's session over MQTT 3.1.1, on eclipse/paho.mqtt.golang.
//
// # Usage
//
//	transport, err := mqtt.New(mqtt.Config{Identity: id, UserAgent: "fairlead/1.0"})
//	link, err := transport.Open(ctx, credential)           // DNS, TCP, TLS
//	session, err := link.Connect(ctx, credential, handler) // CONNECT … CONNACK
//
// Config.Open puts another connection under the same session: transports/mqttws is a dialer and nothing more.
//
// # How it works
//
// paho is used as a plain single session: one client per session, no reconnecting, no store, one topic per SUBSCRIBE, and
// a net.Conn that is ours, the guard. It connects, subscribes, pings and takes inbound packets apart. What the session
// publishes goes past it, straight into the guard's buffer, with packet ids of its own (publish.go, acks.go): paho's way
// costs more than all the rest together. Version 1.5.1 of paho takes a CONNACK code it does not know for success, ends the
// process over a malformed SUBACK, allocates what a length field says, writes without a deadline, and may never complete
// a token after a loss. The guard (guard.go, filter.go) turns each of these into the end of the session, with a typed
// cause, in known time; pitfalls_test.go shows each with and without it. A token counts only when it is complete without an
// error.
//
// The guard also reads and writes many packets per call. The publisher puts together what is queued, yields once, and
// writes what has gathered by then; the PUBACKs of one read are reported as one.
//
// # Concurrency
//
// One goroutine, the publisher, publishes and makes every call of paho that writes; the session's methods only queue.
// paho's router calls the handler for what arrives, and paho's reader, in the guard's Read, reports acknowledgements; a
// mutex makes that one at a time. supervise ends the session after its connection: what had arrived by then is still
// delivered, for at most 250 ms.
//
// # Expected behaviour of the other side
//
// The hub answers PUBLISH with PUBACK in order, drops an older session of the same identity with a bare close, and keeps
// subscriptions over a reconnect (clean session 0); sessions subscribe anew all the same. It never sends QoS 2, nor more
// than 512 KiB in a packet. $rid of twin requests is unique beyond the session, because an answer that was kept for an
// earlier one must not be taken for this one's.
//
// # Debugging
//
// Config.Logger at debug level names every inbound packet that was dropped. With TLS in between, the embedded hub's
// (`fairlead hub serve`) own log shows the packets.
//
// # Testing
//
// Tests run the real paho over net.Pipe in testing/synctest bubbles, against transporttest.FakeHub or raw bytes.
// Benchmarks: `go test -bench . ./transports/mqtt`.
package mqtt
