//go:build faults && unix

package faults

import (
	"encoding/json"
	"slices"
	"strconv"
	"syscall"
	"testing"
	"time"
)

// pluginPID returns the process id of a plugin, 0 while it has none.
func (w *world) pluginPID(name string) int {
	w.t.Helper()
	for _, p := range w.mustStatus().Plugins {
		if p.Name == name {
			return p.PID
		}
	}
	w.t.Fatalf("no plugin %s in the status", name)
	return 0
}

// signalPlugin sends a signal to a plugin's process and returns its id.
func (w *world) signalPlugin(name string, s syscall.Signal) (pid int) {
	w.t.Helper()
	pid = w.pluginPID(name)
	if err := syscall.Kill(pid, s); err != nil {
		w.t.Fatal(err)
	}
	return pid
}

func TestAPluginKilledDuringACallIsAnsweredForAtOnceAndComesBack(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.configure(numbers("{rate: 50}"), "")
	w.run()
	answered := w.call("sleep", "20")
	eventually(t, 30*time.Second, "the open call", func() bool { return w.calls() > 0 })
	pid := w.signalPlugin("numbers", syscall.SIGKILL)
	killed := time.Now()
	var a answer
	select {
	case a = <-answered:
	case <-time.After(time.Minute):
		t.Fatal("the caller hangs")
	}
	took := time.Since(killed)
	var reason struct {
		Error string `json:"error"`
	}
	if err := json.Unmarshal(a.Payload, &reason); a.Status != 503 || err != nil || reason.Error == "" {
		t.Errorf("the caller got %d %s, want 503 and a reason", a.Status, a.Payload)
	}
	if took > 2*time.Second {
		t.Errorf("the caller heard after %v, want within 2 s", took)
	}
	began := time.Now()
	if a := w.method("echo", "1"); a.Status != 200 {
		t.Errorf("the next call: %d %s", a.Status, a.Payload)
	}
	t.Logf("answered %d %s %v after the kill; the next call took %v", a.Status, a.Payload, took.Round(time.Millisecond), time.Since(began).Round(time.Millisecond))
	if now := w.pluginPID("numbers"); now == pid || now == 0 {
		t.Errorf("pid %d after the kill of %d", now, pid)
	}
	w.awaitAccepted(20, 30*time.Second)
	w.terminate(0)
	w.checkNumbers(killed)
}

// calls is how many method calls have reached the runtime.
func (w *world) calls() int {
	w.t.Helper()
	var s struct {
		Counters struct {
			MethodsCalled int `json:"methods_called"`
		} `json:"counters"`
	}
	if err := json.Unmarshal([]byte(w.must("status", "--json", "-c", w.path("fairlead.yaml"))), &s); err != nil {
		w.t.Fatal(err)
	}
	return s.Counters.MethodsCalled
}

func TestAPluginThatHangsIsFoundAndReplaced(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.configure(numbers("{rate: 50}"), "")
	w.run()
	w.awaitAccepted(50, 30*time.Second)
	pid := w.signalPlugin("numbers", syscall.SIGSTOP)
	stopped := time.Now()
	took := eventually(t, 15*time.Second, "a new process", func() bool {
		now := w.pluginPID("numbers")
		return now != pid && now != 0
	})
	if alive(pid) {
		t.Error("the old process lives")
	}
	if a := w.method("echo", "1"); a.Status != 200 {
		t.Errorf("a call to the new process: %d %s", a.Status, a.Payload)
	}
	s := w.mustStatus()
	t.Logf("replaced after %v; its status: %+v", took.Round(time.Millisecond), s.Plugins[0])
	if s.Counters.Losses != 0 || s.Counters.Sessions != 1 {
		t.Errorf("the session suffered: %+v", s.Counters)
	}
	w.awaitAccepted(50, 30*time.Second)
	w.terminate(0)
	w.checkNumbers(stopped)
}

func TestNoPluginOutlivesAKilledRuntime(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.configure(numbers("{rate: 50, child: true}")+"\n  metrics: {builtin: hostmetrics}", "")
	w.run()
	var pids []int
	for _, p := range w.mustStatus().Plugins {
		pids = append(pids, p.PID)
	}
	eventually(t, 30*time.Second, "the grandchild", func() bool { return len(w.pluginFile("numbers", "children")) == 1 })
	child, err := strconv.Atoi(w.pluginFile("numbers", "children")[0])
	if err != nil {
		t.Fatal(err)
	}
	pids = append(pids, child)
	for _, pid := range pids {
		if !alive(pid) {
			t.Fatalf("process %d of %v does not run: nothing would be shown", pid, pids)
		}
	}
	w.awaitAccepted(50, 30*time.Second)
	w.runtime.kill(t)
	killed := time.Now()
	took := eventually(t, time.Second, "the end of the plugins and their children", func() bool {
		return !slices.ContainsFunc(pids, alive)
	})
	t.Logf("%d processes were gone %v after the kill", len(pids), took.Round(time.Millisecond))
	w.checkNumbers(killed)

	// What the killed one left behind, a socket and a lock, is in nobody's way.
	w.run()
	if a := w.method("echo", "1"); a.Status != 200 {
		t.Errorf("a call to the next runtime: %d %s", a.Status, a.Payload)
	}
	w.terminate(0)
}
