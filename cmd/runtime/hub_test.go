package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"

	"github.com/fairlead-iot/fairlead/hub"
	"github.com/fairlead-iot/fairlead/hub/api"
)

// runHub carries out a hub command line with the program's own rules for exit codes.
// lockedBuffer takes what the log and the command write at the same time, as the file does that stderr is.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func runHub(ctx context.Context, args ...string) (stdout, stderr string, code int) {
	var out bytes.Buffer
	var errs lockedBuffer
	cmd := newHubCommand()
	cmd.SilenceErrors, cmd.SilenceUsage = true, true
	usageArgs(cmd)
	cmd.SetArgs(args)
	cmd.SetOut(&out)
	cmd.SetErr(&errs)
	err := cmd.ExecuteContext(ctx)
	if err != nil {
		_, _ = errs.Write([]byte(err.Error())) // it is memory
	}
	return out.String(), errs.String(), exitCode(err)
}

// serveHub runs hub serve until the test ends and returns what its ready file says.
func serveHub(t *testing.T, dir string) (hubReady, func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	readyFile := filepath.Join(t.TempDir(), "ready.json")
	ended := make(chan string, 1)
	go func() {
		_, stderr, code := runHub(ctx, "serve", "--dir", dir, "--mqtt-port", "0", "--https-port", "0", "--ready-file", readyFile)
		if code == 0 && !strings.Contains(stderr, "  fairlead hub device add dev1 --out dev1.cs --dir "+dir) {
			stderr, code = "it does not say what to do next: "+stderr, exitFailed
		}
		ended <- fmt.Sprintf("%d %s", code, stderr)
	}()
	stop := func() {
		cancel()
		if s, ok := <-ended; ok && !strings.HasPrefix(s, "0 ") {
			t.Errorf("hub serve ended with %s", s)
		}
		close(ended)
	}
	var r hubReady
	deadline := time.Now().Add(time.Minute)
	for {
		text, err := os.ReadFile(readyFile)
		if err == nil {
			if err := json.Unmarshal(text, &r); err != nil {
				t.Fatal(err)
			}
			return r, stop
		}
		select {
		case s := <-ended:
			t.Fatalf("hub serve ended: %s", s)
		default:
		}
		if time.Now().After(deadline) {
			t.Fatal("no ready file after a minute")
		}
		time.Sleep(5 * time.Millisecond) // between two looks for the file
	}
}

func TestHubCommands(t *testing.T) {
	dir := t.TempDir()
	r, stop := serveHub(t, dir)
	defer stop()
	if r.Hostname != "localhost" || r.CAFile != filepath.Join(dir, "ca.pem") || !strings.Contains(r.ServiceConnectionString, "SharedAccessKeyName=iothubowner") {
		t.Errorf("ready file %+v", r)
	}
	out := filepath.Join(t.TempDir(), "device.cs")
	_, stderr, code := runHub(t.Context(), "device", "add", "dev1", "--out", out, "--dir", dir)
	if code != 0 || !strings.Contains(stderr, "file: "+r.CAFile) || !strings.Contains(stderr, "file: "+out) {
		t.Fatalf("device add: %d %s", code, stderr)
	}
	info, err := os.Stat(out)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("connection string file: %v, %v", info, err)
	}

	steps := []struct {
		args []string
		code int
		want string // part of stdout, or of stderr when the code is not 0
	}{
		{[]string{"device", "add", "dev2"}, 0, "HostName=localhost;DeviceId=dev2;SharedAccessKey="},
		{[]string{"device", "add", "dev2"}, 1, "is already registered"},
		{[]string{"device", "add", "a b"}, 2, "the id"},
		{[]string{"device", "list"}, 0, "dev2"},
		{[]string{"device", "list", "--json"}, 0, `"primaryKey": ""`},
		{[]string{"device", "delete", "dev2"}, 0, ""},
		{[]string{"twin", "patch", "dev1", `{"properties":{"desired":{"interval":10}}}`}, 0, `"interval": 10`},
		{[]string{"twin", "patch", "dev1", `{"interval":10}`}, 2, "its form is"},
		{[]string{"twin", "patch", "dev1", `{`}, 2, "not a JSON object"},
		{[]string{"twin", "get", "dev1"}, 0, `"$version": 2`},
		{[]string{"twin", "get", "none"}, 1, "DeviceNotFound"},
		{[]string{"c2d", "dev1", "x", "--ack", "negative", "--message-id", "soon", "--ttl", "1ms"}, 0, ""},
		{[]string{"c2d", "dev1", "y"}, 0, ""},
		{[]string{"feedback"}, 0, "  dev1  soon  Expired\n"},
		{[]string{"feedback", "--json"}, 0, ""},
		{[]string{"monitor", "--source", "gossip"}, 2, "is none of Telemetry, twinChangeEvents"},
		{[]string{"monitor", "--source", "all", "--follow=false"}, 0, ""},
		{[]string{"fault", "add", "http-status", "503", "--code=500"}, 2, "given twice"},
		{[]string{"fault", "add", "slow-reads"}, 2, "delay is missing"},
		{[]string{"method", "dev1", "reboot"}, 1, "404103"},
		{[]string{"method", "dev1", "reboot", "--timeout", "1s"}, 2, "within [5; 300]"},
		{[]string{"method", "dev1", "reboot", "--payload", "text"}, 2, "not JSON"},
		{[]string{"c2d", "dev1", "hello", "--property", "a=b", "--message-id", "m1", "--ttl", "5m"}, 0, ""},
		{[]string{"c2d", "dev1", "hello", "--property", "a"}, 2, "KEY=VALUE"},
		{[]string{"c2d", "dev1/mod", "hello"}, 2, "dev1/mod is a module"},
		{[]string{"fault", "add", "connack", "5", "--count", "1", "--device", "devX"}, 0, "1\n"},
		{[]string{"fault", "add", "storage-status", "0"}, 2, "code 0 is none"},
		{[]string{"fault", "add", "http-status", "--code", "0"}, 2, "code 0 is none"},
		{[]string{"fault", "add", "connack", "9"}, 2, "code must be 1 to 5, not 9"},
		{[]string{"fault", "add", "earthquake"}, 2, "there are connack, cut"},
		{[]string{"fault", "list"}, 0, "devX"},
		{[]string{"fault", "remove", "all"}, 0, ""},
		{[]string{"fault", "add", "jump-version", "--device", "dev1", "--code=-5"}, 0, ""},
		{[]string{"fault", "list", "--json"}, 0, "[]\n"},
		{[]string{"monitor", "--since", "yesterday"}, 2, "neither a duration"},
	}
	for _, s := range steps {
		stdout, stderr, code := runHub(t.Context(), append(s.args, "--dir", dir)...)
		text := stdout
		if s.code != 0 {
			text = stderr
		}
		if code != s.code || !strings.Contains(text, s.want) {
			t.Errorf("%q: exit %d, stdout %q, stderr %q; want %d with %q", s.args, code, stdout, stderr, s.code, s.want)
		}
	}
}

func TestHubAndADevice(t *testing.T) {
	dir := t.TempDir()
	r, stop := serveHub(t, dir)
	defer stop()
	text, _, code := runHub(t.Context(), "device", "add", "dev1", "--dir", dir)
	if code != 0 {
		t.Fatal(code)
	}
	ca, err := os.ReadFile(r.CAFile)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca)
	password, err := hub.DeviceToken(strings.TrimSpace(text), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	client := mqtt.NewClient(mqtt.NewClientOptions().AddBroker("tls://" + r.MQTT).SetClientID("dev1").SetUsername("localhost/dev1/?api-version=2021-04-12").
		SetPassword(password).SetProtocolVersion(4).SetAutoReconnect(false).SetTLSConfig(&tls.Config{RootCAs: pool, ServerName: "localhost", MinVersion: tls.VersionTLS12}))
	wait := func(tok mqtt.Token) {
		t.Helper()
		if !tok.WaitTimeout(time.Minute) || tok.Error() != nil {
			t.Fatal(tok.Error())
		}
	}
	wait(client.Connect())
	defer client.Disconnect(0)
	wait(client.Subscribe("$iothub/methods/POST/#", 1, func(c mqtt.Client, m mqtt.Message) {
		_, rid, _ := strings.Cut(m.Topic(), "$rid=")
		c.Publish("$iothub/methods/res/200/?$rid="+rid, 0, false, `{"echo":`+string(m.Payload())+`}`)
	}))
	stdout, stderr, code := runHub(t.Context(), "method", "dev1", "echo", "--payload", `{"a":1}`, "--dir", dir)
	if code != 0 || stdout != `{"status":200,"payload":{"echo":{"a":1}}}`+"\n" {
		t.Errorf("method: %d %s %s", code, stdout, stderr)
	}
	wait(client.Publish("devices/dev1/messages/events/kind=test", 1, false, "hello\x1b[31m"))
	stdout, _, code = runHub(t.Context(), "monitor", "--since", "1h", "--count", "1", "--dir", dir)
	if code != 0 || !strings.HasSuffix(stdout, "  dev1  {kind=test}  hello·[31m\n") {
		t.Errorf("monitor: %d %q", code, stdout)
	}
	stdout, _, code = runHub(t.Context(), "monitor", "--follow=false", "--json", "--dir", dir)
	var m api.Message
	if err := json.Unmarshal([]byte(stdout), &m); err != nil || code != 0 || m.Properties["kind"] != "test" {
		t.Errorf("monitor --json: %d %q", code, stdout)
	}
}

func TestHubDirectoryInUseAndNoHub(t *testing.T) {
	dir := t.TempDir()
	r, stop := serveHub(t, dir)
	_, taken, err := net.SplitHostPort(r.HTTPS)
	if err != nil {
		t.Fatal(err)
	}
	for _, port := range []string{"0", taken} {
		if _, stderr, code := runHub(t.Context(), "serve", "--dir", dir, "--mqtt-port", "0", "--https-port", port); code != exitInUse {
			t.Errorf("a second hub at port %s: %d %s", port, code, stderr)
		}
	}
	if _, stderr, code := runHub(t.Context(), "device", "list", "--dir", dir); code != 0 {
		t.Errorf("the second hub removed what leads to the first: %d %s", code, stderr)
	}
	if _, stderr, code := runHub(t.Context(), "serve", "--dir", t.TempDir(), "--mqtt-port", "0", "--https-port", taken); code != exitFailed || !strings.Contains(stderr, "listen for HTTPS") {
		t.Errorf("a port in use: %d %s", code, stderr)
	}
	stop()
	if _, stderr, code := runHub(t.Context(), "device", "list", "--dir", dir); code != exitFailed || !strings.Contains(stderr, "no hub runs in") {
		t.Errorf("no hub: %d %s", code, stderr)
	}
}

// A script that waits for the ready file must not see what a killed hub has left.
func TestHubRemovesAStaleReadyFile(t *testing.T) {
	dir, ready := t.TempDir(), filepath.Join(t.TempDir(), "ready.json")
	for _, name := range []string{ready, filepath.Join(dir, hubFile)} {
		if err := os.WriteFile(name, []byte(`{"mqtt":"127.0.0.1:1"}`), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close() //nolint:errcheck // nothing was done with it
	_, taken, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if _, stderr, code := runHub(t.Context(), "serve", "--dir", dir, "--mqtt-port", taken, "--https-port", "0", "--ready-file", ready); code != exitFailed {
		t.Fatalf("a port in use: %d %s", code, stderr)
	}
	for _, name := range []string{ready, filepath.Join(dir, hubFile)} {
		if _, err := os.Stat(name); err == nil {
			t.Errorf("%s is still there", name)
		}
	}
}

func TestHubRefusesWhatNeedsAMQP(t *testing.T) {
	cs := "HostName=myhub.azure-devices.net;SharedAccessKeyName=service;SharedAccessKey=c2VjcmV0"
	for _, args := range [][]string{{"c2d", "dev1", "x"}, {"monitor"}} {
		_, stderr, code := runHub(t.Context(), append(args, "--connection-string", cs)...)
		if code != exitUsage || !strings.Contains(stderr, "az iot") || strings.Contains(stderr, "c2VjcmV0") {
			t.Errorf("%q: %d %s", args, code, stderr)
		}
	}
	if _, stderr, code := runHub(t.Context(), "fault", "list", "--connection-string", cs); code != exitUsage || !strings.Contains(stderr, "hub serve") {
		t.Errorf("faults: %d %s", code, stderr)
	}
	_, stderr, code := runHub(t.Context(), "device", "list", "--connection-string", "HostName=x;SharedAccessKey=c2VjcmV0")
	if code != exitUsage || strings.Contains(stderr, "c2VjcmV0") {
		t.Errorf("bad connection string: %d %s", code, stderr)
	}
}
