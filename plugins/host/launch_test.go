//go:build unix

package host_test

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/fairlead-iot/fairlead/core"
	"github.com/fairlead-iot/fairlead/plugins/host"
	"github.com/fairlead-iot/fairlead/plugins/sdk/sdktest"
)

func TestALaunchFailureSaysWhatIsWrong(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string, mode os.FileMode) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	command := func(argv ...string) func(*host.Config) {
		return func(c *host.Config) { c.Command = argv }
	}
	// Long enough for a process that the race detector slows down on a busy machine to begin.
	short := func(c *host.Config) { c.StartTimeout = 10 * time.Second }
	tests := []struct {
		name   string
		role   string
		change func(*host.Config)
		waits  bool // until the start's timeout
		kind   core.Kind
		want   []string
	}{
		{name: "no command", change: command(), kind: core.Fatal, want: []string{"neither a command nor a built-in plugin", "plugins.press.command"}},
		{name: "missing", change: command("/nowhere/press"), kind: core.Fatal, want: []string{"file /nowhere/press is missing", "plugins.press.command"}},
		{name: "not in PATH", change: command("no-such-press"), kind: core.Fatal, want: []string{`program "no-such-press" is not in PATH`}},
		{name: "a directory", change: command(dir), kind: core.Fatal, want: []string{"is a directory"}},
		{name: "not executable", change: command(file("plain", "x", 0o600)), kind: core.Fatal, want: []string{"plain is not executable: chmod +x"}},
		{name: "no program", change: command(file("text", "hello", 0o700)), kind: core.Fatal, want: []string{"is not a program for this machine (" + runtime.GOOS}},
		{name: "no interpreter", change: command(file("script", "#!/nowhere/python\n", 0o700)), kind: core.Fatal, want: []string{"interpreter"}},
		{name: "no working directory", role: "plugin", change: func(c *host.Config) { c.Dir = "/nowhere" }, kind: core.Fatal, want: []string{"working directory", "/nowhere"}},
		{name: "exits at once", role: "exit3", kind: core.Transient, want: []string{"ended before the handshake: exit status 3", "cannot open /dev/press"}},
		{name: "closes its stdout and exits", role: "mute3", kind: core.Transient, want: []string{"ended before the handshake: exit status 3", "cannot open /dev/press"}},
		{name: "garbage", role: "garbage", kind: core.Fatal, want: []string{"is not a plugin", `"hello, world"`}},
		{name: "another handshake", role: "corev9", kind: core.Fatal, want: []string{"version 9 of go-plugin's handshake"}},
		{name: "another protocol version", role: "protov9", kind: core.Fatal, want: []string{`version "9" of the plugin protocol and the host versions 1 and 2`}},
		{name: "not grpc", role: "netrpc", kind: core.Fatal, want: []string{"not one of Fairlead"}},
		{name: "no certificate", role: "nocert", kind: core.Fatal, want: []string{"offers no certificate"}},
		{name: "another program's plugin", role: "stranger", kind: core.Fatal, want: []string{"not one of Fairlead", "fairlead.plugin.v1"}},
		{name: "silent", role: "silent", change: short, waits: true, kind: core.Transient, want: []string{"no handshake within 10s", "thinking"}},
		{name: "never registers", role: "unregistered", change: short, waits: true, kind: core.Transient, want: []string{"did not register within 10s"}},
		{
			name: "wrong settings", role: "plugin", change: func(c *host.Config) { c.Settings = json.RawMessage(`{"telemetri":1}`) },
			kind: core.Fatal, want: []string{"the plugin refuses to start", `unknown field "telemetri"`, "plugins.press.settings"},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if tt.waits {
				t.Parallel()
			}
			_, _, err := launch(t, tt.role, tt.change)
			if err == nil {
				t.Fatal("the launch worked")
			}
			e, ok := errors.AsType[*core.Error](err)
			if !ok || e.Kind != tt.kind {
				t.Errorf("kind of %v: want %s", err, tt.kind)
			}
			for _, want := range append(tt.want, `start plugin "press"`) {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("error %q does not say %q", err, want)
				}
			}
			t.Log(err)
		})
	}
}

func TestALaunchEndsWithItsContext(t *testing.T) {
	cfg := config(t, "silent")
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	began := time.Now()
	_, err := host.New(cfg).Launch(ctx, sdktest.NewDevice())
	if err == nil || time.Since(began) > patience/2 { // the start's own limit is all of it
		t.Errorf("after %s: %v", time.Since(began), err)
	}
}

func TestALaunchLeavesNothingBehind(t *testing.T) {
	for _, role := range []string{"plugin", "exit3", "garbage", "stranger"} {
		t.Run(role, func(t *testing.T) {
			var dir string
			p, _, err := launch(t, role, func(c *host.Config) {
				dir = c.RuntimeDir
				// A host that was killed has left this.
				if err := os.MkdirAll(filepath.Join(dir, "press", "plugin-dir123"), 0o700); err != nil {
					t.Fatal(err)
				}
			})
			if err == nil {
				entries, _ := os.ReadDir(filepath.Join(dir, "press"))
				if len(entries) != 1 || entries[0].Name() == "plugin-dir123" {
					t.Fatalf("%d entries in the runtime directory while the plugin runs, want its socket's", len(entries))
				}
				if st, _ := entries[0].Info(); st.Mode().Perm() != 0o700 {
					t.Errorf("mode of the socket's directory: %s", st.Mode())
				}
				closePlugin(t, p, patience)
			}
			if entries, _ := os.ReadDir(dir); len(entries) != 0 {
				t.Errorf("left behind: %v", entries)
			}
		})
	}
}

func TestALongRuntimeDirectoryDoesNotMatter(t *testing.T) {
	p, _ := mustLaunch(t, "plugin", func(c *host.Config) { c.RuntimeDir = filepath.Join(c.RuntimeDir, strings.Repeat("long", 30)) })
	if status, _ := method(t, p, "echo", `1`); status != 200 {
		t.Errorf("status %d", status)
	}
}

func TestAPluginGetsNoneOfTheHostsEnvironment(t *testing.T) {
	t.Setenv("DEVICE_CS", "HostName=hub;SharedAccessKey=c2VjcmV0")
	t.Setenv("LC_TIME", "de_DE.UTF-8")
	p, _ := mustLaunch(t, "plugin", func(c *host.Config) { c.Env["LINE"] = "4"; c.Dir = c.RuntimeDir })
	_, answer := method(t, p, "env", `{}`)
	if strings.Contains(answer, "DEVICE_CS") || strings.Contains(answer, "SharedAccessKey") {
		t.Errorf("the plugin sees the host's secrets: %s", answer)
	}
	for _, want := range []string{`"PATH=`, `"LC_TIME=de_DE.UTF-8"`, `"LINE=4"`} {
		if !strings.Contains(answer, want) {
			t.Errorf("the plugin's environment lacks %s: %s", want, answer)
		}
	}
	_, cwd := method(t, p, "cwd", `{}`)
	if !strings.Contains(cwd, filepath.Base(t.TempDir()[:len(t.TempDir())-4])) && !strings.Contains(cwd, "TestAPluginGets") {
		t.Errorf("working directory: %s", cwd)
	}
}
