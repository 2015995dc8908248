// Package sas makes and checks shared access signatures, the hub's own way: it
// shares no code with the device side.
//
// # Usage
//
// Parse the text, then ask the Token: SignedBy a key, Covers a resource, Expiry.
//
// # Concurrency
//
// Pure functions.
//
// # Expected behaviour of the other side
//
// Clients encode sr each in their own way, sign what they wrote, and order the
// fields as they like:
// https://learn.microsoft.com/azure/iot-hub/iot-hub-dev-guide-sas
//
// # Debugging
//
// Errors name the field and never contain the token.
//
// # Testing
//
// A table of the encodings that clients use.
package sas
