//go:build linux

package hubload

import (
	"bufio"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/fairlead-iot/fairlead/hub"
	"github.com/fairlead-iot/fairlead/hub/api"
	"github.com/fairlead-iot/fairlead/hub/service"
	"github.com/fairlead-iot/fairlead/internal/bench/figure"
	"github.com/fairlead-iot/fairlead/transports/transporttest"
)

// cpu is figure.CPU.
func cpu(t *testing.T, pid int) time.Duration {
	t.Helper()
	used, err := figure.CPU(pid)
	if err != nil {
		t.Fatal(err)
	}
	return used
}

// anonymous is the memory in bytes that a process has for itself, apart from the pages of files.
func anonymous(t *testing.T, pid int) float64 {
	t.Helper()
	r, err := figure.Memory(pid)
	if err != nil {
		t.Fatal(err)
	}
	return r.Anonymous
}

// process is a program that is ended with the test, and its log printed if that failed.
type process struct {
	t   *testing.T
	cmd *exec.Cmd
}

func start(t *testing.T, name string, cmd *exec.Cmd) *process {
	t.Helper()
	file := filepath.Join(t.TempDir(), name+".log")
	log, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close() //nolint:errcheck // the child has its own
	if cmd.Stdout == nil {
		cmd.Stdout = log
	}
	cmd.Stderr = log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p := &process{t, cmd}
	t.Cleanup(func() {
		p.stop()
		if text, err := os.ReadFile(file); t.Failed() && err == nil {
			t.Logf("log of %s:\n%s", name, text[max(0, len(text)-4000):])
		}
	})
	return p
}

func (p *process) pid() int { return p.cmd.Process.Pid }

// stop ends a program in order and waits for it; it may have ended.
func (p *process) stop() {
	if p.cmd.ProcessState != nil {
		return
	}
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	kill := time.AfterFunc(15*time.Second, func() { _ = p.cmd.Process.Kill() })
	_ = p.cmd.Wait()
	kill.Stop()
}

// self starts this test binary in a role, and gives its stdin and stdout.
func self(t *testing.T, role, dir string) (p *process, in, out *os.File) {
	t.Helper()
	file, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(file)
	cmd.Env = append(os.Environ(), roleVar+"="+role, dirVar+"="+dir)
	var inner [2]*os.File
	if inner[0], in, err = os.Pipe(); err != nil {
		t.Fatal(err)
	}
	if out, inner[1], err = os.Pipe(); err != nil {
		t.Fatal(err)
	}
	cmd.Stdin, cmd.Stdout = inner[0], inner[1]
	p = start(t, role, cmd)
	_, _ = inner[0].Close(), inner[1].Close() // the child has its own
	t.Cleanup(func() { _, _ = in.Close(), out.Close() })
	return p, in, out
}

// generator is the generator's process.
type generator struct {
	*process
	in  *json.Encoder
	out *json.Decoder
}

func startGenerator(t *testing.T) *generator {
	t.Helper()
	p, in, out := self(t, "generator", "")
	return &generator{p, json.NewEncoder(in), json.NewDecoder(out)}
}

func (g *generator) do(o order) answer {
	g.t.Helper()
	var a answer
	if err := g.in.Encode(o); err != nil {
		g.t.Fatalf("order the generator: %v", err)
	}
	if err := g.out.Decode(&a); err != nil {
		g.t.Fatalf("read the generator's answer: %v", err)
	}
	if a.Error != "" {
		g.t.Fatalf("the generator: %s", a.Error)
	}
	return a
}

// server is one of those that are compared.
type server struct {
	*process
	Target
	clients []Client
	// service reaches the hub; nil for the others.
	service *service.Client
}

func clientID(i int) string { return fmt.Sprintf("bench%04d", i) }

// startHub builds the command, serves a directory and registers the devices.
func startHub(t *testing.T, devices int) *server {
	t.Helper()
	program := filepath.Join(t.TempDir(), "fairlead")
	build := exec.Command("go", "build", "-ldflags", "-s -w", "-o", program)
	if *figures { // as `make build` does; otherwise what the tests have compiled serves again
		build.Args = append(build.Args, "-trimpath")
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
	}
	build.Args = append(build.Args, "../../../cmd/runtime")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	ready := filepath.Join(t.TempDir(), "ready.json")
	s := &server{process: start(t, "hub", exec.Command(program, "hub", "serve",
		"--dir", t.TempDir(), "--mqtt-port", "0", "--https-port", "0", "--ready-file", ready))}
	var r struct {
		MQTT    string `json:"mqtt"`
		HTTPS   string `json:"https"`
		CAFile  string `json:"ca_file"`
		Service string `json:"service_connection_string"`
	}
	until(t, "the hub is ready", func() bool {
		text, err := os.ReadFile(ready)
		return err == nil && json.Unmarshal(text, &r) == nil
	})
	s.Target = Target{r.MQTT, r.CAFile}
	ca, err := os.ReadFile(r.CAFile)
	if err != nil {
		t.Fatal(err)
	}
	if s.service, err = service.New(r.Service, service.Options{CAPEM: ca, Address: r.HTTPS}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.service.Close)
	for i := range devices {
		d, err := s.service.CreateDevice(t.Context(), api.Device{DeviceID: clientID(i)})
		if err != nil {
			t.Fatal(err)
		}
		token, err := hub.DeviceToken(hub.DeviceConnectionString("localhost", d), 24*time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		s.clients = append(s.clients, Client{d.DeviceID, "localhost/" + d.DeviceID + "/?api-version=2021-04-12", token})
	}
	return s
}

// anyone are clients for a server that asks for nothing.
func anyone(count int) []Client {
	var all []Client
	for i := range count {
		all = append(all, Client{clientID(i), "user", "password"})
	}
	return all
}

// certificate writes cert.pem and key.pem for localhost, and their authority ca.pem.
func certificate(t *testing.T, dir string) {
	t.Helper()
	ca := transporttest.NewAuthority(t, "bench")
	cert := ca.Issue(t, nil, "localhost")
	key, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	var chain []byte
	for _, der := range cert.Certificate {
		chain = append(chain, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	}
	for name, text := range map[string][]byte{
		"cert.pem": chain, "key.pem": pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}), "ca.pem": ca.PEM,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func startSink(t *testing.T, clients int) *server {
	t.Helper()
	dir := t.TempDir()
	certificate(t, dir)
	p, _, out := self(t, "sink", dir)
	address, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("the sink did not start: %v", err)
	}
	return &server{process: p, Target: Target{strings.TrimSpace(address), filepath.Join(dir, "ca.pem")}, clients: anyone(clients)}
}

// mosquittoPath is where mosquitto is, "" for nowhere.
func mosquittoPath() string {
	for _, name := range []string{"mosquitto", "/usr/sbin/mosquitto"} { // the latter is Debian's
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	return ""
}

// startMosquitto is mosquitto at its fastest: it asks nobody who he is, has no subscriber and so keeps no message.
func startMosquitto(t *testing.T, path string, clients int) *server {
	t.Helper()
	dir := t.TempDir()
	certificate(t, dir)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	conf := fmt.Sprintf("user root\nlistener %s 127.0.0.1\ncertfile %[2]s/cert.pem\nkeyfile %[2]s/key.pem\nallow_anonymous true\npersistence false\nlog_type error\n", port, dir)
	if err := os.WriteFile(filepath.Join(dir, "m.conf"), []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	p := start(t, "mosquitto", exec.Command(path, "-c", filepath.Join(dir, "m.conf")))
	until(t, "mosquitto listens", func() bool {
		c, err := net.Dial("tcp", address)
		if err == nil {
			_ = c.Close()
		}
		return err == nil
	})
	return &server{process: p, Target: Target{address, filepath.Join(dir, "ca.pem")}, clients: anyone(clients)}
}

func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !ok(); {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %v", what, patience)
		}
		time.Sleep(10 * time.Millisecond) // between two looks
	}
}
