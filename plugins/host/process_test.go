//go:build unix

package host

import (
	"os/exec"
	"syscall"
	"testing"
)

// The number of a process that was waited for, and of its group, may be another's at any time.
func TestAProcessThatHasEndedIsSignalledNoMore(t *testing.T) {
	p := newProcess(exec.Command("/bin/sh", "-c", "exit 3"), func(string) {}, func(string) {})
	if err := p.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	<-p.exited
	select {
	case <-p.group.guarded:
	default:
		t.Error("the group's guard has not ended")
	}
	if p.exit() != "exit status 3" {
		t.Errorf("it ended with %q", p.exit())
	}

	// A stranger that has been given the number.
	stranger := exec.Command("/bin/sleep", "60")
	stranger.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := stranger.Start(); err != nil {
		t.Fatal(err)
	}
	p.group.pgid = stranger.Process.Pid
	p.terminate()
	p.kill()
	_ = p.Kill(t.Context())
	if err := stranger.Process.Signal(syscall.SIGUSR1); err != nil {
		t.Fatal(err)
	}
	_ = stranger.Wait()
	if got := stranger.ProcessState.String(); got != "signal: user defined signal 1" { // which no shell has it ignore, as it may an interrupt
		t.Errorf("the stranger ended with %q, want our signal", got)
	}
}
