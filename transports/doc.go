// Package transports holds no code. It says what a transport is, and what it is not.
//
// # Usage
//
// A transport implements core.Transport: it opens one connection, makes one session on it, and reports what happens.
// Each lives in a package of its own: mqtt (MQTT 3.1.1 in TLS), mqttws (the same through a WebSocket: a dialer only), http.
// netdial opens the connections of all of them. A new one passes transporttest.Run and is named in device, nowhere else.
//
// # What belongs to the core and never to a transport
//
//   - Reconnecting, retrying, backing off. A session dies once and stays dead; who wants another dials another.
//   - Renewing credentials. A credential is an argument, used once.
//   - Choosing the route. A transport says "this way is blocked" (core.Blocked), no more.
//   - Remembering messages. What was sent and not acknowledged is forgotten with the session; the outbox has it.
//   - Limits of time for requests, method calls, messages. A session answers, or it ends.
//   - Resubscribing, twin synchronisation, deciding what a desired version means.
//   - What a loss means to the user: states, health, conflicts over an identity.
//
// # What belongs to a transport alone
//
//   - The wire: topics, property bags, status codes, packet ids; facts of the hub, with their sources.
//   - The kind of an error, by tables of CONNACK codes and TLS and network errors. Nobody else reads a code.
//   - Bounds on every single step: a peer that is silent, slow, or breaks the protocol ends the session in known time,
//     with a typed cause, and can neither crash the process nor make it allocate without limit.
//   - Order: acknowledgements are prefixes of a lane, replies and pushes reach the handler in the order of the wire, the
//     acknowledgements of messages leave in the order of their arrival.
//   - Saying what it cannot do. Over MQTT a message can only be completed; a session never fakes more.
//
// # Concurrency
//
// A session's methods may be called from any goroutine, and none waits for the network unless its context bounds it.
// The handler's functions are called one at a time and must not block, nor wait for the session (Close) within. Done is
// closed after the last of them has returned.
//
// # Expected behaviour of the other side
//
// Any. The peer may be a hub, a middlebox, a stranger; everything from it is checked before a library sees it. The core
// may call anything at any time, on dead sessions too.
//
// # Debugging
//
// Every error names its phase (dns, tcp, proxy, tls, websocket, mqtt) and what was attempted. `fairlead doctor` walks the
// phases one by one.
//
// # Testing
//
// transporttest.Run is the contract as a test; transporttest.FakeHub a scripted hub for what a real one seldom does.
package transports
