//go:build faults && unix

package faults

import (
	"bufio"
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// anonymousMax is what the runtime may hold of memory while it uploads, whatever the file's size, in bytes.
const anonymousMax = 48 << 20

// newUploadWorld starts a hub, and configures a runtime that goes by proxy for its uploads.
func newUploadWorld(t *testing.T, more string) (*world, *cuttingProxy) {
	t.Helper()
	w := emptyWorld(t)
	w.hubFlags = append(w.hubFlags, "--verbose") // it tells of each block
	w.startHub("0", "0")
	w.must("hub", "device", "add", device, "--out", w.path("device.cs"), "--dir", w.path("hub"))
	p := newCuttingProxy(t)
	_, https := w.ports()
	w.configure("", fmt.Sprintf("uploads: {port: %s, address: 127.0.0.1, proxy_options: {proxy_type: HTTP, proxy_addr: 127.0.0.1, proxy_port: %d}%s}", https, p.port, more))
	text, err := os.ReadFile(w.path("fairlead.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	// The hub's blob endpoint is a storage account like any other.
	ca := strconv.Quote(w.ready.CAFile)
	text = bytes.Replace(text, []byte("tls: {"), []byte("tls: {extra_ca: {file: "+ca+"}, "), 1)
	text = bytes.Replace(text, []byte("\nplugins:\n\n"), []byte("\n"), 1)
	if err := os.WriteFile(w.path("fairlead.yaml"), text, 0o600); err != nil {
		t.Fatal(err)
	}
	return w, p
}

// giant writes a file that repeats nothing, and returns its path and sum.
func (w *world) giant(size int64) (path string, sum [sha256.Size]byte) {
	w.t.Helper()
	path = w.path("giant file")
	f, err := os.Create(path)
	if err != nil {
		w.t.Fatal(err)
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.CopyN(io.MultiWriter(f, h), rand.NewChaCha8([32]byte{9}), size); err != nil {
		w.t.Fatal(err)
	}
	return path, [sha256.Size]byte(h.Sum(nil))
}

// arrived compares what the hub has.
func (w *world) arrived(name string, size int64, sum [sha256.Size]byte) {
	w.t.Helper()
	w.hubDo("files", "get", device, name, "--out", w.path("got"))
	f, err := os.Open(w.path("got"))
	if err != nil {
		w.t.Fatal(err)
	}
	defer f.Close()
	h := sha256.New()
	n, err := io.Copy(h, f)
	if err != nil || n != size || [sha256.Size]byte(h.Sum(nil)) != sum {
		w.t.Errorf("the hub has %d bytes, another content: %v; want %d", n, err, size)
	}
	if out := w.hubDo("files", "notifications"); strings.Count(out, device+"/"+name+" ") != 1 {
		w.t.Errorf("the service was not told once:\n%s", out)
	}
}

// uploadState is how the only upload stands; "" while nobody answers.
func (w *world) uploadState() (state, reason string, percent int) {
	w.t.Helper()
	stdout, _, code := w.cli("status", "--json", "-c", w.path("fairlead.yaml"))
	var s struct {
		Uploads []struct {
			State, Reason string
			Size, Sent    int64
		} `json:"uploads"`
	}
	if code != 0 || json.Unmarshal([]byte(stdout), &s) != nil || len(s.Uploads) == 0 {
		return "", "", 0
	}
	u := s.Uploads[0]
	return u.State, u.Reason, int(100 * u.Sent / max(u.Size, 1))
}

func TestAFileOfAGibibyteArrivesInLittleMemory(t *testing.T) {
	w, _ := newUploadWorld(t, "")
	w.run()
	const size = 1 << 30
	path, sum := w.giant(size)
	began := time.Now()
	w.must("upload", path, "--name", "dir/giant ü", "-c", w.path("fairlead.yaml"))
	most, samples := int64(0), 0
	for eventually := time.Now().Add(8 * time.Minute); ; time.Sleep(100 * time.Millisecond) { // between two looks
		most = max(most, anonymous(t, w.runtime.cmd.Process.Pid))
		if samples++; samples%10 == 0 {
			state, reason, percent := w.uploadState()
			if state == "done" {
				break
			}
			if state == "failed" || time.Now().After(eventually) {
				t.Fatalf("the upload is %s at %d %%: %s", state, percent, reason)
			}
		}
	}
	t.Logf("1 GiB in %v, at most %d MiB anonymous resident", time.Since(began).Round(time.Second), most>>20)
	if most >= anonymousMax {
		t.Errorf("%d MiB anonymous resident, want less than %d", most>>20, anonymousMax>>20)
	}
	w.arrived("dir/giant ü", size, sum)
}

// uploadCase is something that happens again and again while a file is uploaded.
type uploadCase struct {
	name   string
	size   int64
	limits string        // of the uploads; a bandwidth of 3 MiB/s if ""
	every  time.Duration // since the last time, and since the runtime answers
	// most is how often it happens at most, without limit if 0. What breaks connections ends with three quarters of the file:
	// at the very end it can strike between the hub and what the runtime keeps of its answer, and then services are told
	// twice, as docs/uploads.md says.
	most    int
	disturb func(w *world, p *cuttingProxy)
	// before, if set, comes in the place of disturb: something that happens by itself, at each refusal of the storage.
	before func(w *world)
	// strikes is how many requests the storage refuses for it; 0 where it breaks connections.
	strikes int
	extra   int64 // how many bytes it may cost, fourBlocks if 0
}

// Four blocks of 4 MiB at most are under way when something happens, and each is sent once more.
const fourBlocks = 4 * (4 << 20)

func TestUploadsEndRightWhateverHappens(t *testing.T) {
	kill := func(w *world, _ *cuttingProxy) {
		w.runtime.kill(w.t)
		w.runtime = start(w.t, w.dir, "runtime", "run", "-c", w.path("fairlead.yaml"))
	}
	storage := func(code, count string) func(*world, *cuttingProxy) {
		return func(w *world, _ *cuttingProxy) {
			w.hubDo("fault", "add", "storage-status", "--code", code, "--count", count)
		}
	}
	const size = 24 << 20
	var waiting sync.WaitGroup
	defer waiting.Wait()
	for _, c := range []uploadCase{
		{name: "the runtime is killed every second", size: size, every: time.Second, most: 6, disturb: kill},
		{
			// As much as the limit lets through in two seconds is what a life may lose.
			name: "the runtime is killed every second on a slow link", size: 2 << 20, limits: "bandwidth: 256KiB", every: time.Second, disturb: kill, extra: 512 << 10,
		},
		{name: "connections are cut every 3 s", size: size, every: 3 * time.Second, most: 6, disturb: func(_ *world, p *cuttingProxy) { p.cut() }},
		{name: "the proxy restarts", size: size, every: 4 * time.Second, most: 6, disturb: func(_ *world, p *cuttingProxy) { p.restart(time.Second) }},
		{
			// Two blocks take 4 s, and those that follow come too late: each of the first three addresses ends in the middle.
			name: "addresses end in the middle", size: 32 << 20, limits: "bandwidth: 2MiB, blocks: 2", strikes: 2,
			before: func(w *world) { w.hubDo("fault", "add", "short-sas", "--delay", "2s", "--count", "3") },
		},
		{name: "the storage answers 403", size: size, every: 2 * time.Second, most: 6, disturb: storage("403", "1"), strikes: 1},
		{name: "the storage answers 500", size: size, every: time.Second, most: 6, disturb: storage("500", "2"), strikes: 2},
		{name: "the storage answers 503", size: size, every: time.Second, most: 6, disturb: storage("503", "2"), strikes: 2},
	} {
		if c.strikes == 0 {
			t.Run(c.name, func(t *testing.T) { c.run(t) })
			continue
		}
		// It waits between its attempts, most of the time; what it counts does not depend on how long things take.
		waiting.Go(func() { // not t.Parallel: see TestLinksDoWhatLinksDoAndNothingIsLost
			t.Run(c.name, func(t *testing.T) { c.run(t) })
		})
	}
}

func (c uploadCase) run(t *testing.T) {
	w, p := newUploadWorld(t, ", "+cmp.Or(c.limits, "bandwidth: 3MiB"))
	w.run()
	path, sum := w.giant(c.size)
	if c.before != nil {
		c.before(w)
	}
	w.must("upload", path, "--name", "b", "-c", w.path("fairlead.yaml"))
	var faults []int // how many blocks the hub had seen at each
	next := time.Now().Add(c.every)
	for limit := time.Now().Add(4 * time.Minute); ; time.Sleep(50 * time.Millisecond) { // between two looks
		state, reason, percent := w.uploadState()
		if state == "done" {
			break
		}
		if state == "" { // it is starting, which takes a busy machine longer than a life of a second
			next = time.Now().Add(c.every)
		}
		if state == "failed" || time.Now().After(limit) {
			t.Fatalf("the upload is %q at %d %% after %d faults: %s", state, percent, len(faults), reason)
		}
		if c.disturb != nil && time.Now().After(next) && (c.most == 0 || len(faults) < c.most) {
			staged := w.staged()
			if c.strikes == 0 && bytesTaken(staged) > c.size*3/4 {
				continue
			}
			faults = append(faults, len(staged))
			c.disturb(w, p)
			next = time.Now().Add(c.every)
		}
	}
	staged := w.staged()
	for i, s := range staged {
		if c.before != nil && s.isRefused && i > 0 && !staged[i-1].isRefused {
			faults = append(faults, i)
		}
	}
	if len(faults) < 2 {
		t.Fatalf("%d faults: the upload was over before", len(faults))
	}
	w.arrived("b", c.size, sum)
	most := c.size + c.size/20 + int64(len(faults))*cmp.Or(c.extra, fourBlocks)
	t.Logf("%d faults, %d blocks, %d KiB were sent for %d", len(faults), len(staged), p.sent.Load()>>10, c.size>>10)
	if sent := p.sent.Load(); sent > most || sent < c.size {
		t.Errorf("%d bytes were sent for %d with %d faults, want at most %d", sent, c.size, len(faults), most)
	}
	if c.strikes > 0 {
		c.refusedAlone(t, staged, len(faults))
	} else {
		twicePerFault(t, staged, faults)
	}
}

func bytesTaken(staged []stagedBlock) (n int64) {
	for _, s := range staged {
		if !s.isRefused {
			n += s.size
		}
	}
	return n
}

// refusedAlone wants nothing to be sent again but what the storage refused, and that to be no more than the faults.
func (c uploadCase) refusedAlone(t *testing.T, staged []stagedBlock, faults int) {
	t.Helper()
	var taken, refused []stagedBlock
	for _, s := range staged {
		if s.isRefused {
			refused = append(refused, s)
		} else {
			taken = append(taken, s)
		}
	}
	if times, at := oftenest(taken); times != 1 {
		t.Errorf("byte %d was sent %d times to a storage that took it: %v", at, times, staged)
	}
	if n := len(refused); n == 0 || n > faults*c.strikes {
		t.Errorf("%d blocks were refused with %d faults, want 1 to %d: %v", n, faults, faults*c.strikes, staged)
	}
}

// twicePerFault wants each byte to be sent once, and after a fault at most twice: what was under way, and again.
func twicePerFault(t *testing.T, staged []stagedBlock, faults []int) {
	t.Helper()
	for i, from := range append([]int{0}, faults...) {
		to, allowed := len(staged), min(i+1, 2)
		if i < len(faults) {
			to = faults[i]
		}
		if times, at := oftenest(staged[from:to]); times > allowed {
			t.Errorf("after fault %d byte %d was sent %d times, want at most %d: %v", i, at, times, allowed, staged[from:to])
		}
	}
}

// stagedBlock is a Put Block that the hub has seen.
type stagedBlock struct {
	off, size int64
	isRefused bool // for whatever reason, its connection's end among them
}

var stagedLine = regexp.MustCompile(`msg="blob request( refused)?" method=PUT .* comp=block block="?([0-9A-Za-z+/=]+)`)

// staged returns the blocks that were sent to the hub so far, as often as they were, in the order in which they ended.
func (w *world) staged() (out []stagedBlock) {
	w.t.Helper()
	text, err := os.ReadFile(w.hub.log)
	if err != nil {
		w.t.Fatal(err)
	}
	text = text[:bytes.LastIndexByte(text, '\n')+1] // what stands behind it is being written
	for _, m := range stagedLine.FindAllSubmatch(text, -1) {
		name, err := base64.StdEncoding.DecodeString(string(m[2]))
		b := stagedBlock{isRefused: len(m[1]) > 0}
		if err == nil {
			_, err = fmt.Sscanf(string(name[16:]), "%12x%8x", &b.off, &b.size) // after the upload's id: see package uploads
		}
		if err != nil {
			w.t.Fatalf("block %q: %v", name, err)
		}
		out = append(out, b)
	}
	return out
}

// oftenest returns how often the byte was sent that was sent oftenest.
func oftenest(blocks []stagedBlock) (times int, at int64) {
	for _, b := range blocks {
		n := 0
		for _, other := range blocks {
			if other.off <= b.off && b.off < other.off+other.size {
				n++
			}
		}
		if n > times {
			times, at = n, b.off
		}
	}
	return times, at
}

func TestAnUploadThatIsRefusedForGoodIsReported(t *testing.T) {
	w, _ := newUploadWorld(t, "")
	w.run()
	path, _ := w.giant(1 << 20)
	w.hubDo("fault", "add", "storage-status", "--code", "409")
	_, stderr, code := w.cli("upload", path, "--name", "b", "--wait", "-c", w.path("fairlead.yaml"))
	if code != 1 || !strings.Contains(stderr, "failed: storage:") || !strings.Contains(stderr, "409") {
		t.Errorf("exit code %d: %s", code, stderr)
	}
	eventually(t, 30*time.Second, "the hub's word that the device gave up", func() bool { return w.hub.logged(t, "a device gave up an upload") })
}

// cuttingProxy is an HTTP proxy (CONNECT) that a test can cut and restart.
type cuttingProxy struct {
	t    *testing.T
	port int
	sent atomic.Int64 // bytes from the clients
	// wants is the Proxy-Authorization that it asks for, if set.
	wants atomic.Pointer[string]

	mu    sync.Mutex
	l     net.Listener
	conns map[net.Conn]struct{}
	all   sync.WaitGroup
}

func newCuttingProxy(t *testing.T) *cuttingProxy {
	t.Helper()
	p := &cuttingProxy{t: t, conns: map[net.Conn]struct{}{}}
	p.listen("127.0.0.1:0")
	p.port = p.l.Addr().(*net.TCPAddr).Port
	t.Cleanup(func() {
		p.mu.Lock()
		_ = p.l.Close()
		p.mu.Unlock()
		p.cut()
		p.all.Wait()
	})
	return p
}

func (p *cuttingProxy) listen(addr string) {
	p.t.Helper()
	l, err := net.Listen("tcp", addr)
	if err != nil {
		p.t.Fatal(err)
	}
	p.mu.Lock()
	p.l = l
	p.mu.Unlock()
	p.all.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			p.all.Go(func() { p.serve(c) })
		}
	})
}

// restart is away for a while.
func (p *cuttingProxy) restart(away time.Duration) {
	p.mu.Lock()
	_ = p.l.Close()
	p.mu.Unlock()
	p.cut()
	time.Sleep(away) // the outage itself
	p.listen("127.0.0.1:" + strconv.Itoa(p.port))
}

// cut ends all tunnels.
func (p *cuttingProxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		_ = c.Close()
	}
}

func (p *cuttingProxy) track(c net.Conn) (forget func()) {
	p.mu.Lock()
	p.conns[c] = struct{}{}
	p.mu.Unlock()
	return func() {
		_ = c.Close()
		p.mu.Lock()
		delete(p.conns, c)
		p.mu.Unlock()
	}
}

func (p *cuttingProxy) serve(c net.Conn) {
	defer p.track(c)()
	in := bufio.NewReader(c)
	r, err := http.ReadRequest(in)
	if err != nil || r.Method != http.MethodConnect {
		return
	}
	if wants := p.wants.Load(); wants != nil && r.Header.Get("Proxy-Authorization") != *wants {
		_, _ = io.WriteString(c, "HTTP/1.1 407 Proxy Authentication Required\r\nProxy-Authenticate: Basic realm=\"plant\"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
		return
	}
	host := r.Host
	if name, port, err := net.SplitHostPort(host); err == nil && name == hostname {
		host = net.JoinHostPort("127.0.0.1", port)
	}
	far, err := net.Dial("tcp", host)
	if err != nil {
		_, _ = io.WriteString(c, "HTTP/1.1 502 Bad Gateway\r\n\r\n")
		return
	}
	defer p.track(far)()
	_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\n")
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = io.Copy(c, far)
		_ = c.Close()
	}()
	_, _ = io.Copy(&counted{far, &p.sent}, in)
	_ = far.Close()
	<-done
}

type counted struct {
	io.Writer
	n *atomic.Int64
}

func (c *counted) Write(b []byte) (int, error) {
	n, err := c.Writer.Write(b)
	c.n.Add(int64(n))
	return n, err
}
