//go:build faults && unix

package faults

import (
	"bytes"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// process is a program that a test runs, and its log.
type process struct {
	name string
	cmd  *exec.Cmd
	log  string        // file that has its stdout and stderr
	done chan struct{} // closed when it was reaped
}

// start starts the program; see launch.
func start(t *testing.T, dir, name string, args ...string) *process {
	t.Helper()
	return startWith(t, dir, name, nil, args...)
}

// startWith is start with more in the environment.
func startWith(t *testing.T, dir, name string, env []string, args ...string) *process {
	t.Helper()
	return launch(t, dir, name, env, append([]string{programs.fairlead}, args...))
}

// launch starts a command line; it is killed, and its log printed if the test failed, when the test ends.
func launch(t *testing.T, dir, name string, env, argv []string) *process {
	t.Helper()
	p := &process{name: name, log: filepath.Join(dir, name+".log"), done: make(chan struct{})}
	log, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close() //nolint:errcheck // the child has its own
	p.cmd = exec.Command(argv[0], argv[1:]...)
	p.cmd.Stdout, p.cmd.Stderr, p.cmd.Dir, p.cmd.Env = log, log, dir, append(environ(dir), env...)
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = p.cmd.Wait() // the state tells all
		close(p.done)
	}()
	t.Cleanup(func() {
		p.signal(t, syscall.SIGKILL)
		<-p.done
		if t.Failed() {
			text, _ := os.ReadFile(p.log)
			t.Logf("log of %s:\n%s", name, tail(text, 6000))
		}
	})
	return p
}

// environ is the environment of a user who has nothing.
func environ(dir string) []string {
	return []string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "TMPDIR=" + os.TempDir(), "GORACE=atexit_sleep_ms=0"} // else each ends a second late under -race-programs
}

func tail(text []byte, n int) []byte {
	if len(text) > n {
		return append([]byte("…"), text[len(text)-n:]...)
	}
	return text
}

// signal sends a signal unless the process has been reaped.
func (p *process) signal(t *testing.T, s syscall.Signal) {
	t.Helper()
	select {
	case <-p.done:
	default:
		if err := p.cmd.Process.Signal(s); err != nil && err != os.ErrProcessDone { //nolint:errorlint // it is returned as it is
			t.Errorf("send %v to %s: %v", s, p.name, err)
		}
	}
}

// kill ends the process as a power cut would.
func (p *process) kill(t *testing.T) {
	t.Helper()
	p.signal(t, syscall.SIGKILL)
	<-p.done
}

// exit waits for the end and returns the exit code and how long it took.
func (p *process) exit(t *testing.T, limit time.Duration) (code int, took time.Duration) {
	t.Helper()
	began := time.Now()
	select {
	case <-p.done:
	case <-time.After(limit):
		t.Fatalf("%s still runs after %v", p.name, limit)
	}
	return p.cmd.ProcessState.ExitCode(), time.Since(began)
}

// logged reports whether the log holds the text.
func (p *process) logged(t *testing.T, text string) bool {
	t.Helper()
	data, err := os.ReadFile(p.log)
	if err != nil {
		t.Fatal(err)
	}
	return bytes.Contains(data, []byte(text))
}

// alive reports whether a process runs; one that nobody has reaped yet does not.
func alive(pid int) bool {
	if syscall.Kill(pid, 0) != nil {
		return false
	}
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		out, err := exec.Command("ps", "-o", "stat=", "-p", strconv.Itoa(pid)).Output()
		return err == nil && !strings.HasPrefix(string(out), "Z")
	}
	_, rest, _ := strings.Cut(string(stat), ") ") // the name stands in brackets
	return !strings.HasPrefix(rest, "Z")
}

// eventually polls a condition until it holds, and returns how long that took.
func eventually(t *testing.T, limit time.Duration, what string, ok func() bool) time.Duration {
	t.Helper()
	return poll(t, 10*time.Millisecond, limit, what, ok)
}

// poll is eventually with longer pauses, for looks that are dear.
func poll(t *testing.T, pause, limit time.Duration, what string, ok func() bool) time.Duration {
	t.Helper()
	began := time.Now()
	for !ok() {
		if time.Since(began) > limit {
			t.Fatalf("%s: not within %v", what, limit)
		}
		time.Sleep(pause) // between two looks
	}
	return time.Since(began)
}

// plainListener answers every connection with words that are no TLS, and returns its address.
func plainListener(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = c.Write([]byte("220 mail.example ESMTP\r\n"))
			_ = c.Close()
		}
	}()
	return l.Addr().String()
}
