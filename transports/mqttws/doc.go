// Package mqttws carries the sessions of transports/mqtt through a WebSocket, on gorilla/websocket. It passes where only
// HTTPS does.
//
// # Usage
//
//	transport, err := mqttws.New(mqtt.Config{Identity: id, UserAgent: "fairlead/1.0"})
//	link, err := transport.Open(ctx, credential) // DNS, TCP, TLS, upgrade
//
// It is a dialer and no more: netdial opens the connection, gorilla upgrades it, and conn makes a stream of bytes of the
// messages. Above it all is transports/mqtt's, the guard included.
//
// # How it works
//
// gorilla gets a connection that is open and speaks TLS already, so that its own proxies, dialing and TLS never run.
// Version 1.5.3 does not look at the subprotocol that was chosen, turns compression on where the server says so unasked,
// reads an answer to the upgrade without a limit, cannot be cancelled during it, panics where two goroutines write or where
// a failed connection is read on, and lets its reader wait for the answer to a ping. The handshake (dial.go), wire and conn
// turn each of these into a typed error or into nothing; pitfalls_test.go shows each with and without them.
//
// What the session writes at once is one frame, and one TLS record. What has come is read at once, however many messages
// it stands in: a hub may put each PUBACK into a message of its own.
//
// # Concurrency
//
// A connection has one goroutine, the heartbeat: it answers pings, and pings where nothing was written for 30 s, since
// proxies cut a tunnel that is idle for a minute. Everything else runs in who calls.
//
// # Expected behaviour of the other side
//
// The hub answers 101 with the subprotocol mqtt, and speaks in binary messages whose bounds mean nothing. An orderly end
// is a close frame of 1000 or 1001, or a bare close between two messages.
//
// # Debugging
//
// Errors of the upgrade have the phase "websocket", and the HTTP status if there was one.
//
// # Testing
//
// The contract suite runs against transporttest.FakeHub behind gorilla's server, and against the embedded hub.
package mqttws
