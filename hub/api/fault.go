package api

import "time"

// Names of the faults.
const (
	// FaultCut drops the connection now and refuses further ones while it lasts.
	// Mode "close" (default) closes the socket, "black-hole" leaves it silent.
	FaultCut = "cut"
	// FaultConnack answers CONNECT with the return code Code (1 to 5, default 3).
	FaultConnack = "connack"
	// FaultWithholdPuback leaves the PUBACK of telemetry unsent for good; the
	// message itself is kept.
	FaultWithholdPuback = "withhold-puback"
	// FaultDelayPuback sends the PUBACK of telemetry Delay later.
	FaultDelayPuback = "delay-puback"
	// FaultRefuseSuback answers SUBSCRIBE with 0x80.
	FaultRefuseSuback = "refuse-suback"
	// FaultDropTwinResponse leaves a twin request without an answer.
	FaultDropTwinResponse = "drop-twin-response"
	// FaultTwinStatus answers a twin request with the status Code (400 to
	// 599, default 429).
	FaultTwinStatus = "twin-status"
	// FaultDuplicateC2D delivers a cloud-to-device message twice.
	FaultDuplicateC2D = "duplicate-c2d"
	// FaultLoseSession forgets the persistent session at the next CONNECT.
	FaultLoseSession = "lose-session"
	// FaultMethodBlackHole leaves a method call undelivered: its caller runs into
	// its timeout.
	FaultMethodBlackHole = "method-black-hole"
	// FaultThrottle answers twin requests and HTTPS requests with 429.
	FaultThrottle = "throttle"
	// FaultQuota refuses telemetry, as when the day's quota is used up: over MQTT by
	// closing the connection, over HTTPS with 403002.
	FaultQuota = "quota"
	// FaultHTTPStatus answers HTTPS requests, the upgrade to WebSocket among them,
	// with the status Code (400 to 599, default 503). Those below /fairlead are
	// spared, or the fault could not be removed. A request that names no device is
	// struck by a fault for all only.
	FaultHTTPStatus = "http-status"
	// FaultExpireTokens ends the tokens of connected devices before their time: the
	// connection drops, and the same token is refused from then on. With Count or
	// Duration other tokens are refused too while it lasts.
	FaultExpireTokens = "expire-tokens"
	// FaultJumpVersion moves $version of the desired properties by Code (default
	// 100, negative for back) at once, without telling the device: as after a
	// failover, or when an identity is made anew.
	FaultJumpVersion = "jump-version"
	// FaultSlowReads lets the hub wait for Delay before each read of up to 64 KiB
	// from a connected device.
	FaultSlowReads = "slow-reads"
	// FaultProvisioningStatus answers the provisioning service's devices with the
	// status Code (400 to 599, default 429) and a retry-after of Delay, in whole
	// seconds (default that of the service). Device is a registration id.
	FaultProvisioningStatus = "provisioning-status"
	// FaultSlowAssignment lets a registration stay "assigning": Count is how many
	// polls are told so. Device is a registration id.
	FaultSlowAssignment = "slow-assignment"
	// FaultStorageStatus answers requests to the hub's own blob endpoint with the
	// status Code (400 to 599, default 503). With a device it strikes what lies
	// below the device's name.
	FaultStorageStatus = "storage-status"
	// FaultStorageDelay answers them Delay later.
	FaultStorageDelay = "storage-delay"
	// FaultShortSAS gives a device an address for its upload that is good for
	// Delay only.
	FaultShortSAS = "short-sas"
)

// FaultNames lists the faults that a hub knows, sorted.
func FaultNames() []string {
	return []string{
		FaultConnack, FaultCut, FaultDelayPuback, FaultDropTwinResponse, FaultDuplicateC2D, FaultExpireTokens,
		FaultHTTPStatus, FaultJumpVersion, FaultLoseSession, FaultMethodBlackHole, FaultProvisioningStatus, FaultQuota,
		FaultRefuseSuback, FaultShortSAS, FaultSlowAssignment, FaultSlowReads, FaultStorageDelay, FaultStorageStatus,
		FaultThrottle, FaultTwinStatus, FaultWithholdPuback,
	}
}

// Fault is something that goes wrong on purpose. With neither Count nor Duration
// it lasts until it is removed; but a cut and expired tokens happen once then, and
// a jump of the version always does.
type Fault struct {
	ID     string `json:"id"` // given by the hub
	Name   string `json:"name"`
	Device string `json:"device,omitempty"` // "device" or "device/module"; "" for all
	// Count is how often it strikes, 0 for no limit.
	Count int `json:"count,omitempty"`
	// Duration is how long it lasts, as a Go duration, "" for no limit.
	Duration Duration `json:"duration,omitempty"`
	Delay    Duration `json:"delay,omitempty"`
	Code     int      `json:"code,omitempty"`
	Mode     string   `json:"mode,omitempty"`

	Struck  int       `json:"struck"` // how often it has struck, by the hub
	Expires time.Time `json:"expires,omitzero"`
}

// Duration is a time.Duration that is written as text ("1m30s") in JSON.
type Duration time.Duration

// MarshalText writes the Go form, and nothing for 0.
func (d Duration) MarshalText() ([]byte, error) {
	if d == 0 {
		return nil, nil
	}
	return []byte(time.Duration(d).String()), nil
}

// UnmarshalText reads the Go form; nothing is 0.
func (d *Duration) UnmarshalText(text []byte) error {
	if len(text) == 0 {
		*d = 0
		return nil
	}
	v, err := time.ParseDuration(string(text))
	*d = Duration(v)
	return err
}

// Counters are what the hub saw of one identity since the hub started.
type Counters struct {
	Connects            int64 `json:"connects"`
	ConnectsRefused     int64 `json:"connectsRefused"`
	Disconnects         int64 `json:"disconnects"`
	TakeOvers           int64 `json:"takeOvers"`
	TelemetryReceived   int64 `json:"telemetryReceived"`
	TelemetryBytes      int64 `json:"telemetryBytes"`
	TelemetryAcked      int64 `json:"telemetryAcked"`
	C2DEnqueued         int64 `json:"c2dEnqueued"`
	C2DSent             int64 `json:"c2dSent"`
	C2DCompleted        int64 `json:"c2dCompleted"`
	C2DDead             int64 `json:"c2dDead"`
	MethodsSent         int64 `json:"methodsSent"`
	MethodsAnswered     int64 `json:"methodsAnswered"`
	MethodsTimedOut     int64 `json:"methodsTimedOut"`
	MethodResponsesLate int64 `json:"methodResponsesLate"`
	TwinGets            int64 `json:"twinGets"`
	ReportedPatches     int64 `json:"reportedPatches"`
	DesiredPushes       int64 `json:"desiredPushes"`
	UploadsStarted      int64 `json:"uploadsStarted"`
	UploadsSucceeded    int64 `json:"uploadsSucceeded"`
	UploadsFailed       int64 `json:"uploadsFailed"` // those that the device gave up
}

// Statistics of the whole hub.
type Statistics struct {
	TotalDeviceCount     int `json:"totalDeviceCount"`
	EnabledDeviceCount   int `json:"enabledDeviceCount"`
	DisabledDeviceCount  int `json:"disabledDeviceCount"`
	ConnectedDeviceCount int `json:"connectedDeviceCount"`
}
