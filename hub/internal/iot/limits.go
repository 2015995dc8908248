package iot

import "time"

// Limits of IoT Hub.
const (
	// https://learn.microsoft.com/azure/iot-hub/iot-hub-devguide-quotas-throttling
	MaxMessage = 262144 // bytes of body, system property values, application property names and values

	// https://learn.microsoft.com/azure/iot-hub/iot-hub-devguide-messages-c2d
	maxC2DQueue = 50
	maxC2DBytes = 64 << 10
	c2dLock     = 60 * time.Second
	c2dTTL      = time.Hour
	maxC2DTTL   = 48 * time.Hour
	// the real hub's defaults; both can be set there
	maxDeliveries = 10
	feedbackTTL   = time.Hour
	feedbackLock  = 60 * time.Second
	feedbackBatch = 64 // "a maximum of 64 messages in a batch"

	// https://learn.microsoft.com/azure/iot-hub/iot-hub-devguide-direct-methods
	maxMethodPayload     = 128 << 10
	methodTimeout        = 30 * time.Second
	minMethodTimeout     = 5 // seconds
	maxMethodTimeout     = 300
	maxMethodConnectWait = 300

	// https://learn.microsoft.com/azure/iot-hub/iot-hub-devguide-device-twins
	maxTags       = 8 << 10
	maxProperties = 32 << 10
	maxKey        = 1 << 10
	maxString     = 4 << 10
	maxDepth      = 10
	minInteger    = -4503599627370496
	maxInteger    = 4503599627370495

	// https://learn.microsoft.com/azure/iot-hub/iot-hub-devguide-file-upload and
	// https://learn.microsoft.com/azure/iot-hub/iot-hub-devguide-quotas-throttling
	maxActiveUploads   = 10        // per device
	defaultUploadLife  = time.Hour // of an address
	notificationTTL    = time.Hour
	notificationLock   = 60 * time.Second
	maxNotificationTry = 10
	maxBlobName        = 1024 // characters, the device's name included

	// ours: percent-encoded they must fit into an MQTT topic of 65535 bytes
	maxC2DProperties = 16 << 10
	maxMethodName    = 1 << 10

	maxIDLength    = 128
	maxMessageID   = 128
	maxFeedback    = 10_000 // ours: the oldest goes
	maxExpired     = 100    // ours: tokens of an identity that a fault has ended
	maxDeadLetters = 100    // ours: kept per device, in memory
	maxCalls       = 100    // ours, unless told otherwise: direct methods in flight per identity; the hub's own number is not published

	// ours
	maxNotifications   = 10_000 // file notifications that wait
	maxExpiredUploads  = 10     // per identity: those of which a completion is told apart from one that never was
	storagePreparation = 20 * time.Second
)

// Limits of a connection that has not proved who it is. They are ours: what such a
// connection costs, in memory and in time, must not be up to it. docs/hub.md lists
// them.
const (
	// ConnectWithin bounds everything up to CONNECT, TLS included, or from the upgrade
	// to WebSocket to CONNECT, however the bytes come. Over HTTPS the TLS handshake has
	// half of it, and so has a request's header.
	ConnectWithin = 30 * time.Second
	// MaxConnect bounds a CONNECT in bytes: a will of 64 KiB, which MQTT cannot pass,
	// and the rest. The space is taken as the bytes come.
	MaxConnect = 80 << 10
	// MaxHeader bounds the header of a request in bytes; properties of telemetry over
	// HTTPS stand there.
	MaxHeader = 64 << 10
	// MaxStrangers is how many such connections may be open at a time at each port.
	// Further ones wait to be accepted.
	MaxStrangers = 512
	// RefusedWithin is how long the rest of a request is waited for that was answered
	// before all of it was read.
	RefusedWithin = 5 * time.Second
)
