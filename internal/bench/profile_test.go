//go:build linux

package bench

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/pprof"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/fairlead-iot/fairlead/core"
	"github.com/fairlead-iot/fairlead/core/engine"
	"github.com/fairlead-iot/fairlead/credentials"
	"github.com/fairlead-iot/fairlead/device"
	"github.com/fairlead-iot/fairlead/internal/bench/load"
	"github.com/fairlead-iot/fairlead/plugins/host"
	"github.com/fairlead-iot/fairlead/transports/mqtt"
	"github.com/fairlead-iot/fairlead/transports/netdial"
)

// profiled is what the profiled runtime's process is told, in a file: it has no command line that could profile.
type profiled struct{ Address, CAFile, ConnectionString, Plugin, Socket, Profile string }

// runRuntime is the process of a runtime as cmd/runtime assembles it, with a CPU profile between two SIGUSR1.
func runRuntime(dir string) error {
	var p profiled
	text, err := os.ReadFile(filepath.Join(dir, "profiled.json"))
	if err == nil {
		err = json.Unmarshal(text, &p)
	}
	if err != nil {
		return err
	}
	runtime.GOMAXPROCS(1) // as the command does
	c, err := p.assemble(dir)
	if err != nil {
		return err
	}
	marks, ends := make(chan os.Signal, 1), make(chan os.Signal, 1)
	signal.Notify(marks, syscall.SIGUSR1)
	signal.Notify(ends, syscall.SIGTERM)
	f, err := os.Create(p.Profile)
	if err != nil {
		return err
	}
	<-marks
	if err := pprof.StartCPUProfile(f); err != nil {
		return err
	}
	<-marks
	pprof.StopCPUProfile()
	if err := f.Close(); err != nil {
		return err
	}
	<-ends
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return c.Shutdown(ctx)
}

func (p profiled) assemble(dir string) (*device.Client, error) {
	text, err := os.ReadFile(p.ConnectionString)
	if err != nil {
		return nil, err
	}
	ca, err := os.ReadFile(p.CAFile)
	if err != nil {
		return nil, err
	}
	cs, err := credentials.ParseConnectionString(string(text))
	if err != nil {
		return nil, err
	}
	cfg := device.DefaultConfig()
	cfg.ConnectAtStart, cfg.Identity = true, cs.Identity
	cfg.Logger = slog.New(slog.NewTextHandler(os.Stderr, nil))
	if cfg.Credentials, err = credentials.NewSharedKey(cs.Identity, cs.Key, time.Hour, time.Now); err != nil {
		return nil, err
	}
	address, portText, err := net.SplitHostPort(p.Address)
	if err != nil {
		return nil, err
	}
	port, err := strconv.Atoi(portText)
	if err != nil {
		return nil, err
	}
	transport, err := mqtt.New(mqtt.Config{
		Identity: cs.Identity, Port: port, Address: address, TLS: netdial.TLSConfig{ServerVerificationCert: ca}, Logger: cfg.Logger,
	})
	if err != nil {
		return nil, err
	}
	cfg.Transports = []core.Transport{transport}
	settings, err := json.Marshal(map[string]string{"socket": p.Socket})
	if err != nil {
		return nil, err
	}
	cfg.Plugins = []engine.Plugin{{
		PluginConfig: core.PluginConfig{Name: "bench"},
		Launcher: host.New(host.Config{
			Name: "bench", Command: []string{p.Plugin}, RuntimeDir: dir, Settings: settings, Logger: cfg.Logger,
		}),
	}}
	return device.New(cfg)
}

// TestProfile writes CPU profiles of runtime, plugin and peer at work.
func TestProfile(t *testing.T) {
	if *profileDir == "" {
		t.Skip("profiles only with -profile DIR")
	}
	out, err := filepath.Abs(*profileDir)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(out, 0o750); err != nil {
		t.Fatal(err)
	}
	files, err := build(t.TempDir(), "profile", "./plugin", "./peer")
	if err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	w := &world{hub: startHub(t)}
	w.peers = w.newPeer(t, "peer", files[1])
	cs, dir := w.hub.add("ours"), t.TempDir()
	w.ours = &side{t: t, hub: w.hub, device: "ours", launch: func(socket string) *exec.Cmd {
		text, err := json.Marshal(profiled{w.hub.Address, w.hub.CAFile, cs, files[0], socket, filepath.Join(out, "runtime.pprof")})
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, "profiled.json"), text, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(self)
		cmd.Env = append(os.Environ(), roleVar+"=runtime", dirVar+"="+dir)
		return cmd
	}}
	j := load.Job{Count: 100_000, Size: *size, Window: window}
	mark := func() {
		if err := w.ours.cmd.Process.Signal(syscall.SIGUSR1); err != nil {
			t.Fatal(err)
		}
	}
	w.ours.up()
	w.peers.up()
	w.both(0, func(s *side, _ bool) { s.send(j) }) // to warm up
	j.Count, j.Rate = 1_000_000, *rate
	if j.Rate > 0 {
		j.Count = 20 * j.Rate // 20 s
	}
	j.Profile = filepath.Join(out, "plugin.pprof")
	mark()
	ours := w.ours.send(j)
	mark()
	j.Profile = filepath.Join(out, "peer.pprof")
	peers := w.peers.send(j)
	fmt.Printf("CPU s per 100k, profiled: fairlead %.2f, paho %.2f; rate k/s: %.1f, %.1f; profiles in %s\n",
		ours.cpu/float64(j.Count)*1e5, peers.cpu/float64(j.Count)*1e5, float64(j.Count)/ours.wall/1e3, float64(j.Count)/peers.wall/1e3, out)
}
