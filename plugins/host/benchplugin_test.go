//go:build unix

package host_test

import (
	"context"
	"sync"

	"github.com/fairlead-iot/fairlead/plugins/sdk"
)

type benchSettings struct {
	How string `json:"how"`
	N   int    `json:"n"`
}

// benchPlugin sends N messages when its method "go" is called.
func benchPlugin() *sdk.Plugin {
	p := sdk.New("bench")
	var s benchSettings
	p.Settings(&s)
	devices := make(chan *sdk.Device, 1)
	p.Run(func(_ context.Context, dev *sdk.Device) error { devices <- dev; return nil })
	p.HandleMethod("go", func(ctx context.Context, _ *sdk.MethodRequest) (any, error) {
		dev := <-devices
		payload := make([]byte, 256)
		message := func() *sdk.Message { return &sdk.Message{Payload: payload} }
		switch s.How {
		case "async":
			for range s.N {
				if err := dev.SendAsync(ctx, message(), nil); err != nil {
					return nil, err
				}
			}
		case "batch64":
			for left := s.N; left > 0; left -= 64 {
				batch := make([]*sdk.Message, min(left, 64))
				for i := range batch {
					batch[i] = message()
				}
				if err := dev.SendBatch(ctx, batch); err != nil {
					return nil, err
				}
			}
		default:
			senders := 1
			if s.How == "parallel64" {
				senders = 64
			}
			var wg sync.WaitGroup
			for i := range senders {
				wg.Go(func() {
					for j := i; j < s.N; j += senders {
						if err := dev.Send(ctx, message()); err != nil {
							dev.Log().Error("send", "error", err)
							return
						}
					}
				})
			}
			wg.Wait()
		}
		return nil, nil
	})
	return p
}
