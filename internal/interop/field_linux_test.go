//go:build interop && linux

package interop_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// site is the device's end of the cable: a process that holds a network and a mount namespace.
type site struct {
	pid   string
	hosts string // the file that stands as /etc/hosts there
}

// newSite lays the cable. In the site the proxies have a name, of both families, and the hub has none.
func newSite(t *testing.T) *site {
	t.Helper()
	holder := exec.CommandContext(t.Context(), "sleep", "infinity")
	holder.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	if err := holder.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = holder.Process.Kill()
		_ = holder.Wait()
	})
	s := &site{pid: fmt.Sprint(holder.Process.Pid)}
	ip := findProgram(t, "ip", "iproute2")
	s.hosts = writeFile(t, filepath.Join(publicDir(t), "hosts"), fmt.Sprintf("127.0.0.1 localhost\n%s %s\n%s %s\n", plantAddr6, proxyName, plantAddr, proxyName), 0o644)
	run(t, ip+" link add plant0 type veth peer name plant1")
	run(t, ip+" link set plant1 netns "+s.pid)
	run(t, ip+" address add "+plantAddr+"/24 dev plant0")
	run(t, ip+" -6 address add "+plantAddr6+"/64 dev plant0 nodad")
	run(t, ip+" link set plant0 up")
	for _, line := range []string{
		ip + " link set lo up",
		ip + " address add " + deviceAddr + "/24 dev plant1",
		ip + " -6 address add fd77::2/64 dev plant1 nodad",
		ip + " link set plant1 up",
		"mount --make-rprivate /",
		"mount --bind " + s.hosts + " /etc/hosts",
	} {
		run(t, s.enter()+line)
	}
	return s
}

// run runs a command line of plain words.
func run(t *testing.T, line string) {
	t.Helper()
	words := strings.Fields(line)
	if out, err := exec.CommandContext(t.Context(), words[0], words[1:]...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", line, err, out)
	}
}

func (s *site) enter() string { return "nsenter -t " + s.pid + " -m -n -- " }

// name lets a name mean an address there, until the test ends.
func (s *site) name(t *testing.T, addr, name string) {
	t.Helper()
	before, err := os.ReadFile(s.hosts)
	if err != nil {
		t.Fatal(err)
	}
	writeFile(t, s.hosts, string(before)+addr+" "+name+"\n", 0o644)
	t.Cleanup(func() { writeFile(t, s.hosts, string(before), 0o644) })
}

// fieldDevice is a fairlead in a site.
type fieldDevice struct {
	t    *testing.T
	dir  string
	cmd  *exec.Cmd
	once *sync.Once // of the end of the process
	log  safeBuffer // of all its processes
}

// safeBuffer is written by a process and read by the test.
type safeBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *safeBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *safeBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// noProxies hides what the environment of the test says of proxies.
var noProxies = []string{"HTTPS_PROXY=", "https_proxy=", "ALL_PROXY=", "all_proxy=", "NO_PROXY=", "no_proxy="}

// newFieldDevice makes a device that does not run yet. files are what it is given, by name; fairlead.yaml among them.
func newFieldDevice(t *testing.T, files map[string]string) *fieldDevice {
	t.Helper()
	d := &fieldDevice{t: t, dir: publicDir(t)}
	for name, text := range files {
		writeFile(t, d.path(name), text, 0o600)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("its log:\n%s", d.log.String())
		}
	})
	return d
}

// start starts the program in a site, with env besides the test's own environment.
func (d *fieldDevice) start(s *site, env ...string) {
	d.t.Helper()
	words := append(strings.Fields(s.enter()), os.Getenv(builtProgram), "run", "-c", d.path("fairlead.yaml"))
	cmd, once := exec.CommandContext(d.t.Context(), words[0], words[1:]...), new(sync.Once)
	cmd.Stderr, cmd.Env = &d.log, slices.Concat(os.Environ(), noProxies, env)
	if err := cmd.Start(); err != nil {
		d.t.Fatal(err)
	}
	d.cmd, d.once = cmd, once
	d.t.Cleanup(func() {
		once.Do(func() {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		})
	})
}

func (d *fieldDevice) path(elem ...string) string {
	return filepath.Join(append([]string{d.dir}, elem...)...)
}

// do runs a command on it, by its socket, and returns what is said and the exit code.
func (d *fieldDevice) do(args ...string) (stdout, stderr string, code int) {
	d.t.Helper()
	ctx, cancel := context.WithTimeout(d.t.Context(), 30*time.Second)
	defer cancel()
	var out, errs bytes.Buffer
	cmd := exec.CommandContext(ctx, os.Getenv(builtProgram), append(args, "-c", d.path("fairlead.yaml"))...)
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	if e, ok := errors.AsType[*exec.ExitError](err); ok {
		return out.String(), errs.String(), e.ExitCode()
	}
	if err != nil {
		d.t.Errorf("%q: %v", args, err)
		return out.String(), errs.String(), -1
	}
	return out.String(), errs.String(), 0
}

// must is do of a command that has to work.
func (d *fieldDevice) must(args ...string) (stdout string) {
	d.t.Helper()
	stdout, stderr, code := d.do(args...)
	if code != 0 {
		d.t.Fatalf("%q: exit code %d\n%s%s", args, code, stdout, stderr)
	}
	return stdout
}

// fieldStatus is what `fairlead status --json` says, as far as the tests look.
type fieldStatus struct {
	Connection struct {
		State     string `json:"state"`
		Reason    string `json:"reason"`
		Transport string `json:"transport"`
	} `json:"connection"`
	Counters struct {
		Sessions int `json:"sessions"`
		Losses   int `json:"losses"`
		Swaps    int `json:"route_swaps"`
	} `json:"counters"`
	Uploads []struct {
		ID     string `json:"id"`
		State  string `json:"state"`
		Reason string `json:"reason"`
	} `json:"uploads"`
}

// status is empty where the runtime does not answer yet.
func (d *fieldDevice) status() (s fieldStatus) {
	d.t.Helper()
	stdout, _, code := d.do("status", "--json")
	if code == 0 {
		if err := json.Unmarshal([]byte(stdout), &s); err != nil {
			d.t.Errorf("status %q: %v", stdout, err)
		}
	}
	return s
}

// connection is the state and its reason.
func (d *fieldDevice) connection() string {
	d.t.Helper()
	c := d.status().Connection
	return c.State + ": " + c.Reason
}

// stop tells it to stop, and wants it to do so in order.
func (d *fieldDevice) stop() {
	d.t.Helper()
	d.once.Do(func() {
		if err := d.cmd.Process.Signal(syscall.SIGTERM); err != nil {
			d.t.Error(err)
		}
		if err := d.cmd.Wait(); err != nil {
			d.t.Errorf("it ended with %v, want exit code 0", err)
		}
	})
	log := d.log.String()
	d.wantNoSecret("its log", log)
	if strings.Contains(log, "panic:") || strings.Contains(log, "goroutine ") {
		d.t.Error("it panicked")
	}
}

// wantNoSecret wants no password of a proxy in what it said.
func (d *fieldDevice) wantNoSecret(where, text string) {
	d.t.Helper()
	for _, secret := range []string{proxyPassword, proxyPasswordEscaped, plainPassword, "wrong-4711", "Proxy-Authorization"} {
		if strings.Contains(text, secret) {
			d.t.Errorf("%s shows %q", where, secret)
		}
	}
}
