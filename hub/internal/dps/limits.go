package dps

import "time"

// Limits and rules of the provisioning service.
const (
	// https://learn.microsoft.com/azure/iot-dps/concepts-service#registration-id
	maxID = 128

	// What devices are told to wait; seen on the wire, not documented.
	retryAfter = 3 * time.Second

	// ours: how long a lookup of old operations goes back. A request that a client
	// sends twice makes two, and it may ask for either.
	maxOperations = 8
	// ours: the bytes of a device's request
	maxRequest = 256 << 10
	// ours: certificates that a device may present, its own included
	maxChain = 10
)
