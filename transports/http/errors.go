package http //nolint:revive // see doc.go

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/fairlead-iot/fairlead/core"
	"github.com/fairlead-iot/fairlead/transports/netdial"
)

// statusKinds is what each status of the hub means. What is missing is Transient from 500 on, Refused below.
//
// https://learn.microsoft.com/azure/iot-hub/troubleshoot-error-codes
var statusKinds = map[int]core.Kind{
	http.StatusUnauthorized:    core.Unauthorized,
	http.StatusRequestTimeout:  core.Transient,
	http.StatusTooManyRequests: core.Throttled,
}

// codeKinds is what an error number of the hub means where that is not what its status does.
var codeKinds = map[int]core.Kind{
	403002: core.Throttled,    // the quota of the day is used up
	403006: core.Throttled,    // more uploads under way than the hub allows a device
	403012: core.Unauthorized, // the device is disabled
	404001: core.Unauthorized, // the device does not exist
}

// nameKinds is the same for the names by which the hub's errors go where there is no number.
var nameKinds = map[string]core.Kind{
	"IotHubQuotaExceeded":                        core.Throttled,
	"DeviceMaximumActiveFileUploadLimitExceeded": core.Throttled,
	"DeviceDisabled":                             core.Unauthorized,
	"DeviceNotFound":                             core.Unauthorized,
}

// maxRetryAfter bounds what the other side may ask for.
const maxRetryAfter = time.Hour

// failure is the error of a request that had no answer.
func failure(ctx context.Context, op string, err error) error {
	if e, ok := errors.AsType[*core.Error](err); ok {
		return fmt.Errorf("%s: %w", op, e) // of the dialer: it has its kind and phase
	}
	if e, ok := errors.AsType[*url.Error](err); ok {
		err = e.Err // the rest is the address
	}
	if cause := context.Cause(ctx); cause != nil {
		return &core.Error{Op: op, Kind: core.Transient, Phase: PhaseHTTP, Err: cause}
	}
	kind, advised := netdial.Classify(PhaseHTTP, err, "", time.Time{})
	if kind == core.Blocked {
		kind = core.Transient // the route got through, as far as HTTP
	}
	return &core.Error{Op: op, Kind: kind, Phase: PhaseHTTP, Err: advised}
}

// refusal is the error of an answer that is not 2xx. One that is of others says nothing by its number or name about who
// asks: a device that does not exist is then another one.
func refusal(op string, resp *http.Response, body []byte, now time.Time, isOfOthers bool) error {
	d := readDetail(body)
	if name := resp.Header.Get("iothub-errorcode"); name != "" {
		d.name = name
	}
	kind, known := statusKinds[resp.StatusCode]
	switch {
	case !known && resp.StatusCode >= 500:
		kind = core.Transient
	case !known:
		kind = core.Refused
	}
	if k, known := nameKinds[d.name]; known && !isOfOthers {
		kind = k
	}
	if k, known := codeKinds[d.code]; known && !isOfOthers {
		kind = k
	}
	text := "the hub answered " + resp.Status
	if d.name != "" {
		text += " " + d.name
	}
	if d.code != 0 {
		text += fmt.Sprintf(" (%d)", d.code)
	}
	if d.message != "" {
		text += ": " + d.message
	}
	sentinel := core.ErrService
	if kind == core.Unauthorized {
		sentinel = core.ErrCredential
	}
	return &core.Error{
		Op: op, Kind: kind, Phase: PhaseHTTP, Status: resp.StatusCode, RetryAfter: RetryAfter(resp.Header, now),
		TrackingID: cmp.Or(d.trackingID, resp.Header.Get("x-ms-request-id")),
		Err:        fmt.Errorf("%s: %w", text, sentinel),
	}
}

// RetryAfter reads the header of that name, seconds or a date; 0 for none.
//
// https://www.rfc-editor.org/rfc/rfc9110#field.retry-after
func RetryAfter(h http.Header, now time.Time) time.Duration {
	return netdial.ParseRetryAfter(h.Get("Retry-After"), now, maxRetryAfter)
}

// detail is what an error's body says.
type detail struct {
	code       int
	name       string
	message    string
	trackingID string
}

// maxMessage bounds how much of the hub's text an error repeats.
const maxMessage = 300

// readDetail reads the two forms of the hub's errors: {"Message":"ErrorCode:Name;text","ExceptionMessage":"Tracking ID:…"},
// and {"errorCode":404001,"message":…,"trackingId":…}, which may also stand as text within the first's Message.
func readDetail(body []byte) detail {
	var d detail
	var outer struct {
		Message          string
		ExceptionMessage string
		ErrorCode        any    `json:"errorCode"`
		TrackingID       string `json:"trackingId"`
	}
	if json.Unmarshal(body, &outer) != nil {
		return d // not the hub's, but a proxy's: the status has to do
	}
	if strings.HasPrefix(outer.Message, "{") {
		inner := readDetail([]byte(outer.Message))
		if inner != (detail{}) {
			return inner
		}
	}
	switch code := outer.ErrorCode.(type) {
	case float64:
		d.code = int(code)
	case string:
		d.code, _ = strconv.Atoi(code) // a name is no number
	}
	d.message, d.trackingID = outer.Message, outer.TrackingID
	if rest, found := strings.CutPrefix(d.message, "ErrorCode:"); found {
		d.name, d.message, _ = strings.Cut(rest, ";")
	}
	if rest, found := strings.CutPrefix(outer.ExceptionMessage, "Tracking ID:"); found && d.trackingID == "" {
		d.trackingID, _, _ = strings.Cut(rest, "-TimeStamp:")
	}
	if len(d.message) > maxMessage {
		d.message = strings.ToValidUTF8(d.message[:maxMessage], "") + "…"
	}
	return d
}
