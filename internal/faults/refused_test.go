//go:build faults && unix

package faults

import (
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// What needs no hub is in cmd/runtime/testdata/script/run_*.txtar.
func TestWhatTheHubDoesNotLikeIsSaidInTheStatusAndTriedAgain(t *testing.T) {
	t.Parallel()
	key := regexp.MustCompile(`SharedAccessKey=[^;\n]+`)
	tests := []struct {
		name   string
		change func(t *testing.T, w *world)
		reason string // a regular expression
	}{
		{
			name: "an authority that did not issue the hub's certificate",
			change: func(t *testing.T, w *world) {
				other := newWorld(t)
				w.ready.CAFile = other.ready.CAFile
				w.configure("", "")
			},
			reason: `^dial tls 127\.0\.0\.1:\d+: the certificate of localhost was issued by ".+", which is not trusted: if that is your company's proxy, ` +
				`add its CA as tls\.extra_ca; if it is your gateway's, set tls\.server_verification_cert; otherwise somebody is listening in: `,
		},
		{
			name: "no authority named, so that the system's are asked",
			change: func(t *testing.T, w *world) {
				edit(t, w.path("fairlead.yaml"), func(s string) string { return regexp.MustCompile(`(?m)^tls:.*\n`).ReplaceAllString(s, "") })
			},
			reason: `^dial tls 127\.0\.0\.1:\d+: the certificate of localhost was issued by ".+", which is not trusted: `,
		},
		{
			name: "another hub's name",
			change: func(t *testing.T, w *world) {
				edit(t, w.path("device.cs"), func(s string) string {
					return strings.Replace(s, "HostName=localhost", "HostName=other.azure-devices.net", 1)
				})
			},
			reason: `^dial tls 127\.0\.0\.1:\d+: the certificate is not for other\.azure-devices\.net \(.+\): is the host name right, and does an address override point to the hub\?`,
		},
		{
			name: "a key that is not the device's",
			change: func(t *testing.T, w *world) {
				edit(t, w.path("device.cs"), func(s string) string { return key.ReplaceAllString(s, "SharedAccessKey=c2VjcmV0") })
			},
			reason: `^connect: the hub does not accept the device's proof of identity: is the key the device's own, the device known and enabled, and this device's clock right\? \(CONNACK 5\)`,
		},
		{
			name: "a device that the hub does not know",
			change: func(t *testing.T, w *world) {
				edit(t, w.path("device.cs"), func(s string) string { return strings.Replace(s, "DeviceId="+device, "DeviceId=nobody", 1) })
			},
			reason: `^connect: the hub does not accept the device's proof of identity: is the key the device's own, the device known and enabled, and this device's clock right\? \(CONNACK 5\)`,
		},
		{
			name:   "a port on which something else than MQTT answers",
			change: func(_ *testing.T, w *world) { w.ready.MQTT = w.ready.HTTPS; w.configure("", "") },
			reason: `^read from hub: malformed MQTT: the first packet is of type 4, not CONNACK: does something else than MQTT answer on this port\?`,
		},
		{
			name: "a port on which nobody speaks TLS",
			change: func(t *testing.T, w *world) {
				w.ready.MQTT = plainListener(t)
				w.configure("", "")
			},
			reason: `^dial tls 127\.0\.0\.1:\d+: something that does not speak TLS answers on this port \(a captive portal, a proxy, or another port is meant\): `,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			w.configure("", "")
			tt.change(t, w)
			w.runtime = start(t, w.dir, "runtime", "run", "-c", w.path("fairlead.yaml"))
			var s status
			eventually(t, 45*time.Second, "a status that waits", func() bool {
				var ok bool
				s, ok = w.status()
				return ok && s.Connection.State == "waiting" && s.Connection.NextAttempt > 0 // it is 0 at the end of each wait
			})
			if !regexp.MustCompile(tt.reason).MatchString(s.Connection.Reason) {
				t.Errorf("reason %q, next attempt in %v s; want %s", s.Connection.Reason, s.Connection.NextAttempt, tt.reason)
			}
			t.Logf("next attempt in %v s: %s", s.Connection.NextAttempt, s.Connection.Reason)
			w.terminate(0)
			if w.runtime.logged(t, "SharedAccessKey=") || w.runtime.logged(t, "c2VjcmV0") {
				t.Error("the log shows a key")
			}
		})
	}
}

func edit(t *testing.T, file string, change func(string) string) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(change(string(text))), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestTwoPluginsWithOneMethodAreRefusedAtTheStartNamingBoth(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.configure("  a: {builtin: hostmetrics}\n  b: {builtin: hostmetrics}", "")
	w.runtime = start(t, w.dir, "runtime", "run", "-c", w.path("fairlead.yaml"))
	code, took := w.runtime.exit(t, 30*time.Second)
	if code != 2 {
		t.Errorf("exit code %d, want 2", code)
	}
	text, err := os.ReadFile(w.runtime.log)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	want := regexp.MustCompile(`/fairlead\.yaml:\d+:3: plugins\.[ab]: plugins "a" and "b" both handle the method "ping": give one of them a methods list without it$`)
	if last := lines[len(lines)-1]; !want.MatchString(last) {
		t.Errorf("the last line is %q, want %s", last, want)
	}
	t.Logf("refused after %v: %s", took.Round(time.Millisecond), lines[len(lines)-1])
}

func TestAPluginThatRegistersNothingHarmsNobody(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.configure("  idle: {command: ["+programs.numbers+"], env: {NUMBERS_NOTHING: \"1\"}}\n"+numbers("{rate: 50}"), "")
	w.run()
	if a := w.method("nobodys", "null"); a.Status != 404 {
		t.Errorf("a method of nobody: %d %s", a.Status, a.Payload)
	}
	if a := w.method("echo", "1"); a.Status != 200 {
		t.Errorf("echo: %d %s", a.Status, a.Payload)
	}
	w.awaitAccepted(50, 30*time.Second)
	if s := w.mustStatus(); s.Plugins[0].Name != "idle" || s.Plugins[0].State != "ready" || s.Plugins[0].Restarts != 0 {
		t.Errorf("the plugin that registers nothing: %+v", s.Plugins[0])
	}
	w.terminate(0)
}

func TestAStateDirectoryThatTheUserMayNotWriteIsRefused(t *testing.T) {
	t.Parallel()
	const nobody = 65534
	w := newWorld(t)
	w.configure("", "")
	if err := os.Mkdir(w.path("state"), 0o755); err != nil { //nolint:gosec // that others may read it is the point
		t.Fatal(err)
	}
	root := os.Getuid() == 0
	if root { // who may do everything, and so becomes somebody who may not
		for _, name := range []string{w.path("device.cs"), w.path("fairlead.yaml")} {
			if err := os.Chown(name, nobody, nobody); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.Chmod(w.dir, 0o755); err != nil { //nolint:gosec // as above
			t.Fatal(err)
		}
	} else if err := os.Chmod(w.path("state"), 0o555); err != nil { //nolint:gosec // as above
		t.Fatal(err)
	}
	// The hub's own directory is private: its CA is copied.
	ca, err := os.ReadFile(w.ready.CAFile)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(w.path("ca.pem"), ca, 0o644); err != nil { //nolint:gosec // as above
		t.Fatal(err)
	}
	edit(t, w.path("fairlead.yaml"), func(s string) string { return strings.Replace(s, w.ready.CAFile, w.path("ca.pem"), 1) })
	text, err := os.ReadFile(w.path("fairlead.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	before, _, _ := strings.Cut(string(text), "state_dir: ")
	line := 1 + strings.Count(before, "\n")
	for _, command := range []string{"check", "run"} {
		cmd := exec.Command(programs.fairlead, command, "-c", w.path("fairlead.yaml"))
		cmd.Env = environ(w.dir)
		if root {
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
		}
		var stderr strings.Builder
		cmd.Stderr = &stderr
		_ = cmd.Run() // the code tells
		want := fmt.Sprintf("%s:%d:12: state_dir: this user may not write to %s: chown it, or name another directory\n", w.path("fairlead.yaml"), line, w.path("state"))
		if code := cmd.ProcessState.ExitCode(); code != 2 || stderr.String() != want {
			t.Errorf("%s exited %d with %q, want 2 with %q", command, code, stderr.String(), want)
		}
	}
}
