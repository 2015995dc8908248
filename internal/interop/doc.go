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
// what the test tells it, a JSON object a line; node/service.js asserts by itself. bytes_test.go has the device SDK and our
// client do the same through a recorder, and compares what they sent; docs/parity.md lists what differs on purpose.
package interop
