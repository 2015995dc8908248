package hub_test

import (
	"fmt"
	"io"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/fairlead-iot/fairlead/hub"
	"github.com/fairlead-iot/fairlead/hub/api"
	"github.com/fairlead-iot/fairlead/hub/hubtest"
)

// A device that writes all it has before it reads anything must not end in two
// sides that wait for each other: the hub goes on reading while its PUBACKs wait.
func TestHubReadsWhileItsWritesBlock(t *testing.T) {
	bubble(t, func(t *testing.T, h *hubtest.Hub) {
		r := dialRaw(t, h)
		r.send(r.connectPacket(h, "dev1", 0xc2, 0, 24*time.Hour))
		r.want(connack)
		start := time.Now()
		const count = 60_000 // their PUBACKs are four times what the link holds
		body := strings.Repeat("x", 100)
		for i := 1; i <= count; i++ {
			r.send(packet(0x32, str("devices/dev1/messages/events/")+string([]byte{byte(i >> 8), byte(i)})+body))
		}
		for i := 1; i <= count; i++ {
			r.want("\x40\x02" + string([]byte{byte(i >> 8), byte(i)}))
		}
		if took := time.Since(start); took > time.Second {
			t.Errorf("the two sides waited for each other for %v", took)
		}
		h.WaitCounters("dev1", func(c api.Counters) bool { return c.TelemetryReceived == count && c.TelemetryAcked == count })
	})
}

// A device that never reads is dropped, costs a bounded amount of memory until
// then, and is nobody else's trouble.
func TestDeviceThatNeverReadsIsDropped(t *testing.T) {
	tests := map[string]string{
		"empty telemetry": packet(0x32, str("devices/dev1/messages/events/")+"\x00\x01"),
		"pings":           packet(0xc0, ""),
		"twin reads":      packet(0x30, str("$iothub/twin/GET/?$rid=1")+" "),
	}
	for name, text := range tests {
		t.Run(name, func(t *testing.T) {
			small := hubtest.WithConfig(func(c *hub.Config) { c.MessageBytes = 1 << 20 })
			bubble(t, func(t *testing.T, h *hubtest.Hub) {
				h.AddDevice("dev2")
				other := connect(t, h, options{id: "dev2"})
				r := dialRaw(t, h)
				r.send(r.connectPacket(h, "dev1", 0xc2, 0, 24*time.Hour))
				r.want(connack)
				r.send(packet(0x82, "\x00\x01"+str(twinRes)+"\x01"))
				r.want("\x90\x03\x00\x01\x01")
				many := strings.Repeat(text, 16<<10/len(text))
				var before, after runtime.MemStats
				runtime.ReadMemStats(&before)
				sent := 0
				for ; ; sent++ {
					if _, err := io.WriteString(r, many); err != nil {
						break
					}
					if sent > 10_000 {
						t.Fatalf("%d MB went in and nothing came of it", sent*16>>10)
					}
				}
				h.WaitConnected("dev1", false)
				runtime.ReadMemStats(&after)
				if grown := int64(after.HeapSys) - int64(before.HeapSys); grown > 128<<20 {
					t.Errorf("the heap has grown by %d MB", grown>>20)
				}
				other.telemetry("", "untouched")
				other.Disconnect(0)
			}, small)
		})
	}
}

// Whoever reads slowly but steadily gets everything.
func TestSlowReaderGetsEverything(t *testing.T) {
	bubble(t, func(t *testing.T, h *hubtest.Hub) {
		r := dialRaw(t, h)
		r.send(r.connectPacket(h, "dev1", 0xc2, 0, 24*time.Hour))
		r.want(connack)
		r.send(packet(0x82, "\x00\x01"+str(devicebound)+"\x00"))
		r.want("\x90\x03\x00\x01\x00")
		for i := range 50 {
			if err := h.SendC2D("dev1", api.C2D{Body: []byte(strings.Repeat("x", 60_000) + fmt.Sprint(i))}); err != nil {
				t.Fatal(err)
			}
		}
		if err := r.SetReadDeadline(time.Time{}); err != nil {
			t.Fatal(err)
		}
		start, got, buf := time.Now(), 0, make([]byte, 16<<10)
		for got < 50*60_000 {
			n, err := r.Read(buf)
			if err != nil {
				t.Fatalf("after %v and %d bytes: %v", time.Since(start), got, err)
			}
			got += n
			time.Sleep(time.Second)
		}
	})
}
