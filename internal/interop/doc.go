// Package interop tests Fairlead against programs that its authors did not write.
//
// # Usage
//
//	go test -tags interop ./internal/interop
//
// Each test needs a program on this machine (mosquitto; node with the packages that .ci/run installs) and skips with a
// line that names it where it is missing.
//
// # Expected behaviour of the other side
//
// mosquitto is a general MQTT broker: it checks packets, not IoT Hub's rules. The hub's rules are tested against
// Microsoft's device SDK for Node.
package interop
