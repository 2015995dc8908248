//go:build faults && unix

package faults

import (
	"os"
	"regexp"
	"syscall"
	"testing"
	"time"
)

// terminate asks the runtime to end, wants that exit code within 10 s, and returns how long it took.
func (w *world) terminate(want int) time.Duration {
	w.t.Helper()
	w.runtime.signal(w.t, syscall.SIGTERM)
	code, took := w.runtime.exit(w.t, 10*time.Second)
	if code != want {
		w.t.Errorf("the runtime exited %d, want %d", code, want)
	}
	return took
}

func TestSIGTERMUnderLoadLeavesNothingAccepted(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.configure(numbers("{rate: 1000}"), "")
	w.run()
	w.awaitAccepted(2000, 30*time.Second)
	asked := time.Now()
	t.Logf("ended %v after SIGTERM", w.terminate(0).Round(time.Millisecond))
	w.checkNumbers(asked)
}

func TestSIGTERMWithTheHubGoneSaysWhatIsLeft(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.configure(numbers("{rate: 50}"), "")
	w.run()
	pid := w.pluginPID("numbers")
	w.awaitAccepted(50, 30*time.Second)
	w.hub.kill(t)
	eventually(t, 30*time.Second, "messages that wait", func() bool { return w.mustStatus().Outbox.Messages > 20 })
	took := w.terminate(1)
	text, err := os.ReadFile(w.runtime.log)
	if err != nil {
		t.Fatal(err)
	}
	line := regexp.MustCompile(`(?m)^fairlead: (\d+) messages? left unsent: the outbox is in memory, and they are lost$`).FindSubmatch(text)
	if line == nil {
		t.Fatal("the log does not say how many messages are left")
	}
	t.Logf("ended %v after SIGTERM: %s", took.Round(time.Millisecond), line[0])
	if alive(pid) {
		t.Error("the plugin lives")
	}
}

func TestASecondSIGTERMEndsAtOnce(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.configure(numbers("{rate: 50}"), "")
	w.run()
	pid := w.pluginPID("numbers")
	w.hub.kill(t)
	eventually(t, 30*time.Second, "messages that wait", func() bool { return w.mustStatus().Outbox.Messages > 20 })
	w.runtime.signal(t, syscall.SIGTERM)
	eventually(t, 30*time.Second, "the log of the first", func() bool { return w.runtime.logged(t, "msg=stopping") })
	w.runtime.signal(t, syscall.SIGTERM)
	code, took := w.runtime.exit(t, time.Second)
	if code != 128+int(syscall.SIGTERM) {
		t.Errorf("exit code %d, want %d, as a shell has it", code, 128+int(syscall.SIGTERM))
	}
	eventually(t, time.Second, "the plugin's end", func() bool { return !alive(pid) })
	t.Logf("ended %v after the second SIGTERM", took.Round(time.Millisecond))
}

func TestACallThatIsOpenAtSIGTERMIsAnswered(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.configure(numbers("{rate: 20}"), "")
	w.run()
	answered := w.call("sleep", "1.5")
	eventually(t, 30*time.Second, "the open call", func() bool { return w.calls() > 0 })
	took := w.terminate(0)
	if a := <-answered; a.Status != 200 || string(a.Payload) != `"slept"` {
		t.Errorf("the caller got %d %s", a.Status, a.Payload)
	}
	t.Logf("ended %v after SIGTERM, the call answered", took.Round(time.Millisecond))
}

// The plugin waits for its Send, and takes the message back when it is asked to stop.
func TestSIGTERMWithNothingLeftWaitsForNoHub(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.configure("  metrics: {builtin: hostmetrics, settings: {interval: 1s}}", "")
	w.run()
	w.hub.kill(t)
	eventually(t, 30*time.Second, "a message that waits", func() bool { return w.mustStatus().Outbox.Messages == 1 })
	took := w.terminate(0)
	if took > 3*time.Second {
		t.Errorf("it took %v, want less than 3 s: there was nothing to wait for", took)
	}
	t.Logf("ended %v after SIGTERM", took.Round(time.Millisecond))
}
