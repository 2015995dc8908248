package host

import (
	"bufio"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/go-plugin/runner"
)

const (
	// handshakeLimit is the most that the first line on stdout may have, in bytes. With a P-521 certificate it has
	// about 1100.
	handshakeLimit = 16 << 10
	// pipeGrace is how long output may still come after the process has ended. Only a grandchild that left the process
	// group can hold the pipes longer than that.
	pipeGrace = 200 * time.Millisecond
)

// process is one plugin process and all that it has started: go-plugin's runner.Runner, but with pipes and a way to die
// of its own. go-plugin sees of stdout the first line only and of stderr nothing, so that nothing that the plugin or
// its children write, or keep open, can make go-plugin wait.
type process struct {
	cmd    *exec.Cmd
	stdout func(line string) // what comes on stdout after the handshake
	stderr func(line string)

	handshake *io.PipeReader
	toPlugin  *io.PipeWriter // go-plugin's end: what it reads of stdout
	group     group
	exited    chan struct{} // closed when the process was reaped and its last output read

	mu      sync.Mutex
	started bool   // it runs, or ran
	dead    bool   // it was killed, has ended, or must not start: its number may be another's
	first   string // the first line on stdout, cut at handshakeLimit
	seen    bool   // there was a first line
	mute    bool   // stdout ended without one
}

var _ runner.Runner = (*process)(nil)

// newProcess prepares cmd; stdout and stderr are called with each line, from two goroutines.
func newProcess(cmd *exec.Cmd, stdout, stderr func(string)) *process {
	p := &process{cmd: cmd, stdout: stdout, stderr: stderr, exited: make(chan struct{})}
	p.handshake, p.toPlugin = io.Pipe()
	return p
}

// Start starts the process. The goroutine that starts it is locked to its thread and waits there for the process's end,
// because the kernel kills the plugin when the thread that started it ends (PR_SET_PDEATHSIG, golang/go#27505).
func (p *process) Start(context.Context) error {
	outR, outW, err := os.Pipe()
	if err != nil {
		return err
	}
	errR, errW, err := os.Pipe()
	if err != nil {
		_, _ = outR.Close(), outW.Close()
		return err
	}
	p.cmd.Stdout, p.cmd.Stderr, p.cmd.Stdin = outW, errW, nil

	began := make(chan error, 1)
	var readers sync.WaitGroup
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		defer close(p.exited)
		err := p.start()
		_, _ = outW.Close(), errW.Close()
		if err != nil {
			_, _ = outR.Close(), errR.Close()
			_ = p.toPlugin.CloseWithError(err)
			began <- err
			return
		}
		readers.Go(func() { p.readStdout(outR) })
		readers.Go(func() { lines(errR, p.stderr) })
		began <- nil
		_ = p.cmd.Wait() // the state tells all
		// Whoever is left of the group ends with its leader.
		p.over()
		late := time.AfterFunc(pipeGrace, func() { _, _ = outR.Close(), errR.Close() })
		readers.Wait()
		late.Stop()
		_, _ = outR.Close(), errR.Close()
		p.group.release()
	}()
	return <-began
}

var errKilled = errors.New("killed before it started")

func (p *process) start() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.dead {
		return errKilled
	}
	if err := p.group.start(p.cmd); err != nil {
		return err
	}
	p.started = true
	return nil
}

// readStdout hands the first line to go-plugin and the rest to p.stdout.
func (p *process) readStdout(r io.Reader) {
	br := bufio.NewReaderSize(r, handshakeLimit)
	line, err := br.ReadSlice('\n')
	p.mu.Lock()
	p.mute = len(line) == 0
	if !p.mute {
		p.first, p.seen = strings.TrimRight(string(line), "\r\n"), true
	}
	p.mu.Unlock()
	if len(line) > 0 {
		_, _ = p.toPlugin.Write(append(slices.Clip(line), '\n'))
	}
	_ = p.toPlugin.Close()
	if err == nil || errors.Is(err, bufio.ErrBufferFull) {
		lines(br, p.stdout)
	}
}

// firstLine returns the first line that the plugin wrote on stdout, if there was one.
func (p *process) firstLine() (string, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.first, p.seen
}

// Wait waits for the process's end.
func (p *process) Wait(context.Context) error {
	<-p.exited
	return nil
}

// Kill kills the process and its group: go-plugin asks for that when there is no handshake. One that has closed its stdout
// is about to end by itself as a rule, and how it does says more than that it was killed.
func (p *process) Kill(context.Context) error {
	p.mu.Lock()
	mute := p.mute && !p.dead
	p.mu.Unlock()
	if mute {
		p.gone(endGrace)
	}
	p.kill()
	return nil
}

// kill kills the process and its group, at once and for good.
func (p *process) kill() {
	p.over()
	// go-plugin waits for the end of what it reads.
	_ = p.handshake.Close()
}

// over kills what is left of the group, for the last time: once the process was waited for, the group's number may
// become another's.
func (p *process) over() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.started && !p.dead {
		p.group.kill()
	}
	p.dead = true
}

// terminate asks the process and its group to end.
func (p *process) terminate() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.started && !p.dead {
		p.group.terminate()
	}
}

// exit describes how the process ended; it is valid once exited is closed.
func (p *process) exit() string {
	if p.cmd.ProcessState == nil {
		return "it could not be waited for"
	}
	return p.cmd.ProcessState.String()
}

// Stdout gives go-plugin the handshake.
func (p *process) Stdout() io.ReadCloser { return p.handshake }

// Stderr gives go-plugin nothing.
func (p *process) Stderr() io.ReadCloser { return io.NopCloser(strings.NewReader("")) }

// Name returns the program's path.
func (p *process) Name() string { return p.cmd.Path }

// ID returns the process id.
func (p *process) ID() string { return strconv.Itoa(p.pid()) }

func (p *process) pid() int {
	if p.cmd.Process == nil {
		return 0
	}
	return p.cmd.Process.Pid
}

// Diagnose adds nothing: diagnose.go says what is wrong.
func (p *process) Diagnose(context.Context) string { return "" }

// PluginToHost and HostToPlugin: both see the same paths.
func (p *process) PluginToHost(network, addr string) (string, string, error) {
	return network, addr, nil
}

// HostToPlugin is the reverse of PluginToHost.
func (p *process) HostToPlugin(network, addr string) (string, string, error) {
	return network, addr, nil
}
