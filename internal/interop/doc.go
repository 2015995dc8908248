// Package interop tests Fairlead against programs that its authors did not write.
//
// # Usage
//
//	go test -tags interop ./internal/interop
//
// Each test needs a program on this machine (mosquitto; node with the packages that node/install puts outside the
// repository) and skips with a line that names it where it is missing.
//
// # Expected behaviour of the other side
//
// mosquitto is a general MQTT broker: it checks packets, not IoT Hub's rules. The hub's rules are tested against
// Microsoft's SDKs for Node: the device's over MQTT at any port, and, in a network namespace where 443 is free, over
// WebSocket, together with the service's. They model nothing: they are the clients that users have. node/device.js does
// what the test tells it, a JSON object a line; node/service.js asserts by itself.
//
// Files are uploaded by the same SDK, and by Azure's storage clients for Node and Go, to the hub's own blob endpoint and to
// Azurite. Azurite is Microsoft's emulator of storage: it checks signatures and block lists as Azure does. It runs with
// --loose, since the SDK sends a header that it refuses otherwise.
package interop
