// Command plugin is the plugin of the benchmarks: it sends what the benchmark orders, and answers the method echo.
//
// Settings: {"socket": PATH}, the benchmark's unix socket.
package main

import (
	"context"

	"github.com/fairlead-iot/fairlead/internal/bench/load"
	"github.com/fairlead-iot/fairlead/plugins/sdk"
)

type settings struct {
	Socket string `json:"socket"`
}

func main() {
	var s settings
	p := sdk.New("bench")
	p.Settings(&s)
	p.HandleMethod("echo", func(_ context.Context, req *sdk.MethodRequest) (any, error) { return req.Payload, nil })
	p.Run(func(ctx context.Context, dev *sdk.Device) error {
		if err := connected(ctx, dev); err != nil {
			return nil //nolint:nilerr // it is to stop
		}
		return load.Serve(ctx, s.Socket, load.Sender{
			Send: func(ctx context.Context, m *load.Message, done func(error)) error {
				return dev.SendAsync(ctx, telemetry(m), done)
			},
			SendBatch: func(ctx context.Context, ms []*load.Message) error {
				batch := make([]*sdk.Message, len(ms))
				for i, m := range ms {
					batch[i] = telemetry(m)
				}
				return dev.SendBatch(ctx, batch)
			},
			AtOnce: func(atOnce bool) {
				if atOnce {
					dev.SetLinger(0)
				} else {
					dev.SetLinger(sdk.DefaultLinger)
				}
			},
		})
	})
	p.Serve()
}

// telemetry adds the properties that every message has.
func telemetry(m *load.Message) *sdk.Message {
	return &sdk.Message{
		ID: m.ID, ContentType: load.ContentType, ContentEncoding: load.ContentEncoding,
		Properties: map[string]string{load.PropertyName: load.PropertyValue}, Payload: m.Payload,
	}
}

// connected waits until there is a session with the hub.
func connected(ctx context.Context, dev *sdk.Device) error {
	up := make(chan struct{}, 1)
	defer dev.OnState(func(c sdk.Connection) {
		if c.Connected() {
			select {
			case up <- struct{}{}:
			default:
			}
		}
	})()
	select {
	case <-up:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
