//go:build unix

package host_test

import (
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/fairlead-iot/fairlead/plugins/host"
)

func TestAPluginStartedByHandSaysWhatItIs(t *testing.T) {
	cmd := exec.Command(os.Args[0])
	cmd.Env = []string{roleVar + "=plugin", "GORACE=atexit_sleep_ms=0", "GOCOVERDIR=" + t.TempDir()}
	out, err := cmd.CombinedOutput()
	if err == nil || cmd.ProcessState.ExitCode() != 1 {
		t.Errorf("exit: %v", err)
	}
	if text := string(out); strings.Count(text, "\n") != 2 || !strings.Contains(text, "test is a plugin of the Fairlead device runtime") ||
		!strings.Contains(text, "command: ["+os.Args[0]+"]") {
		t.Errorf("it says %q", out)
	}
}

func TestSignals(t *testing.T) {
	p, _ := mustLaunch(t, "plugin", nil)
	if err := syscall.Kill(-p.Info().PID, syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	if status, _ := method(t, p, "echo", `1`); status != 200 {
		t.Errorf("after SIGINT: status %d", status)
	}
	if err := syscall.Kill(p.Info().PID, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := waitDone(t, p); err == nil || !strings.Contains(err.Error(), "it ended: exit status 0") {
		t.Errorf("after SIGTERM: %v", err)
	}
}

func TestABuiltInPluginIsThisBinaryStartedAgain(t *testing.T) {
	p, _ := mustLaunch(t, "", func(c *host.Config) {
		c.Command, c.BuiltinArgs = nil, []string{"plugin-builtin", "test"}
	})
	if status, _ := method(t, p, "echo", `1`); status != 200 {
		t.Errorf("status %d", status)
	}
}
