package mqtt

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/fairlead-iot/fairlead/core"
)

// Facts of the provisioning service's MQTT, from https://learn.microsoft.com/azure/iot/iot-mqtt-connect-to-iot-dps
const (
	// DefaultProvisioningHost serves every provisioning service: the id scope says which one is meant.
	DefaultProvisioningHost = "global.azure-devices-provisioning.net"
	provisioningAPIVersion  = "2019-03-31"

	registrationPrefix = "$dps/registrations/res/"
	registerTopic      = "$dps/registrations/PUT/iotdps-register/?$rid="
	operationTopic     = "$dps/registrations/GET/iotdps-get-operationstatus/?$rid="
	// operationBody: Microsoft's clients send one space, never an empty body.
	operationBody = " "
	phaseDPS      = "dps"
)

// What a registration can be. https://learn.microsoft.com/rest/api/iot-dps/device/runtime-registration/operation-status-lookup
const (
	statusAssigning = "assigning"
	statusAssigned  = "assigned"
	statusFailed    = "failed"
	statusDisabled  = "disabled"
)

// registrationUsername returns the MQTT user name for the provisioning service. Unlike the hub's it has no question mark.
func registrationUsername(idScope, registrationID, userAgent string) string {
	return idScope + "/registrations/" + registrationID + "/api-version=" + provisioningAPIVersion + "&ClientVersion=" + escape(userAgent)
}

// registrationAnswer is one answer of the provisioning service.
type registrationAnswer struct {
	rid        string
	status     int
	retryAfter time.Duration // 0 where it said nothing
	body       []byte
}

// parseRegistration reads an answer's topic: "$dps/registrations/res/{status}/?$rid={request id}[&retry-after={s}]".
func parseRegistration(topic string, payload []byte) arrival {
	rest, ok := strings.CutPrefix(topic, registrationPrefix)
	if !ok {
		return arrival{}
	}
	path, query, ok := cutQuery(rest)
	status, err := strconv.Atoi(path)
	rid, hasRID := query["$rid"]
	if !ok || !hasRID || err != nil || status < 100 {
		return arrival{}
	}
	a := registrationAnswer{rid: rid, status: status, body: bytes.Clone(payload)}
	if s, err := strconv.Atoi(query["retry-after"]); err == nil && s > 0 {
		a.retryAfter = time.Duration(min(s, maxRetryAfterSeconds)) * time.Second
	}
	return arrival{kind: arrivalRegistration, registration: a}
}

// operation is the body of an answer: how a registration stands.
type operation struct {
	OperationID string            `json:"operationId"`
	Status      string            `json:"status"`
	State       registrationState `json:"registrationState"`
}

type registrationState struct {
	core.RegistrationState
	ErrorCode    int    `json:"errorCode"`
	ErrorMessage string `json:"errorMessage"`
}

// serviceError is the body of a refusal.
type serviceError struct {
	ErrorCode  int    `json:"errorCode"`
	TrackingID string `json:"trackingId"`
	Message    string `json:"message"`
}

// refusal makes an error of a status of 300 or more.
func (a registrationAnswer) refusal() error {
	var body serviceError
	_ = json.Unmarshal(a.body, &body) // what is not JSON has no more to say than its status
	return registrationError(&core.RegistrationError{Status: a.status, Code: body.ErrorCode, TrackingID: body.TrackingID, Message: body.Message}, a.retryAfter)
}

// failure makes an error of a registration that came to an end without a hub.
func (o *operation) failure(status int) error {
	e := &core.RegistrationError{Status: status, Code: o.State.ErrorCode, Message: o.State.ErrorMessage}
	switch {
	case o.Status == statusDisabled:
		e.Message = "the enrollment, or its registration, is disabled"
		return &core.Error{Kind: core.Unauthorized, Phase: phaseDPS, Status: status, Err: e}
	case e.Message == "" && o.Status == statusFailed:
		e.Message = "the registration failed"
	case e.Message == "":
		e.Message = fmt.Sprintf("the registration is %.40q, neither assigning nor assigned", o.Status)
	}
	return registrationError(e, 0)
}

// registrationError chooses the kind: by the error code's first three digits, which are an HTTP status, or by the status.
func registrationError(e *core.RegistrationError, retryAfter time.Duration) error {
	status := e.Status
	if e.Code >= 100_000 {
		status = e.Code / 1000
	}
	out := &core.Error{Kind: core.Fatal, Phase: phaseDPS, Status: e.Status, RetryAfter: retryAfter, TrackingID: e.TrackingID}
	var err error = e
	switch {
	case status == 429:
		out.Kind = core.Throttled
	case status >= 500, status == 408:
		out.Kind = core.Transient
	case status == 401:
		out.Kind = core.Unauthorized
		err = fmt.Errorf("%w: is the key or certificate the enrollment's own, and this device's clock right? %w", core.ErrCredential, e)
	case status == 403:
		out.Kind = core.Unauthorized
		err = fmt.Errorf("%w: %w", core.ErrCredential, e)
	case status == 404:
		out.Kind = core.Unauthorized
		err = fmt.Errorf("is there an enrollment for this registration id, in the service that id_scope names? %w", e)
	}
	out.Err = err
	return out
}

// result checks what an assigned device was told.
func (o *operation) result() (core.Registration, error) {
	st := o.State.RegistrationState
	if st.AssignedHub == "" || st.DeviceID == "" {
		return core.Registration{}, errNoAssignment
	}
	if string(st.Payload) == "null" {
		st.Payload = nil
	}
	return core.Registration{OperationID: o.OperationID, Status: o.Status, State: st}, nil
}

var errNoAssignment = errors.New("the provisioning service says assigned, and names no hub or no device")
