// Package service is a client of a hub's service side over HTTPS: registry,
// twins, direct methods, the enrollments of a provisioning service, and what the
// embedded hub adds below /fairlead.
//
// # Usage
//
//	c, err := service.New(connectionString, service.Options{CAPEM: ca, Address: "127.0.0.1:8443"})
//	t, err := c.Twin(ctx, "dev1")
//
// Against Azure the options stay empty; SendC2D, Monitor, the CAs and the faults
// are the embedded hub's alone, since Azure has them over AMQP, elsewhere, or not at
// all.
//
// # Concurrency
//
// A Client is safe for concurrent use.
//
// # Expected behaviour of the other side
//
// https://learn.microsoft.com/rest/api/iothub/, api-version 2021-04-12, and
// https://learn.microsoft.com/rest/api/iot-dps/service, 2021-10-01. Refusals
// come back as *api.Error.
//
// # Debugging
//
// Errors name the request; they never contain the token.
//
// # Testing
//
// Against the hub, in package hub.
package service
