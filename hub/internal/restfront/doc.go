// Package restfront is the hub's HTTPS front: the part of IoT Hub's service REST
// API that people use, what devices have over HTTPS, uploads among it, below
// /fairlead our own additions, and the door for WebSocket. The blobs themselves are
// package blob's.
//
// # Usage
//
// New makes an http.Handler.
//
// # Concurrency
//
// As any http.Handler. A monitor request stays open until its client or the hub
// goes.
//
// # Expected behaviour of the other side
//
// A request carries a service's SAS in Authorization, or on the device's routes the
// device's, or a client certificate; api-version is not looked at. Bodies are at
// most 1 MiB.
//
// # Debugging
//
// Refusals carry iothub-errorcode and a tracking id; requests are logged at
// level Debug.
//
// # Testing
//
// Through hub/service, the client, and with plain requests for what a client
// would not send.
package restfront
