// Package dpsfront is the HTTPS front of the hub's provisioning service: what
// devices ask of it, and what services manage.
//
// # Usage
//
// New makes an http.Handler that takes the provisioning service's paths and
// hands on every other request. Both share one port and all host names; their
// paths tell them apart:
//
//	/{idScope}/registrations/…                          devices
//	/enrollments/… /enrollmentGroups/… /registrations/… services
//	/fairlead/provisioning                              services, the id scope
//
// # Concurrency
//
// As any http.Handler.
//
// # Expected behaviour of the other side
//
// Devices follow
// https://learn.microsoft.com/rest/api/iot-dps/device/runtime-registration,
// services https://learn.microsoft.com/rest/api/iot-dps/service; api-version is
// not looked at. Bodies are at most 1 MiB. TPM attestation is not there.
//
// # Debugging
//
// Refusals carry x-ms-error-code and a tracking id; requests are logged at level
// Debug.
//
// # Testing
//
// Through hub/service, the client, and with plain requests in package hub;
// FuzzDecode here.
package dpsfront
