// Package restfront is the hub's HTTPS front: the part of IoT Hub's service REST
// API that people use, the routes by which devices upload files, below /fairlead
// our own additions, and the door for WebSocket. The blobs themselves are package
// blob's.
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
// Every request carries a SAS in Authorization, a service's or for uploads the
// device's own; api-version is not looked at. Bodies are at most 1 MiB.
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
