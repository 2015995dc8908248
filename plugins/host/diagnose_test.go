package host

import (
	"context"
	"errors"
	"os/exec"
	"testing"

	"github.com/fairlead-iot/fairlead/core"
)

// What is Fatal is not tried again until somebody edits something, so a limit of time that ends a start is never that,
// whatever had come of it.
func TestAStartThatTimeEndedIsTriedAgain(t *testing.T) {
	l := &launcher{cfg: Config{Name: "press"}.withDefaults()}
	for _, tt := range []struct {
		err  error
		want core.Kind
	}{
		{errStartTimeout, core.Transient},
		{context.Canceled, core.Transient},
		{context.DeadlineExceeded, core.Transient},
		{errNoCertificate, core.Fatal},
		{errors.New("something else"), core.Fatal},
	} {
		p := &process{cmd: exec.Command("/press"), started: true, seen: true, first: "1|1|unix|/nowhere|grpc|"}
		if kind, err := l.diagnose(tt.err, p, newOutput(l.cfg.Logger)); kind != tt.want {
			t.Errorf("%v after a handshake: kind %v (%v), want %v", tt.err, kind, err, tt.want)
		}
	}
}
