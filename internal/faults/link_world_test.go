//go:build faults && linux

package faults

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"
)

// hubName is the hub's name, which only the DNS of a linkWorld knows; hubAddr and hubAddr2 are the addresses that the hub's
// host has on the link, runtimeAddr is the runtime's.
const (
	hubName     = "hub.links.test"
	runtimeAddr = "198.18.0.1"
	hubAddr     = "198.18.0.2"
	hubAddr2    = "198.18.0.3"
	wire        = "wire" // the interface's name at both ends
)

// linkWorld is a world in which the hub and the runtime have a network namespace each, and a link between them. The
// service side reaches the hub by the hub's own loopback interface, whatever becomes of the link.
type linkWorld struct {
	*world
	dns     *dnsServer
	service *hubClient
}

// linkWorlds numbers the namespaces of this process.
var linkWorlds atomic.Int32

// newLinkWorld makes the link, and starts the hub. needLinkTools says whether that can be done.
func newLinkWorld(t *testing.T) *linkWorld {
	t.Helper()
	w := &linkWorld{world: emptyWorld(t)}
	name := "fl" + strconv.Itoa(os.Getpid()) + "-" + strconv.Itoa(int(linkWorlds.Add(1)))
	w.netns.hub, w.netns.runtime = name+"h", name+"r"
	for _, ns := range []string{w.netns.hub, w.netns.runtime} {
		mustRun(t, "ip", "netns", "add", ns)
		t.Cleanup(func() { mustRun(t, "ip", "netns", "del", ns) })
		mustRun(t, "ip", "-n", ns, "link", "set", "lo", "up")
	}
	mustRun(t, "ip", "-n", w.netns.hub, "link", "add", wire, "type", "veth", "peer", "name", wire, "netns", w.netns.runtime)
	for _, a := range []struct{ ns, addr string }{{w.netns.hub, hubAddr}, {w.netns.hub, hubAddr2}, {w.netns.runtime, runtimeAddr}} {
		mustRun(t, "ip", "-n", a.ns, "addr", "add", a.addr+"/24", "dev", wire)
		mustRun(t, "ip", "-n", a.ns, "link", "set", wire, "up")
	}
	w.serveDNS()
	w.hubFlags = []string{"--hostname", hubName, "--bind", "0.0.0.0"}
	w.startHub("8883", "443")
	w.must("hub", "device", "add", device, "--out", w.path("device.cs"), "--dir", w.path("hub"))
	service, err := newHubClient(w.ready.MQTT, w.ready.HTTPS, w.ready.Service, w.ready.CAFile)
	if err != nil {
		t.Fatal(err)
	}
	w.service = service
	w.service.http.Transport.(*http.Transport).DialContext = func(ctx context.Context, network, _ string) (conn net.Conn, err error) {
		inside := within(w.netns.hub, func() error {
			conn, err = (&net.Dialer{}).DialContext(ctx, network, w.ready.HTTPS)
			return err
		})
		return conn, inside
	}
	t.Cleanup(w.service.http.CloseIdleConnections)
	return w
}

// needLinkTools skips the test where links cannot be made.
func needLinkTools(t *testing.T) {
	t.Helper()
	for _, tool := range []string{"ip", "nft", "tc"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s is not installed here (Debian: iproute2, nftables): the link cannot be disturbed", tool)
		}
	}
	if os.Getuid() != 0 {
		t.Skip("only root makes network namespaces: the link cannot be disturbed")
	}
	name := "fl" + strconv.Itoa(os.Getpid()) + "-probe"
	if out, err := exec.Command("ip", "netns", "add", name).CombinedOutput(); err != nil {
		t.Skipf("no network namespaces here: %s", out)
	}
	mustRun(t, "ip", "netns", "del", name)
}

// serveDNS starts the resolver of the runtime's namespace, and points the runtime to it.
func (w *linkWorld) serveDNS() {
	w.t.Helper()
	var conn net.PacketConn
	if err := within(w.netns.runtime, func() (err error) {
		conn, err = net.ListenPacket("udp", "127.0.0.1:53") //nolint:noctx // it is bound, or it is not
		return err
	}); err != nil {
		w.t.Fatal(err)
	}
	w.dns = serveDNS(conn)
	w.dns.point(hubAddr)
	w.t.Cleanup(w.dns.close)
	// `ip netns exec` lays what stands here over /etc.
	dir := filepath.Join("/etc/netns", w.netns.runtime)
	if err := os.MkdirAll(dir, 0o755); err != nil { //nolint:gosec // as /etc is
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil { // not the one above it, which another may be about to use
			w.t.Error(err)
		}
	})
	if err := os.WriteFile(filepath.Join(dir, "resolv.conf"), []byte("nameserver 127.0.0.1\n"), 0o644); err != nil { //nolint:gosec // as /etc has it
		w.t.Fatal(err)
	}
}

// within calls f on a thread that is in a network namespace. Sockets that f makes stay there.
func within(ns string, f func() error) error {
	result := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with this goroutine, and nobody else finds himself there
		result <- func() error {
			file, err := os.Open(filepath.Join("/run/netns", ns))
			if err != nil {
				return err
			}
			defer file.Close()                                                    //nolint:errcheck // read only
			if err := unix.Setns(int(file.Fd()), unix.CLONE_NEWNET); err != nil { //nolint:gosec // a descriptor is small
				return fmt.Errorf("enter namespace %s: %w", ns, err)
			}
			return f()
		}()
	}()
	return <-result
}

// filter lays rules of nftables on what comes in over the link, into the hub's host and into the runtime's; "" is none.
func (w *linkWorld) filter(intoHub, intoRuntime string) {
	w.t.Helper()
	for ns, rule := range map[string]string{w.netns.hub: intoHub, w.netns.runtime: intoRuntime} {
		script := "table inet fault {}\ndelete table inet fault\n"
		if rule != "" {
			script += "table inet fault { chain in { type filter hook input priority 0; iifname " + wire + " " + rule + "; }; }\n"
		}
		w.nft(ns, script)
	}
}

func (w *linkWorld) nft(ns, script string) {
	w.t.Helper()
	cmd := exec.Command("ip", "netns", "exec", ns, "nft", "-f", "-")
	cmd.Stdin = strings.NewReader(script)
	if out, err := cmd.CombinedOutput(); err != nil {
		w.t.Fatalf("nft %q: %v: %s", script, err, out)
	}
}

// shape limits what leaves at both ends to a rate, behind a queue as modems have it; "" takes the limit away.
func (w *linkWorld) shape(rate string) {
	w.t.Helper()
	for _, ns := range []string{w.netns.hub, w.netns.runtime} {
		if rate == "" {
			mustRun(w.t, "tc", "-n", ns, "qdisc", "del", "dev", wire, "root")
		} else {
			mustRun(w.t, "tc", "-n", ns, "qdisc", "add", "dev", wire, "root", "tbf", "rate", rate, "burst", "4kb", "limit", "32kb")
		}
	}
}

// plug sets the runtime's end of the link up or down.
func (w *linkWorld) plug(state string) {
	w.t.Helper()
	mustRun(w.t, "ip", "-n", w.netns.runtime, "link", "set", wire, state)
}

func mustRun(t *testing.T, argv ...string) {
	t.Helper()
	if out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput(); err != nil {
		t.Fatalf("%s: %v: %s", strings.Join(argv, " "), err, out)
	}
}
