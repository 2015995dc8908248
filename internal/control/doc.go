// Package control is the local door of a running runtime: HTTP over a unix socket, for the commands status, events,
// connect, disconnect, send and twin.
//
// # Usage
//
// The runtime serves a Backend with Serve; the commands use a Client. The socket lies in the runtime's state directory,
// which only its user may enter (mode 0700), and has mode 0600 itself: whoever can open it may do what the user could.
//
// # Concurrency
//
// A Client may be used from any goroutine. Requests end when their context does, on both sides.
//
// # Expected behaviour
//
// Answers are JSON. An error is {"error": text, "kind": name} with a status of 400 (the input), 409 (the state of the
// connection), 502 (the hub said no), 504 (time) or 500.
//
// # Debugging
//
//	curl --unix-socket /var/lib/fairlead/fairlead.sock http://fairlead/v1/status
//
// # Testing
//
// The tests serve a fake Backend on a socket in a temporary directory.
package control
