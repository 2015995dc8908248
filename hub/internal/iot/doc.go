// Package iot is what the hub does: identities, authentication, twins, direct
// methods, messages both ways, sessions, faults. It knows no wire format; the
// fronts (MQTT, REST, and later others) translate.
//
// # Usage
//
// Open makes a Service. A device front authenticates with AuthenticateDevice,
// attaches a Link, and then speaks through the Session; a service front
// authenticates with AuthenticateService and calls the Service's methods.
//
// # Concurrency
//
// One mutex guards all state; it is never held while a network is written to or
// a caller waited for. It is held for the write(2) of a change to the journal.
// Link methods are called under it: they queue and return, and never call back.
//
// # Expected behaviour of the other side
//
// A front calls Session.End exactly once; whatever it does with a session that
// was taken over changes nothing but the message log.
//
// # Debugging
//
// Refusals are *api.Error values. Counters tell what the hub saw per identity.
//
// # Testing
//
// Rules of twins are tested here as tables; everything else through the real
// fronts in package hub.
package iot
