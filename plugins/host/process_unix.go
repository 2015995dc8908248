//go:build unix

package host

import (
	"errors"
	"os"
	"os/exec"
	"syscall"
)

// guardScript is the guard of a plugin's process group: it ends with its standard input, whose other end only the host
// holds, and takes the group with it. So a host that is killed with SIGKILL leaves nothing behind, grandchildren
// included, also where there is no PR_SET_PDEATHSIG. As a member it keeps the group's number from being used again.
const guardScript = `trap "" TERM INT HUP QUIT; read -r _; kill -9 0`

// group is a plugin's process group.
type group struct {
	pgid  int
	guard *os.File // the host's end of the guard's standard input
	// guarded is closed when the guard has ended.
	guarded chan struct{}
}

// start starts cmd as the leader of a group of its own, and the guard.
func (g *group) start(cmd *exec.Cmd) error {
	cmd.SysProcAttr = attributes()
	if err := cmd.Start(); err != nil {
		return err
	}
	g.pgid = cmd.Process.Pid
	g.startGuard()
	return nil
}

// startGuard starts the guard. Without a shell, as in a minimal container, there is none; see Limitations.
func (g *group) startGuard() {
	r, w, err := os.Pipe()
	if err != nil {
		return
	}
	defer func() { _ = r.Close() }()
	guard := exec.Command("/bin/sh", "-c", guardScript) //nolint:noctx // it lives as long as its group, and ends with it
	guard.Env = []string{}
	guard.Stdin = r
	guard.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pgid: g.pgid}
	if err := guard.Start(); err != nil {
		_ = w.Close()
		return
	}
	g.guard, g.guarded = w, make(chan struct{})
	go func() { defer close(g.guarded); _ = guard.Wait() }()
}

// kill kills the whole group.
func (g *group) kill() { _ = syscall.Kill(-g.pgid, syscall.SIGKILL) }

// terminate asks the whole group to end.
func (g *group) terminate() { _ = syscall.Kill(-g.pgid, syscall.SIGTERM) }

// release frees what the group holds; it was killed. When it returns the guard has ended, too.
func (g *group) release() {
	if g.guard != nil {
		_ = g.guard.Close()
		<-g.guarded
	}
}

// executable says whether this process may execute the file.
func executable(path string) bool { return syscall.Access(path, 1) == nil }

// notAProgram says whether err is the kernel's word that the file is no program for this machine.
func notAProgram(err error) bool { return errors.Is(err, syscall.ENOEXEC) }
