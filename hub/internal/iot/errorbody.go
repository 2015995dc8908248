package iot

import (
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"time"

	"github.com/fairlead-iot/fairlead/hub/api"
)

// ErrorBody is the JSON that goes with a refusal on twin topics and in some REST
// answers. Clients read errorCode, not the status: without a body one official
// client takes a refusal for success.
type ErrorBody struct {
	ErrorCode    int    `json:"errorCode"`
	TrackingID   string `json:"trackingId"`
	Message      string `json:"message"`
	TimestampUTC string `json:"timestampUtc"`
}

// NewErrorBody makes the body for an error.
func NewErrorBody(e *api.Error) ErrorBody {
	return ErrorBody{e.Code, TrackingID(), e.Message, time.Now().UTC().Format("2006-01-02T15:04:05.0000000Z")}
}

// JSON returns the body as text.
func (b ErrorBody) JSON() []byte {
	text, _ := json.Marshal(b) // strings and a number cannot fail
	return text
}

// AsError returns the *api.Error in err, or a 500001 for anything else: the
// hub's own trouble, which it should log.
func AsError(err error) *api.Error {
	if e, ok := errors.AsType[*api.Error](err); ok {
		return e
	}
	return api.Refuse(api.CodeServerError, "the hub could not do it: %v", err)
}

// TrackingID makes a number to find a refusal by.
func TrackingID() string {
	id := make([]byte, 16)
	_, _ = rand.Read(id) // never fails, by its contract
	return hex.EncodeToString(id)
}
