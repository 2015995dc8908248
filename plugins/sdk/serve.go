package sdk

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"
	plugin "github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"

	"github.com/fairlead-iot/fairlead/internal/quietio"
	"github.com/fairlead-iot/fairlead/internal/trim"
	"github.com/fairlead-iot/fairlead/plugins/internal/wire"
	"github.com/fairlead-iot/fairlead/plugins/pluginv1"
)

// Serve runs the plugin in a process that the host started, and does not return: it exits with 0 when the host is done
// with the plugin, and with 1 when the plugin's loop gave up or the host was lost. It takes over stdout, which belongs
// to the handshake: whatever the process writes there goes to stderr instead. SIGINT is ignored, since a terminal sends
// it to the host and its plugins alike, and the host decides; SIGTERM ends the plugin in an orderly way. When the plugin
// has fallen quiet after a burst, memory that is free goes back to the system.
func (p *Plugin) Serve() {
	if os.Getenv(wire.CookieKey) != wire.CookieValue {
		fmt.Fprintf(os.Stderr, "%s is a plugin of the Fairlead device runtime, and is started by it.\n"+
			"Name this file under `plugins:` in the runtime's configuration, as `command: [%s]`, and run `fairlead run`.\n",
			p.name, executable())
		os.Exit(1)
	}
	signal.Ignore(os.Interrupt)
	term := make(chan os.Signal, 1)
	signal.Notify(term, syscall.SIGTERM)
	stop := make(chan struct{})
	go func() { <-term; close(stop) }()
	go trim.Watch(context.Background()) // as long as the process lives

	if conn := inherited(); conn != nil {
		p.serveInherited(conn, stop)
	}
	p.serveRPC(stop)
}

// serveRPC serves version 1 of the protocol and exits.
func (p *Plugin) serveRPC(stop <-chan struct{}) {
	ended := make(chan error, 1)
	var server *grpc.Server // set before the session can end
	go func() {
		err := <-ended
		// The host is to hear how the session ended before the connection breaks.
		time.AfterFunc(exitLimit, func() { os.Exit(exitCode(err)) })
		server.GracefulStop()
		os.Exit(exitCode(err))
	}()

	// go-plugin puts pipes of its own in the place of stdout and stderr once the handshake is written. The session
	// comes after that, and puts back what we want.
	stderr := os.Stderr
	sv := p.service(func(err error) { ended <- err }, stop)
	plugin.Serve(&plugin.ServeConfig{
		HandshakeConfig: wire.Handshake(),
		VersionedPlugins: map[int]plugin.PluginSet{
			wire.VersionRPC: {wire.ServiceName: &served{service: sv, began: func() {
				os.Stdout, os.Stderr = stderr, stderr
				silenceStdout()
			}}},
		},
		GRPCServer: func(opts []grpc.ServerOption) *grpc.Server {
			server = grpc.NewServer(append(opts, grpc.MaxRecvMsgSize(wire.MaxReceive), grpc.WriteBufferSize(64<<10), grpc.ReadBufferSize(64<<10))...)
			return server
		},
		Logger: hclog.New(&hclog.LoggerOptions{Level: hclog.Error, Output: stderr}),
	})
	// The goroutine above is about to exit, unless the server ended without a session.
	time.Sleep(2 * exitLimit)
	os.Exit(1)
}

// serveInherited serves version 2 of the protocol and exits.
func (p *Plugin) serveInherited(conn io.ReadWriteCloser, stop <-chan struct{}) {
	fmt.Printf("1|%d|unix|%s|grpc|\n", wire.VersionPipes, wire.StreamAddress)
	os.Stdout = os.Stderr
	silenceStdout()
	os.Exit(exitCode(p.serveConn(conn, stop)))
}

// inherited returns the pipes that the host offers in this process's environment, nil for none. What the plugin starts
// has no part in them.
func inherited() io.ReadWriteCloser {
	text := os.Getenv(wire.StreamKey)
	_ = os.Unsetenv(wire.StreamKey)
	if !slices.Contains(strings.Split(os.Getenv("PLUGIN_PROTOCOL_VERSIONS"), ","), strconv.Itoa(wire.VersionPipes)) {
		return nil
	}
	var files [2]*os.File
	numbers := strings.Split(text, ",")
	if len(numbers) != len(files) {
		return nil
	}
	for i, n := range numbers {
		fd, err := strconv.ParseUint(n, 10, 31)
		if err != nil {
			return nil
		}
		if files[i] = adopt(uintptr(fd)); files[i] == nil {
			return nil
		}
	}
	return quietio.NewPipe(files[0], files[1])
}

// exitLimit is how long the last words may take.
const exitLimit = time.Second

func exitCode(err error) int {
	if err != nil {
		return 1
	}
	return 0
}

func executable() string {
	if exe, err := os.Executable(); err == nil {
		return exe
	}
	return os.Args[0]
}

// served is the go-plugin side of a service.
type served struct {
	plugin.NetRPCUnsupportedPlugin
	service *service
	began   func()
}

var _ plugin.GRPCPlugin = (*served)(nil)

// GRPCServer registers the service.
func (g *served) GRPCServer(_ *plugin.GRPCBroker, s *grpc.Server) error {
	pluginv1.RegisterPluginServiceServer(s, &beginning{service: g.service, began: g.began})
	return nil
}

// GRPCClient is the host's side, which this package is not.
func (*served) GRPCClient(context.Context, *plugin.GRPCBroker, *grpc.ClientConn) (any, error) {
	return nil, errors.New("the SDK serves plugins only")
}

// beginning does something before the session begins.
type beginning struct {
	*service
	began func()
}

func (b *beginning) Session(stream grpc.BidiStreamingServer[pluginv1.SessionRequest, pluginv1.SessionResponse]) error {
	b.began()
	return b.service.Session(stream)
}
