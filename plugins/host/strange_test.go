//go:build unix

package host_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"time"

	plugin "github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"

	"github.com/fairlead-iot/fairlead/plugins/host"
	"github.com/fairlead-iot/fairlead/plugins/pluginv1"
	"github.com/fairlead-iot/fairlead/plugins/sdk/sdktest"
)

// handshake is that of the host, written out: it must not change.
var handshake = plugin.HandshakeConfig{MagicCookieKey: "FAIRLEAD_PLUGIN", MagicCookieValue: "ahoy-1"}

// stranger serves go-plugin's handshake, and whatever register registers.
type stranger struct {
	plugin.NetRPCUnsupportedPlugin
	register func(*grpc.Server)
}

func (s *stranger) GRPCServer(_ *plugin.GRPCBroker, g *grpc.Server) error { s.register(g); return nil }

func (s *stranger) GRPCClient(context.Context, *plugin.GRPCBroker, *grpc.ClientConn) (any, error) {
	return nil, nil
}

func serveStranger(register func(*grpc.Server)) {
	plugin.Serve(&plugin.ServeConfig{
		HandshakeConfig:  handshake,
		VersionedPlugins: map[int]plugin.PluginSet{1: {"x": &stranger{register: register}}},
		GRPCServer:       plugin.DefaultGRPCServer,
	})
}

// strangerServe is a go-plugin plugin of another program.
func strangerServe() { serveStranger(func(*grpc.Server) {}) }

// script is a plugin that plays with the stream.
type script struct {
	pluginv1.UnimplementedPluginServiceServer
	play func(grpc.BidiStreamingServer[pluginv1.SessionRequest, pluginv1.SessionResponse]) error
}

func (s *script) Session(stream grpc.BidiStreamingServer[pluginv1.SessionRequest, pluginv1.SessionResponse]) error {
	return s.play(stream)
}

func serveScript(play func(grpc.BidiStreamingServer[pluginv1.SessionRequest, pluginv1.SessionResponse]) error) {
	serveStranger(func(g *grpc.Server) { pluginv1.RegisterPluginServiceServer(g, &script{play: play}) })
}

// unregisteredServe never registers.
func unregisteredServe() {
	serveScript(func(stream grpc.BidiStreamingServer[pluginv1.SessionRequest, pluginv1.SessionResponse]) error {
		<-stream.Context().Done()
		return nil
	})
}

// hostRole is a host with one plugin; it prints the pids of the plugin and of its child and waits to be killed.
func hostRole() int {
	ctx := context.Background()
	p, err := host.New(host.Config{
		Name: "orphan", Command: []string{os.Args[0]}, Env: map[string]string{roleVar: "plugin"}, RuntimeDir: os.Getenv("FAIRLEAD_TEST_DIR"),
		Logger: slog.New(slog.NewTextHandler(os.Stderr, nil)),
	}).Launch(ctx, sdktest.NewDevice())
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	a, err := p.Handle(ctx, methodCall("child", `{}`))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	var child int
	if err := json.Unmarshal(a.Payload, &child); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	fmt.Println(p.Info().PID, child)
	time.Sleep(time.Minute)
	return 0
}
