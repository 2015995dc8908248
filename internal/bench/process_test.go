//go:build linux

package bench

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/fairlead-iot/fairlead/internal/bench/figure"
	"github.com/fairlead-iot/fairlead/internal/bench/load"
)

// patience is how long anything may take before the run fails.
const patience = 2 * time.Minute

// cpu is figure.CPU.
func cpu(t *testing.T, pid int) time.Duration {
	t.Helper()
	used, err := figure.CPU(pid)
	if err != nil {
		t.Fatal(err)
	}
	return used
}

// memory is figure.Memory.
func memory(t *testing.T, pid int) figure.Resident {
	t.Helper()
	r, err := figure.Memory(pid)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// start starts a program that is killed when the test ends, and its log printed if that failed. change may be nil.
func start(t *testing.T, name string, cmd *exec.Cmd, change func(*exec.Cmd)) *exec.Cmd {
	t.Helper()
	file := filepath.Join(t.TempDir(), name+".log")
	log, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close() //nolint:errcheck // the child has its own
	cmd.Stdout, cmd.Stderr = log, log
	if change != nil {
		change(cmd)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		stop(cmd)
		if text, err := os.ReadFile(file); t.Failed() && err == nil {
			t.Logf("log of %s:\n%s", name, text[max(0, len(text)-4000):])
		}
	})
	return cmd
}

// stop ends a program in order and waits for it; it may have ended.
func stop(cmd *exec.Cmd) {
	if cmd.ProcessState != nil {
		return
	}
	_ = cmd.Process.Signal(syscall.SIGTERM)
	kill := time.AfterFunc(15*time.Second, func() { _ = cmd.Process.Kill() })
	_ = cmd.Wait()
	kill.Stop()
}

// hubProcess is the hub in a process of its own.
type hubProcess struct {
	hubReady
	t   *testing.T
	dir string
	pid int
	in  *json.Encoder
	out *json.Decoder
}

func startHub(t *testing.T) *hubProcess {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	h := &hubProcess{t: t, dir: t.TempDir()}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), roleVar+"=hub", dirVar+"="+h.dir)
	var in, out *os.File
	h.pid = start(t, "hub", cmd, func(c *exec.Cmd) {
		var inner [2]*os.File
		if inner[0], in, err = os.Pipe(); err != nil {
			t.Fatal(err)
		}
		if out, inner[1], err = os.Pipe(); err != nil {
			t.Fatal(err)
		}
		c.Stdin, c.Stdout = inner[0], inner[1]
		t.Cleanup(func() { _ = inner[0].Close(); _ = inner[1].Close() })
	}).Process.Pid
	h.in, h.out = json.NewEncoder(in), json.NewDecoder(out)
	if err := h.out.Decode(&h.hubReady); err != nil {
		t.Fatalf("the hub did not start: %v", err)
	}
	return h
}

func (h *hubProcess) do(o hubOrder) hubAnswer {
	h.t.Helper()
	var a hubAnswer
	if err := h.in.Encode(o); err != nil {
		h.t.Fatalf("ask the hub: %v", err)
	}
	if err := h.out.Decode(&a); err != nil {
		h.t.Fatalf("read the hub's answer: %v", err)
	}
	if a.Error != "" {
		h.t.Fatalf("the hub: %s", a.Error)
	}
	return a
}

// add registers a device and returns the file with its connection string.
func (h *hubProcess) add(id string) string {
	h.t.Helper()
	file := filepath.Join(h.dir, id+".cs")
	if err := os.WriteFile(file, []byte(h.do(hubOrder{Add: id}).ConnectionString), 0o600); err != nil {
		h.t.Fatal(err)
	}
	return file
}

// side is one of the two that are compared.
type side struct {
	t        *testing.T
	hub      *hubProcess
	device   string
	launch   func(socket string) *exec.Cmd
	cmd      *exec.Cmd
	conn     net.Conn
	in       *json.Encoder
	out      *json.Decoder
	pids     []int // whose CPU time counts: the runtime and its plugin, or the peer
	starting time.Duration
}

// up starts the side and waits until it is connected to the hub.
func (s *side) up() {
	s.t.Helper()
	// Not t.TempDir: a socket's path is short.
	dir, err := os.MkdirTemp("", "fl-bench-")
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = os.RemoveAll(dir) })
	socket := filepath.Join(dir, "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		s.t.Fatal(err)
	}
	defer l.Close() //nolint:errcheck // one connection is enough
	cmd := s.launch(socket)
	began := time.Now()
	s.cmd = start(s.t, s.device, cmd, nil)
	if err := l.(*net.UnixListener).SetDeadline(began.Add(patience)); err != nil {
		s.t.Fatal(err)
	}
	if s.conn, err = l.Accept(); err != nil {
		s.t.Fatalf("%s did not come up: %v", s.device, err)
	}
	s.in, s.out = json.NewEncoder(s.conn), json.NewDecoder(s.conn)
	var hello load.Hello
	if err := s.out.Decode(&hello); err != nil {
		s.t.Fatalf("%s did not greet: %v", s.device, err)
	}
	s.starting = time.Since(began)
	s.pids = []int{s.cmd.Process.Pid}
	if hello.PID != s.cmd.Process.Pid {
		s.pids = append(s.pids, hello.PID)
	}
}

// down ends the side in order.
func (s *side) down() {
	_ = s.conn.Close()
	stop(s.cmd)
}

// sent is what a job cost, in seconds.
type sent struct {
	wall float64
	// cpu is that of all processes of the side; runtime and plugin are its parts (the peer has one).
	cpu, runtime, plugin float64
	hub                  float64
}

// send has the side carry out a job.
func (s *side) send(j load.Job) sent {
	s.t.Helper()
	clocks := append([]int{s.hub.pid}, s.pids...)
	before := make([]float64, 3)
	for i, pid := range clocks {
		before[i] = cpu(s.t, pid).Seconds()
	}
	if err := s.in.Encode(j); err != nil {
		s.t.Fatalf("order %s: %v", s.device, err)
	}
	_ = s.conn.SetReadDeadline(time.Now().Add(patience))
	var r load.Result
	if err := s.out.Decode(&r); err != nil {
		s.t.Fatalf("result of %s: %v", s.device, err)
	}
	if r.Error != "" {
		s.t.Fatalf("%s: %s", s.device, r.Error)
	}
	var used [3]float64
	for i, pid := range clocks {
		used[i] = cpu(s.t, pid).Seconds() - before[i]
	}
	return sent{wall: r.Seconds, cpu: used[1] + used[2], runtime: used[1], plugin: used[2], hub: used[0]}
}

// build builds commands of this module into dir, and returns the files. What is measured is built as `make build` does. The
// rest is built as the tests are, so that what they have compiled serves again: it takes a third of the time.
func build(dir, tags string, packages ...string) ([]string, error) {
	cmd := exec.Command("go", "build", "-tags", tags, "-ldflags", "-s -w", "-o", dir+string(filepath.Separator))
	if *figures || *profileDir != "" {
		cmd.Args = append(cmd.Args, "-trimpath")
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	}
	cmd.Args = append(cmd.Args, packages...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build %s: %w\n%s", packages, err, out)
	}
	files := make([]string, 0, len(packages))
	for _, p := range packages {
		files = append(files, filepath.Join(dir, filepath.Base(p)))
	}
	return files, nil
}
