//go:build linux

package bench

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/fairlead-iot/fairlead/internal/bench/figure"
	"github.com/fairlead-iot/fairlead/internal/bench/load"
)

// way is how both routes of a comparison reach the hub.
type way struct {
	name  string
	proxy string // proxy_options, "" for none
}

// ways are all that this machine has.
func ways(t *testing.T) []way {
	t.Helper()
	out := []way{{name: "direct"}}
	if port, ok := tinyproxy(t); ok {
		out = append(out, way{"through tinyproxy", fmt.Sprintf("{proxy_type: HTTP, proxy_addr: 127.0.0.1, proxy_port: %d}", port)})
	}
	return out
}

// tinyproxy starts one, where it is installed, that ends with the test.
func tinyproxy(t *testing.T) (port int, ok bool) {
	t.Helper()
	program, err := exec.LookPath("tinyproxy")
	if err != nil {
		t.Log("no tinyproxy: apt-get install tinyproxy")
		return 0, false
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port = l.Addr().(*net.TCPAddr).Port
	_ = l.Close()
	file := filepath.Join(t.TempDir(), "tinyproxy.conf")
	text := fmt.Sprintf("Port %d\nListen 127.0.0.1\nTimeout 600\nMaxClients 20\nAllow 127.0.0.1\nLogLevel Error\n", port)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	start(t, "tinyproxy", exec.Command(program, "-d", "-c", file), nil)
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err == nil {
			_ = c.Close()
			return port, true
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}

// routes measures MQTT over WebSocket beside MQTT, each way, in a runtime of its own.
func routes(t *testing.T, rounds, messages int) *table {
	t.Helper()
	files, err := build(t.TempDir(), "", "../../cmd/runtime", "./plugin")
	if err != nil {
		t.Fatal(err)
	}
	w := &world{hub: startHub(t)}
	tb := &table{first: "mqttws", second: "mqtt"}
	for i, way := range ways(t) {
		more := ""
		if way.proxy != "" {
			more = ", proxy_options: " + way.proxy
		}
		w.ours = w.newRoute(t, fmt.Sprintf("mqttws%d", i), files[0], files[1], "mqttws", more)
		w.peers = w.newRoute(t, fmt.Sprintf("mqtt%d", i), files[0], files[1], "mqtt", more)
		w.both(0, func(s *side, _ bool) {
			s.up()
			s.send(load.Job{Count: messages, Size: 256, Window: window}) // to warm up
		})
		for round := range rounds {
			for _, in := range []int{window, 100} {
				w.both(round, func(s *side, isOurs bool) {
					r := s.send(load.Job{Count: messages, Size: 256, Window: in})
					name := fmt.Sprintf("%s, %d in flight", way.name, in)
					tb.row(name+", rate", "k/s", true).add(isOurs, float64(messages)/r.wall/1e3)
					tb.row(name+", CPU of the runtime", "s per 100k", false).add(isOurs, r.runtime/float64(messages)*1e5)
				})
			}
			w.both(round, func(s *side, isOurs bool) {
				single := messages / 50
				r := s.send(load.Job{Count: single, Size: 256, Window: 1})
				tb.row(way.name+", one in flight", "µs each", false).add(isOurs, r.wall/float64(single)*1e6)
			})
		}
		w.both(0, func(s *side, _ bool) {
			want := int64(messages + rounds*(2*messages+messages/50))
			if c := w.hub.do(hubOrder{Counters: s.device}).Counters; c.TelemetryReceived != want || c.TelemetryAcked != want {
				t.Errorf("%s: the hub received %d messages and acknowledged %d, want %d", s.device, c.TelemetryReceived, c.TelemetryAcked, want)
			}
			s.down()
		})
	}
	return tb
}

func TestRoutesSmoke(t *testing.T) {
	if testing.Short() {
		t.Skip("builds and runs programs")
	}
	routes(t, 1, 1000)
}

// TestRoutes prints what a WebSocket costs.
func TestRoutes(t *testing.T) {
	if !*figures {
		t.Skip("measures only with -figures")
	}
	before := figure.LoadAverage()
	tb := routes(t, *rounds, 100_000)
	fmt.Printf("%s, %s/%s, %d CPUs, %d rounds, load average %s before and %s after\n\n%s",
		runtime.Version(), runtime.GOOS, runtime.GOARCH, runtime.NumCPU(), *rounds, before, figure.LoadAverage(), tb)
}
