//go:build linux

package bench

import (
	"flag"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

var (
	figures    = flag.Bool("figures", false, "measure, and print the table")
	rounds     = flag.Int("rounds", 7, "how often each figure is taken; its median counts")
	only       = flag.String("only", strings.Join(parts, ","), "the parts that are measured")
	profileDir = flag.String("profile", "", "directory for CPU profiles")
	size       = flag.Int("size", 256, "bytes of a message that is profiled")
	rate       = flag.Int("rate", 0, "messages per second that are profiled; 0 is as many as can be")
)

// The roles of this test binary beside its own.
const (
	roleVar = "FAIRLEAD_BENCH_ROLE"
	dirVar  = "FAIRLEAD_BENCH_DIR"
)

func TestMain(m *testing.M) {
	var err error
	switch os.Getenv(roleVar) {
	case "hub":
		err = runHub(os.Getenv(dirVar))
	case "runtime":
		err = runRuntime(os.Getenv(dirVar))
	default:
		os.Exit(m.Run())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// world is everything that runs during a measurement: the hub, and both sides made but not started.
type world struct {
	hub         *hubProcess
	ours, peers *side
}

// newWorld builds the programs and starts the hub.
func newWorld(t *testing.T, tags string) *world {
	t.Helper()
	files, err := build(t.TempDir(), tags, "../../cmd/runtime", "./plugin", "./peer")
	if err != nil {
		t.Fatal(err)
	}
	w := &world{hub: startHub(t)}
	w.ours = w.newOurs(t, "ours", files[0], files[1])
	w.peers = w.newPeer(t, "peer", files[2])
	return w
}

// newOurs is the built runtime with the benchmark's plugin, configured as a user would.
func (w *world) newOurs(t *testing.T, device, runtime, plugin string) *side {
	t.Helper()
	return w.newRoute(t, device, runtime, plugin, "mqtt", "")
}

// newRoute is the same by a route of a kind, with more keys of it.
func (w *world) newRoute(t *testing.T, device, runtime, plugin, use, more string) *side {
	t.Helper()
	cs := w.hub.add(device)
	dir := t.TempDir()
	address := w.hub.Address
	if use == "mqttws" {
		address = w.hub.HTTPS
	}
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	return &side{t: t, hub: w.hub, device: device, launch: func(socket string) *exec.Cmd {
		file := filepath.Join(dir, "fairlead.yaml")
		text := `version: 1
device:
  connection_string: {file: ` + strconv.Quote(cs) + `}
tls:
  server_verification_cert: {file: ` + strconv.Quote(w.hub.CAFile) + `}
transports:
  - {use: ` + use + `, port: ` + port + `, address: 127.0.0.1` + more + `}
plugins:
  bench:
    command: [` + strconv.Quote(plugin) + `]
    settings: {socket: ` + strconv.Quote(socket) + `}
state_dir: ` + strconv.Quote(filepath.Join(dir, "state")) + "\n"
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return exec.Command(runtime, "run", "-c", file)
	}}
}

// newPeer is stock paho in its own process.
func (w *world) newPeer(t *testing.T, device, peer string) *side {
	t.Helper()
	cs := w.hub.add(device)
	return &side{t: t, hub: w.hub, device: device, launch: func(socket string) *exec.Cmd {
		return exec.Command(peer, socket, w.hub.Address, w.hub.CAFile, cs)
	}}
}
