// Package mqttfront is the hub's MQTT 3.1.1 front: TCP and WebSocket connections
// of devices and modules, translated for package iot, and of devices that
// provision themselves, for package dps. The user name of CONNECT tells which.
//
// # Usage
//
// New makes a Front; Serve takes a listener (TLS is the caller's), ServeWebSocket
// an HTTP request.
//
// # Concurrency
//
// Each connection has a reader, which parses and acts, and, while there is
// something to write, a flusher. The telemetry that one read brings goes to the
// message log with one write, then its PUBACKs to the flusher, which writes all
// that has collected. So batches grow with the load, and at rest a message waits
// for nobody. The reader never waits for the flusher: what a client does not read
// collects up to a bound, then the client is dropped.
//
// # Expected behaviour of the other side
//
// The topics and rules of
// https://learn.microsoft.com/azure/iot/iot-mqtt-connect-to-iot-hub, and of
// https://learn.microsoft.com/azure/iot/iot-mqtt-connect-to-iot-dps. Whatever
// breaks them ends the connection, since "AMQP returns errors, MQTT terminates".
//
// # Debugging
//
// Every end of a connection is logged with its reason, at level Info.
//
// # Testing
//
// Through package hub, with a real client and with raw bytes.
package mqttfront
