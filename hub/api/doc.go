// Package api holds the plain values of the hub's service side: identities,
// twins, method calls, messages, faults, counters, and errors.
//
// # Usage
//
// The hub's Go methods, its REST front and the client in hub/service all speak
// these types; their JSON forms are those of IoT Hub's REST API where it has one
// (https://learn.microsoft.com/rest/api/iothub/) and our own below /fairlead.
//
// # Concurrency
//
// Values, without behaviour that needs care.
//
// # Expected behaviour of the other side
//
// A real hub sends more fields than are named here; they are ignored.
//
// # Debugging
//
// Every refusal is an *Error with IoT Hub's number, name and HTTP status.
//
// # Testing
//
// Tested through the hub and its client.
package api
