package http //nolint:revive // see doc.go

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/fairlead-iot/fairlead/core"
)

// Facts of the Edge hub's HTTPS, as Microsoft's clients have them.
const (
	invokeAPIVersion = "2019-10-01"
	// callerHeader names the module that calls, "device/module".
	callerHeader = "x-ms-edge-moduleId"
	// maxResult bounds a method's result, ours: a payload of 128 KiB and what stands around it.
	maxResult = 512 << 10
)

// InvokeMethod has the Edge hub call a direct method of a device, or of a module of it, and returns the JSON of its
// result. call is the request's JSON: methodName, payload, and the timeouts. It ends after limit, or with ctx.
//
// https://learn.microsoft.com/azure/iot-edge/module-development
func (c *Client) InvokeMethod(ctx context.Context, target core.Identity, call []byte, limit time.Duration) ([]byte, error) {
	const op = "invoke method"
	result, err := c.exchange(ctx, request{
		op: op, path: func(core.Identity) string {
			return "/twins/" + nameOf(target) + "/methods?api-version=" + invokeAPIVersion
		},
		contentType: "application/json", header: http.Header{callerHeader: {c.cfg.Identity.ClientID()}},
		body: call, limit: limit, most: maxResult, isOfOthers: true,
	})
	if err == nil && len(result) > maxResult {
		return nil, &core.Error{Op: op, Kind: core.Refused, Phase: PhaseHTTP, Err: fmt.Errorf("the result has more than %d bytes: %w", maxResult, core.ErrTooLarge)}
	}
	return result, err
}
