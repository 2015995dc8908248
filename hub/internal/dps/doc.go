// Package dps is the hub's device provisioning service: enrollments, the
// attestation of devices, registrations, and the assignment of devices to this
// hub. It knows no wire format; the fronts (MQTT, REST) translate.
//
// # Usage
//
// Open makes a Service beside an iot.Service. A device front makes a Credential
// of what a device presented and writes the Answer of Register, Status or Lookup
// as it is. A service front manages entries (single enrollments and groups) and
// registrations.
//
// # Concurrency
//
// One mutex guards all state. It is held while a device is assigned, which takes
// the iot.Service's in turn; never the other way round.
//
// # Expected behaviour of the other side
//
// https://learn.microsoft.com/azure/iot-dps/ and, for devices,
// https://learn.microsoft.com/rest/api/iot-dps/device/runtime-registration. A
// device registers, is told 202, and polls until it is told 200. The assignment
// is carried out before the 202 leaves, so that an end of the process in between
// loses nothing; a device sees no difference.
//
// A token or certificate is judged when a request comes, not before: a device
// whose proof is wrong may connect by MQTT, and is answered 401 when it
// registers, as with Azure.
//
// # Debugging
//
// Why a device was refused is logged at level Info. The device is told no more
// than by Azure.
//
// # Testing
//
// Keys and certificates are tested here; everything else through the fronts in
// package hub.
package dps
