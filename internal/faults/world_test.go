//go:build faults && unix

package faults

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

const (
	// device is the device's id at the hub.
	device = "dev1"
	// hostname is the hub's own name, provisioningHost its provisioning service's.
	hostname         = "localhost"
	provisioningHost = "global.azure-devices-provisioning.net"
)

// world is a hub and a runtime with its configuration.
type world struct {
	t *testing.T
	// id is what the hub calls the device, or the module; env is what the runtime's environment has besides.
	id  string
	env []string
	// secrets are the files that hold a secret by right.
	secrets []string
	dir     string
	hub     *process
	runtime *process
	// netns are the network namespaces in which they run; "" is the test's own.
	netns struct{ hub, runtime string }
	// hubFlags are the hub's flags, beside its ports and files.
	hubFlags []string
	ready    struct {
		MQTT   string `json:"mqtt"`
		HTTPS  string `json:"https"`
		CAFile string `json:"ca_file"`
		// Service is a connection string of the service side.
		Service string `json:"service_connection_string"`
	}
}

// newWorld starts a hub and registers the device.
func newWorld(t *testing.T) *world {
	t.Helper()
	w := emptyWorld(t)
	w.startHub("0", "0")
	w.must("hub", "device", "add", device, "--out", w.path("device.cs"), "--dir", w.path("hub"))
	return w
}

// emptyWorld makes a directory in which nothing runs yet.
func emptyWorld(t *testing.T) *world {
	t.Helper()
	dir, err := os.MkdirTemp("", "faults-") //nolint:usetesting // the test's own would be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if *keep {
			t.Logf("kept: %s", dir)
			return
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return &world{
		t: t, dir: dir, id: device, secrets: []string{"device.cs"}, hubFlags: []string{"--hostname", hostname, "--hostname", provisioningHost},
	}
}

func (w *world) path(elem ...string) string {
	return filepath.Join(append([]string{w.dir}, elem...)...)
}

// startHub starts the hub and waits until it accepts connections.
func (w *world) startHub(mqttPort, httpsPort string) {
	w.t.Helper()
	file := w.path("ready.json")
	if err := os.Remove(file); err != nil && !errors.Is(err, os.ErrNotExist) {
		w.t.Fatal(err)
	}
	w.hub = w.launchHub(mqttPort, httpsPort)
	eventually(w.t, 30*time.Second, "the hub's ready file", func() bool {
		text, err := os.ReadFile(file)
		return err == nil && json.Unmarshal(text, &w.ready) == nil
	})
}

// launchHub starts the hub, and does not wait.
func (w *world) launchHub(mqttPort, httpsPort string) *process {
	w.t.Helper()
	args := []string{"hub", "serve", "--dir", w.path("hub"), "--mqtt-port", mqttPort, "--https-port", httpsPort, "--ready-file", w.path("ready.json")}
	return launch(w.t, w.dir, "hub", nil, w.argv(append(args, w.hubFlags...)))
}

// argv is the command line that runs the program where it belongs: whatever concerns the hub, in the hub's namespace.
func (w *world) argv(args []string) []string {
	ns := w.netns.runtime
	if args[0] == "hub" {
		ns = w.netns.hub
	}
	out := []string{programs.fairlead}
	if ns != "" {
		out = []string{"ip", "netns", "exec", ns, programs.fairlead} // it becomes the program: the process is the same
	}
	return append(out, args...)
}

// restartHub starts the hub again where it was.
func (w *world) restartHub() {
	w.t.Helper()
	w.startHub(w.ports())
}

// ports are those where the hub is, or was.
func (w *world) ports() (mqtt, https string) {
	w.t.Helper()
	port := func(addr string) string {
		_, p, err := net.SplitHostPort(addr)
		if err != nil {
			w.t.Fatal(err)
		}
		return p
	}
	return port(w.ready.MQTT), port(w.ready.HTTPS)
}

// configure writes the configuration; plugins is the YAML below "plugins:", more the YAML of further sections.
func (w *world) configure(plugins, more string) {
	w.t.Helper()
	host, port, err := net.SplitHostPort(w.ready.MQTT)
	if err != nil {
		w.t.Fatal(err)
	}
	ca := strconv.Quote(w.ready.CAFile)
	trust := "server_verification_cert: {file: " + ca + "}"
	switch {
	case strings.Contains(more, "edge_environment"):
		trust = "" // the IoT Edge runtime says whom to trust
	case strings.Contains(more, "provisioning"):
		trust = "extra_ca: {file: " + ca + "}" // the other one is for the hub alone
	}
	text := `version: 1
tls: {` + trust + `}
state_dir: ` + strconv.Quote(w.path("state")) + "\n"
	if !strings.Contains(more, "transports:") {
		text += "transports: [{use: mqtt, port: " + port + ", address: " + host + "}]\n"
	}
	if !strings.Contains(more, "device:") {
		text += "device: {connection_string: {file: device.cs}}\n"
	}
	text += more + "\nplugins:\n" + plugins + "\n"
	if err := os.WriteFile(w.path("fairlead.yaml"), []byte(text), 0o600); err != nil {
		w.t.Fatal(err)
	}
}

// numbers is the YAML of the plugin of numbers; settings is JSON.
func numbers(settings string) string {
	return "  numbers: {command: [" + strconv.Quote(programs.numbers) + "], settings: " + settings + "}"
}

// run starts the runtime and waits until it is connected and its plugins are ready.
func (w *world) run() {
	w.t.Helper()
	w.runtime = launch(w.t, w.dir, "runtime", w.env, w.argv([]string{"run", "-c", w.path("fairlead.yaml")}))
	eventually(w.t, 30*time.Second, "a session and ready plugins", func() bool {
		select {
		case <-w.runtime.done:
			w.t.Fatalf("the runtime ended: %v", w.runtime.cmd.ProcessState)
		default:
		}
		s, ok := w.status()
		if !ok || s.Connection.State != "connected" {
			return false
		}
		for _, p := range s.Plugins {
			if p.State != "ready" {
				return false
			}
		}
		return true
	})
}

// cli carries out a command line as a user does.
func (w *world) cli(args ...string) (stdout, stderr string, code int) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	var out, errs bytes.Buffer
	argv := w.argv(args)
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Stdout, cmd.Stderr, cmd.Dir, cmd.Env = &out, &errs, w.dir, append(environ(w.dir), w.env...)
	err := cmd.Run()
	if _, ok := errors.AsType[*exec.ExitError](err); err != nil && !ok {
		w.t.Errorf("run %q: %v", args, err)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

// must is cli of a command that has to work.
func (w *world) must(args ...string) (stdout string) {
	w.t.Helper()
	stdout, stderr, code := w.cli(args...)
	if code != 0 {
		w.t.Fatalf("%q exited %d: %s%s", args, code, stdout, stderr)
	}
	return stdout
}

// hubDo is must of a command of the service side.
func (w *world) hubDo(args ...string) (stdout string) {
	w.t.Helper()
	return w.must(append(append([]string{"hub"}, args...), "--dir", w.path("hub"))...)
}

// status is what `fairlead status --json` says, as far as the tests look.
type status struct {
	Connection struct {
		State       string  `json:"state"`
		Reason      string  `json:"reason"`
		NextAttempt float64 `json:"next_attempt_s"`
	} `json:"connection"`
	Outbox struct {
		Messages int `json:"messages"`
	} `json:"outbox"`
	Plugins []struct {
		Name     string `json:"name"`
		State    string `json:"state"`
		PID      int    `json:"pid"`
		Restarts int    `json:"restarts"`
		Reason   string `json:"reason"`
	} `json:"plugins"`
	Counters struct {
		Attempts     int `json:"attempts"`
		Sessions     int `json:"sessions"`
		Losses       int `json:"losses"`
		Renewals     int `json:"renewals"`
		Submitted    int `json:"telemetry_submitted"`
		Acknowledged int `json:"telemetry_acknowledged"`
		DeadLetters  int `json:"c2d_dead_letters"`
	} `json:"counters"`
	LastDeadLetter string `json:"last_dead_letter"`
}

// status asks the running runtime; ok is false while nobody answers.
func (w *world) status() (s status, ok bool) {
	w.t.Helper()
	stdout, _, code := w.cli("status", "--json", "-c", w.path("fairlead.yaml"))
	if code != 0 {
		return s, false
	}
	if err := json.Unmarshal([]byte(stdout), &s); err != nil {
		w.t.Fatalf("status %q: %v", stdout, err)
	}
	return s, true
}

// mustStatus is status of a runtime that has to answer.
func (w *world) mustStatus() status {
	w.t.Helper()
	s, ok := w.status()
	if !ok {
		w.t.Fatal("the runtime does not answer")
	}
	return s
}

// subscribeLimit is how long a call waits for the device to take methods, which it does a moment after its plugins are ready.
const subscribeLimit = "20s"

// answer is what a method call came to.
type answer struct {
	Status  int             `json:"status"`
	Payload json.RawMessage `json:"payload"`
}

// method calls a direct method; a call that the hub could not make fails the test.
func (w *world) method(name, payload string, flags ...string) answer {
	w.t.Helper()
	var a answer
	stdout := w.hubDo(append([]string{"method", w.id, name, "--payload", payload, "--connect-timeout", subscribeLimit}, flags...)...)
	if err := json.Unmarshal([]byte(stdout), &a); err != nil {
		w.t.Fatalf("answer %q: %v", stdout, err)
	}
	return a
}

// call calls a direct method in the background.
func (w *world) call(name, payload string) <-chan answer {
	answered := make(chan answer, 1)
	go func() {
		var a answer
		stdout, stderr, code := w.cli("hub", "method", w.id, name, "--payload", payload, "--connect-timeout", subscribeLimit, "--dir", w.path("hub"))
		if err := json.Unmarshal([]byte(stdout), &a); err != nil || code != 0 {
			w.t.Errorf("method %s: %d %s%s", name, code, stdout, stderr)
		}
		answered <- a
	}()
	return answered
}

// pluginFile returns the lines of a file that a plugin keeps; none if there is no file.
func (w *world) pluginFile(plugin, name string) []string {
	w.t.Helper()
	data, err := os.ReadFile(w.path("state", "plugins", plugin, name))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		w.t.Fatal(err)
	}
	end := bytes.LastIndexByte(data, '\n') // what stands behind it is being written
	if end < 0 {
		return nil
	}
	return strings.Split(string(data[:end]), "\n")
}
