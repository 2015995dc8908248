package core

import (
	"context"
	"encoding/json"
	"fmt"
	"time"
)

// Registrar registers a device with a provisioning service, which says which hub the device belongs to.
type Registrar interface {
	// Register registers once, and waits for the outcome: it never begins anew. c proves the identity to the provisioning
	// service, not to a hub. It ends when ctx does and is bounded by itself; its errors are *Error, with a
	// *RegistrationError in the tree where the service answered.
	Register(ctx context.Context, c Credential) (Registration, error)
}

// Registration is what a provisioning service answers a device that it has assigned to a hub.
//
// https://learn.microsoft.com/rest/api/iot-dps/device/runtime-registration/operation-status-lookup
type Registration struct {
	OperationID string
	// Status is "assigned".
	Status string
	State  RegistrationState
}

// RegistrationState says where a device belongs.
type RegistrationState struct {
	RegistrationID string    `json:"registrationId"`
	AssignedHub    string    `json:"assignedHub"` // the hub's host name
	DeviceID       string    `json:"deviceId"`    // at that hub; not always the registration id
	Status         string    `json:"status"`
	Substatus      string    `json:"substatus"` // initialAssignment, deviceDataMigrated, deviceDataReset, reprovisionedToInitialAssignment
	Created        time.Time `json:"createdDateTimeUtc"`
	LastUpdated    time.Time `json:"lastUpdatedDateTimeUtc"`
	ETag           string    `json:"etag"`
	// Payload is what custom allocation gave the device, any JSON; nil where there is none.
	Payload json.RawMessage `json:"payload"`
}

// RegistrationError is a provisioning service's refusal. Callers see it by errors.As, within an *Error.
//
// https://learn.microsoft.com/azure/iot-dps/how-to-troubleshoot-dps
type RegistrationError struct {
	// Status is HTTP's, in MQTT too; 200 where the request was fine and the registration failed.
	Status int
	// Code is errorCode, such as 401002; 0 where the service named none. Its first three digits are an HTTP status.
	Code       int
	TrackingID string // for a support request
	Message    string
}

// Error returns the service's words with their numbers.
func (e *RegistrationError) Error() string {
	text := e.Message
	if text == "" {
		text = "no reason given"
	}
	text = fmt.Sprintf("%s (status %d", text, e.Status)
	if e.Code != 0 {
		text += fmt.Sprintf(", error %d", e.Code)
	}
	if e.TrackingID != "" {
		text += ", tracking id " + e.TrackingID
	}
	return text + ")"
}

// Is makes it ErrService, whose text speaks of a hub.
func (e *RegistrationError) Is(target error) bool { return target == ErrService }
