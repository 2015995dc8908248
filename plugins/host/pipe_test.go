//go:build unix

package host_test

import (
	"context"
	"os"
	"strings"
	"testing"

	"github.com/fairlead-iot/fairlead/internal/quietio"
	"github.com/fairlead-iot/fairlead/plugins/host"
	"github.com/fairlead-iot/fairlead/plugins/internal/wire"
	"github.com/fairlead-iot/fairlead/plugins/sdk/sdktest"
)

// A plugin that has closed what it reads from, and nothing else, is of no use any more, however alive it is.
func TestAPluginThatClosesOnePipeIsEnded(t *testing.T) {
	pluginIn, hostOut, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	hostIn, pluginOut, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer pluginOut.Close() //nolint:errcheck // the plugin's, which it keeps open
	go func() {
		plugin := wire.NewPluginPipe(quietio.NewPipe(pluginIn, pluginOut))
		if _, err := plugin.Recv(); err != nil {
			t.Error(err)
		}
		_ = pluginIn.Close()
		if err := plugin.Send(register()); err != nil {
			t.Error(err)
		}
	}()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	p, err := host.AttachConn(ctx, host.Config{Name: "press", Ping: never}, quietio.NewPipe(hostIn, hostOut), sdktest.NewDevice())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Handle(ctx, methodCall("echo", `{}`)); err == nil || ctx.Err() != nil {
		t.Errorf("a call ended with %v", err)
	}
	if err := waitDone(t, p); err == nil || !strings.Contains(err.Error(), "does not take") {
		t.Errorf("the plugin ended with %v", err)
	}
}
