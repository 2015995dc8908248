// Package iot is what the hub does: identities, authentication, twins, direct
// methods, messages both ways, sessions, faults. It knows no wire format; the
// fronts (MQTT, REST, and later others) translate.
//
// # Usage
//
// Open makes a Service. A device front authenticates with AuthenticateDevice or
// AuthenticateCertificate, attaches a Link, and then speaks through the Session, or
// without one (HTTPS) through Receive, Settle and SendTelemetry; a service front
// authenticates with AuthenticateService and calls the Service's methods.
//
// A service front for AMQP can stand beside REST without a change here: the token
// that a client puts to $cbs goes to AuthenticateService with the link's address
// as the path; a transfer to /messages/devicebound is SendC2D, its disposition the
// *api.Error; a receiver of /messages/serviceBound/feedback takes ReceiveFeedback
// and settles by SettleFeedback, with the lock as the delivery's tag; a receiver of
// a partition reads by ReadMessages, from a sequence number or a time. What such a
// front adds is its own: frames, links, credit.
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
