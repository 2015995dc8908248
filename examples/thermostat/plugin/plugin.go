// Package plugin is a thermostat: it sends its temperature and has its set point changed by a direct method.
package plugin

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/fairlead-iot/fairlead/plugins/sdk"
)

// New returns the plugin.
func New() *sdk.Plugin {
	p := sdk.New("thermostat")

	settings := struct {
		Interval sdk.Duration `json:"interval"`
	}{Interval: sdk.Duration(10 * time.Second)}
	p.Settings(&settings)

	var setPoint atomic.Int64
	setPoint.Store(20)
	p.HandleMethod("setPoint", func(_ context.Context, req *sdk.MethodRequest) (any, error) {
		var celsius int64
		if err := req.Decode(&celsius); err != nil {
			return nil, err // the caller sees status 400 and the reason
		}
		return map[string]int64{"was": setPoint.Swap(celsius), "is": celsius}, nil
	})

	p.Run(func(ctx context.Context, dev *sdk.Device) error {
		for ; ctx.Err() == nil; sdk.Sleep(ctx, settings.Interval.D()) {
			if err := dev.SendJSON(ctx, map[string]int64{"celsius": setPoint.Load() - 1}); err != nil {
				dev.Log().Warn("temperature not sent", "error", err)
			}
		}
		return nil
	})
	return p
}
