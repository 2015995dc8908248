//go:build unix

package host_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/fairlead-iot/fairlead/core"
	"github.com/fairlead-iot/fairlead/plugins/host"
)

func methodCall(name, payload string) core.Delivery {
	return core.Delivery{Kind: core.InboundMethod, Method: name, Payload: []byte(payload)}
}

// until polls a condition.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(patience); !ok(); <-tick.C {
		if time.Now().After(end) {
			t.Fatalf("not within %s: %s", patience, what)
		}
	}
}

// alive says whether the process is there and no zombie.
func alive(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return runtime.GOOS != "linux" && syscall.Kill(pid, 0) == nil
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	return !strings.HasPrefix(rest, "Z") && !strings.HasPrefix(rest, "X")
}

// carriers runs a test with a plugin of each version of the protocol.
func carriers(t *testing.T, test func(t *testing.T, role string)) {
	t.Helper()
	for name, role := range map[string]string{"pipes": "plugin", "gRPC": "rpc plugin"} {
		t.Run(name, func(t *testing.T) { test(t, role) })
	}
}

func waitDone(t *testing.T, p core.Plugin) error {
	t.Helper()
	select {
	case <-p.Done():
	case <-time.After(patience):
		t.Fatalf("the plugin is not done within %s", patience)
	}
	return p.Err()
}

func TestTheEndOfAPluginIsSeenAtOnceAndExplained(t *testing.T) {
	carriers(t, theEndIsSeenAndExplained)
}

func theEndIsSeenAndExplained(t *testing.T, role string) {
	tests := []struct {
		name     string
		method   string
		settings string
		want     []string
	}{
		{name: "exit", method: "exit", want: []string{"it ended: exit status 7"}},
		{name: "crash", method: "crash", want: []string{"it ended: exit status 2", "panic: crash"}},
		{name: "loop", settings: `{"give_up":true}`, want: []string{"it gave up: the press is gone"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p, _ := mustLaunch(t, role, func(c *host.Config) { c.Settings = json.RawMessage(tt.settings) })
			if tt.method != "" {
				ctx, cancel := context.WithTimeout(t.Context(), patience)
				defer cancel()
				if _, err := p.Handle(ctx, methodCall(tt.method, `{}`)); err == nil || ctx.Err() != nil {
					t.Errorf("the call of a dying plugin: %v", err)
				}
			}
			err := waitDone(t, p)
			for _, want := range append(tt.want, `plugin "press"`) {
				if err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("error %v does not say %q", err, want)
				}
			}
			if core.KindOf(err) != core.Transient {
				t.Errorf("kind %s", core.KindOf(err))
			}
		})
	}
}

func TestAKilledPluginIsSeenAtOnceAlsoWhenAGrandchildHoldsItsOutput(t *testing.T) {
	carriers(t, aKillIsSeen)
}

func aKillIsSeen(t *testing.T, role string) {
	p, _ := mustLaunch(t, role, nil)
	_, answer := method(t, p, "child", `{}`)
	var child int
	if err := json.Unmarshal([]byte(answer), &child); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(p.Info().PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	err := waitDone(t, p)
	if err == nil || !strings.Contains(err.Error(), "signal: killed") {
		t.Errorf("error: %v", err)
	}
	until(t, "the grandchild is gone", func() bool { return !alive(child) })
}

func TestAHungPluginIsKilled(t *testing.T) { carriers(t, aHangIsEnded) }

func aHangIsEnded(t *testing.T, role string) {
	p, _ := mustLaunch(t, role, func(c *host.Config) {
		c.Ping = host.Ping{Interval: 100 * time.Millisecond, Timeout: 80 * time.Millisecond, Misses: 3}
	})
	pid := p.Info().PID
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	_, err := p.Handle(ctx, methodCall("stop", `{}`))
	if err == nil || errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the call of a stopped plugin: %v", err)
	}
	if err := waitDone(t, p); err == nil || !strings.Contains(err.Error(), "no answer to heartbeats for") {
		t.Errorf("error: %v", err)
	}
	if alive(pid) {
		t.Error("it is still there")
	}
}

func TestAStuckHandlerHoldsUpNothing(t *testing.T) {
	p, _ := mustLaunch(t, "plugin", nil)
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	// The SDK answers 504 at the same deadline: that may be read before the host's own timer runs.
	if a, err := p.Handle(ctx, methodCall("hang", `{}`)); !errors.Is(err, context.DeadlineExceeded) && a.Status != http.StatusGatewayTimeout {
		t.Errorf("the stuck call: %+v, %v", a, err)
	}
	if status, answer := method(t, p, "panic", `{}`); status != 500 || !strings.Contains(answer, "panicked") {
		t.Errorf("a panic: %d %s", status, answer)
	}
	if status, answer := method(t, p, "teapot", `{}`); status != 418 || answer != `{"error":"short and stout"}` {
		t.Errorf("a refusal: %d %s", status, answer)
	}
	if status, _ := method(t, p, "echo", `1`); status != 200 {
		t.Errorf("status %d", status)
	}
}

func TestStdoutOfAPluginIsHarmless(t *testing.T) { carriers(t, stdoutIsHarmless) }

func stdoutIsHarmless(t *testing.T, role string) {
	p, _ := mustLaunch(t, role, nil)
	if status, answer := method(t, p, "print", `{}`); status != 200 {
		t.Errorf("print: %d %s", status, answer)
	}
	if status, _ := method(t, p, "echo", `1`); status != 200 {
		t.Errorf("status %d", status)
	}
}

func TestCloseEndsEveryPlugin(t *testing.T) { carriers(t, closeEndsEvery) }

func closeEndsEvery(t *testing.T, role string) {
	tests := []struct {
		name     string
		settings string
		stop     bool
		limit    time.Duration
	}{
		{name: "an orderly one", limit: 2 * patience},
		{name: "one whose loop does not end", settings: `{"stubborn":true}`, limit: 900 * time.Millisecond},
		{name: "a stopped one", stop: true, limit: 900 * time.Millisecond},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p, _ := mustLaunch(t, role, func(c *host.Config) { c.Settings = json.RawMessage(tt.settings) })
			pid := p.Info().PID
			if tt.stop {
				if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
					t.Fatal(err)
				}
			}
			began := time.Now()
			closePlugin(t, p, tt.limit)
			if d := time.Since(began); d > patience { // to the letter: TestCloseKeepsToItsTime
				t.Errorf("close took %s", d)
			}
			if alive(pid) {
				t.Error("the process is still there")
			}
			if err := p.Err(); err != nil {
				t.Errorf("Err after Close: %v", err)
			}
			closePlugin(t, p, tt.limit) // once more: nothing happens
		})
	}
}

func TestAHostThatIsKilledLeavesNothingBehind(t *testing.T) {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), roleVar+"=host", "FAIRLEAD_TEST_DIR="+t.TempDir())
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	var pid, child int
	if _, err := fmt.Sscan(line, &pid, &child); err != nil {
		t.Fatal(err)
	}
	if !alive(pid) || !alive(child) {
		t.Fatal("the plugin and its child should be there")
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	until(t, "the plugin is gone", func() bool { return !alive(pid) })
	until(t, "the plugin's child is gone", func() bool { return !alive(child) })
}
