package uploads

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/bloberror"

	"github.com/fairlead-iot/fairlead/core"
)

const debug = slog.LevelDebug

// maxRetryAfter bounds what a storage may ask for.
const maxRetryAfter = time.Hour

// statusKinds is what a status of the storage means. What is missing is Transient from 500 on, Refused below.
//
// https://learn.microsoft.com/rest/api/storageservices/common-rest-api-error-codes
var statusKinds = map[int]core.Kind{
	http.StatusUnauthorized:    core.Transient, // another address may do
	http.StatusForbidden:       core.Transient,
	http.StatusNotFound:        core.Transient,
	http.StatusRequestTimeout:  core.Transient,
	http.StatusTooManyRequests: core.Throttled,
}

const crcMismatch bloberror.Code = "Crc64Mismatch"

// codeKinds is the same for error codes.
var codeKinds = map[string]core.Kind{
	"Md5Mismatch":            core.Transient, // damaged on the way
	string(crcMismatch):      core.Transient,
	"InvalidBlockList":       core.Transient, // it has forgotten some
	"ContainerBeingDeleted":  core.Transient,
	"ContainerBeingDisabled": core.Transient,
}

// classify gives an error of the storage client its kind.
func classify(op string, err error) *core.Error {
	op = "storage: " + op
	if e, ok := errors.AsType[*core.Error](err); ok {
		// Of the dialer. A status there is a proxy's, and must not be taken for the storage's: its 403 says nothing of the
		// address.
		return &core.Error{Op: op, Kind: e.Kind, Phase: e.Phase, RetryAfter: e.RetryAfter, Err: e}
	}
	resp, ok := errors.AsType[*azcore.ResponseError](err)
	if !ok {
		if e, ok := errors.AsType[*url.Error](err); ok {
			err = e.Err // the rest is the address
		}
		return &core.Error{Op: op, Kind: core.Transient, Phase: "http", Err: err}
	}
	kind, known := statusKinds[resp.StatusCode]
	switch {
	case !known && resp.StatusCode >= 500:
		kind = core.Transient
	case !known:
		kind = core.Refused
	}
	if k, known := codeKinds[resp.ErrorCode]; known {
		kind = k
	}
	e := &core.Error{
		Op: op, Kind: kind, Phase: "http", Status: resp.StatusCode,
		Err: fmt.Errorf("it answered %d %s", resp.StatusCode, resp.ErrorCode),
	}
	if resp.RawResponse != nil {
		e.RetryAfter = retryAfter(resp.RawResponse.Header)
		e.TrackingID = resp.RawResponse.Header.Get("x-ms-request-id")
	}
	return e
}

// retryAfter reads how long the storage asks to wait.
func retryAfter(h http.Header) time.Duration {
	for name, unit := range map[string]time.Duration{"Retry-After": time.Second, "Retry-After-Ms": time.Millisecond, "X-Ms-Retry-After-Ms": time.Millisecond} {
		if n, err := strconv.ParseUint(h.Get(name), 10, 31); err == nil {
			return min(time.Duration(n)*unit, maxRetryAfter)
		}
	}
	return 0
}

// readAllError is the error of a file that could not be read as a block was sent.
func readAllError(err error) error {
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return &giveUpError{reason: "the file was changed meanwhile: it became shorter; upload it again when nobody writes to it"}
	}
	return &giveUpError{reason: fmt.Sprintf("the file cannot be read: %v", reason(err))}
}
