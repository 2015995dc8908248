// Package hub is an embedded IoT Hub: the part of Azure IoT Hub that devices and
// the people who test them use, in one process, without an Azure account.
//
// # Usage
//
//	h, err := hub.New(hub.Config{Dir: dir, Hostnames: []string{"localhost"}})
//	err = h.Start()
//	defer h.Close(ctx)
//	_, err = h.CreateDevice(api.Device{DeviceID: "dev1"})
//	text, err := h.ConnectionString("dev1")
//
// Devices connect by MQTT over TLS or over WebSocket, or send requests over HTTPS,
// where they upload files too, to the hub itself or to a storage account; they
// prove themselves by keys or certificates. Programs use the REST API on the HTTPS
// port (package hub/service is a client for it) or the methods here. A device
// provisioning service shares ports and names with the hub: CreateEnrollment and
// CreateEnrollmentGroup let devices register with IDScope. Below the fronts,
// packages hub/internal/iot and hub/internal/dps hold the rules of the two and
// know no wire format: a front for AMQP can stand beside those for MQTT and REST.
// With an empty Dir everything lives in memory. Package hub/hubtest starts one for
// a test in one line.
//
// # Concurrency
//
// A Hub is safe for concurrent use. Close ends every goroutine that it began.
// With listeners of the caller's it runs inside a testing/synctest bubble.
//
// # Expected behaviour of the other side
//
// Devices follow https://learn.microsoft.com/azure/iot/iot-mqtt-connect-to-iot-hub.
// What breaks its rules is answered as IoT Hub does: by closing the connection.
// A device must trust CAPEM, the hub's own authority.
//
// What is promised: a PUBACK leaves only after the message was given to the
// operating system, so that it survives the end of this process; not a power
// cut. The registry, certificate authorities, twins, queued cloud-to-device
// messages, feedback, subscriptions, enrollments, registrations, uploads that have
// begun and file notifications survive likewise; the content of files survives a
// power cut too. Counters, faults and dead letters last as long as the process.
//
// # Debugging
//
// The logger gets every end of a connection with its reason; Counters tell what
// the hub saw of each device.
//
// # Testing
//
// Behaviour is tested through the wire: with a client that shares no code with
// the hub, and with raw bytes for what a good client never sends.
package hub
