package wire

import (
	"context"
	"errors"
	"time"

	"github.com/fairlead-iot/fairlead/core"
	"github.com/fairlead-iot/fairlead/plugins/pluginv1"
)

// errorCodes pairs the sentinels of core with their codes on the wire. The first that matches is taken.
func errorCodes() []codeOf {
	return []codeOf{
		{core.ErrService, pluginv1.Error_CODE_SERVICE},
		{core.ErrCredential, pluginv1.Error_CODE_CREDENTIAL},
		{core.ErrConnectionDropped, pluginv1.Error_CODE_CONNECTION_DROPPED},
		{core.ErrConnectionFailed, pluginv1.Error_CODE_CONNECTION_FAILED},
		{core.ErrNotConnected, pluginv1.Error_CODE_NOT_CONNECTED},
		{core.ErrTooLarge, pluginv1.Error_CODE_TOO_LARGE},
		{core.ErrInvalid, pluginv1.Error_CODE_INVALID},
		{core.ErrUnsupported, pluginv1.Error_CODE_UNSUPPORTED},
		{core.ErrClosed, pluginv1.Error_CODE_CLOSED},
		{core.ErrTimeout, pluginv1.Error_CODE_TIMEOUT},
		{context.DeadlineExceeded, pluginv1.Error_CODE_TIMEOUT},
		{core.ErrCancelled, pluginv1.Error_CODE_CANCELLED},
		{context.Canceled, pluginv1.Error_CODE_CANCELLED},
	}
}

type codeOf struct {
	err  error
	code pluginv1.Error_Code
}

// FromError gives the frame's form of err; nil for nil.
func FromError(err error) *pluginv1.Error {
	if err == nil {
		return nil
	}
	p := &pluginv1.Error{Message: Text(err.Error())}
	for _, c := range errorCodes() {
		if errors.Is(err, c.err) {
			p.Code = c.code
			break
		}
	}
	if e, ok := errors.AsType[*core.Error](err); ok {
		p.Status, p.RetryAfterMs, p.TrackingId = int32(e.Status), FromDuration(e.RetryAfter), Text(e.TrackingID)
	}
	return p
}

// ToError is the reverse of FromError: an error with the same text, in whose tree errors.Is finds the same sentinel of
// core and errors.As a *core.Error where the hub's status or tracking id is known.
func ToError(p *pluginv1.Error) error {
	if p == nil {
		return nil
	}
	r := &remote{text: p.GetMessage()}
	for _, c := range errorCodes() {
		if c.code == p.GetCode() {
			r.tree = append(r.tree, c.err)
			break
		}
	}
	if p.GetStatus() != 0 || p.GetTrackingId() != "" || p.GetRetryAfterMs() != 0 {
		r.tree = append(r.tree, &core.Error{
			Op:         "hub",
			Kind:       core.Refused,
			Status:     int(p.GetStatus()),
			RetryAfter: ToDuration(p.GetRetryAfterMs()),
			TrackingID: p.GetTrackingId(),
		})
	}
	return r
}

// remote is an error that arose on the other side of the wire.
type remote struct {
	text string
	tree []error
}

func (r *remote) Error() string   { return r.text }
func (r *remote) Unwrap() []error { return r.tree }

// Timeout returns the time left until ctx's deadline, in the frame's form: 0 for none, at least 1 for one.
func Timeout(ctx context.Context) uint64 {
	d, ok := ctx.Deadline()
	if !ok {
		return 0
	}
	return max(1, FromDuration(time.Until(d)))
}
