//go:build unix

package host_test

import (
	"context"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fairlead-iot/fairlead/plugins/host"
	"github.com/fairlead-iot/fairlead/plugins/internal/wire"
	"github.com/fairlead-iot/fairlead/plugins/sdk/sdktest"
)

// Whatever the plugin does, Close is done when its context ends.
func TestCloseKeepsToItsTime(t *testing.T) {
	for name, reads := range map[string]bool{"one that does not drain": true, "one that does not read": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ours, theirs := net.Pipe()
				over := make(chan struct{})
				ended := make(chan struct{})
				go func() {
					defer close(ended)
					plugin := wire.NewPluginPipe(theirs)
					_, err := plugin.Recv()
					if err == nil {
						err = plugin.Send(register())
					}
					if err != nil {
						t.Error(err)
					}
					for reads && err == nil {
						_, err = plugin.Recv()
					}
					<-over
					_ = theirs.Close()
				}()
				p, err := host.AttachConn(t.Context(), host.Config{Name: "press", Ping: never}, ours, sdktest.NewDevice())
				if err != nil {
					t.Fatal(err)
				}
				began := time.Now()
				const limit = 900 * time.Millisecond
				closePlugin(t, p, limit)
				if d := time.Since(began); d > limit {
					t.Errorf("close took %s of %s", d, limit)
				}
				ctx, cancel := context.WithTimeout(t.Context(), limit)
				defer cancel()
				if err := p.Close(ctx); err != nil || time.Since(began) > limit {
					t.Errorf("once more: %v, after %s", err, time.Since(began))
				}
				close(over)
				<-ended
			})
		})
	}
}
