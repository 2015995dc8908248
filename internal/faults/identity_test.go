//go:build faults && unix

package faults

import (
	"strings"
	"testing"
)

// The state directory is what two runtimes of one host must not share, whoever they are.
func TestASecondRuntimeWithTheSameStateDirectoryExits3(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.configure(numbers("{rate: 0}"), "")
	w.run()
	_, stderr, code := w.cli("run", "-c", w.path("fairlead.yaml"))
	if code != 3 || !strings.Contains(stderr, w.path("state")) {
		t.Errorf("the second exits %d: %s", code, stderr)
	}
	if s := w.mustStatus(); s.Connection.State != "connected" || s.Counters.Losses != 0 {
		t.Errorf("the first did not go on unmoved: %+v", s)
	}
	w.runtime.kill(t) // a power cut leaves nothing that is in the way
	w.run()
}
