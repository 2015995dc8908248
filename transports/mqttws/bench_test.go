package mqttws_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fairlead-iot/fairlead/core"
	"github.com/fairlead-iot/fairlead/credentials"
	"github.com/fairlead-iot/fairlead/hub/hubtest"
	"github.com/fairlead-iot/fairlead/transports/mqtt"
	"github.com/fairlead-iot/fairlead/transports/mqttws"
	"github.com/fairlead-iot/fairlead/transports/netdial"
)

// tinyproxy starts one, or skips.
func tinyproxy(b *testing.B) netdial.Proxy {
	b.Helper()
	program, err := exec.LookPath("tinyproxy")
	if err != nil {
		b.Skip("no tinyproxy: apt-get install tinyproxy")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	_ = l.Close()
	file := filepath.Join(b.TempDir(), "tinyproxy.conf")
	if err := os.WriteFile(file, fmt.Appendf(nil, "Port %d\nListen 127.0.0.1\nTimeout 600\nMaxClients 20\nAllow 127.0.0.1\nLogLevel Error\n", port), 0o600); err != nil {
		b.Fatal(err)
	}
	cmd := exec.Command(program, "-d", "-c", file)
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err == nil {
			_ = c.Close()
			return netdial.Proxy{Type: netdial.ProxyHTTP, Addr: "127.0.0.1", Port: port}
		}
		if time.Now().After(deadline) {
			b.Fatal(err)
		}
	}
}

// BenchmarkSend is a session of each kind with the embedded hub, with 256 B a message.
func BenchmarkSend(b *testing.B) {
	for _, way := range []string{"direct", "tinyproxy"} {
		b.Run(way, func(b *testing.B) {
			var proxy netdial.Proxy
			if way == "tinyproxy" {
				proxy = tinyproxy(b)
			}
			for _, window := range []uint64{1000, 100} {
				for _, use := range []string{"mqtt", "mqttws"} {
					b.Run(fmt.Sprintf("%d/%s", window, use), func(b *testing.B) { send(b, use, proxy, window) })
				}
			}
		})
	}
}

func send(b *testing.B, use string, proxy netdial.Proxy, window uint64) {
	b.Helper()
	hub := hubtest.Start(b)
	cs, err := credentials.ParseConnectionString(hub.AddDevice("dev"))
	if err != nil {
		b.Fatal(err)
	}
	source, err := credentials.NewSharedKey(cs.Identity, cs.Key, time.Hour, time.Now)
	if err != nil {
		b.Fatal(err)
	}
	credential, err := source.Credential(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	newTransport, port := mqtt.New, hub.MQTTPort()
	if use == "mqttws" {
		newTransport, port = mqttws.New, hub.HTTPSPort()
	}
	transport, err := newTransport(mqtt.Config{
		Identity: cs.Identity, Port: port, Proxy: proxy, TLS: netdial.TLSConfig{ServerVerificationCert: hub.CAPEM()},
	})
	if err != nil {
		b.Fatal(err)
	}
	link, err := transport.Open(b.Context(), credential)
	if err != nil {
		b.Fatal(err)
	}
	var acked atomic.Uint64
	moved := make(chan struct{}, 1)
	s, err := link.Connect(b.Context(), credential, core.Handler{Acked: func(_ core.Lane, upto core.Seq) {
		acked.Store(uint64(upto))
		select {
		case moved <- struct{}{}:
		default:
		}
	}})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close(context.Background())
	message := &core.Message{Payload: make([]byte, 256)}
	b.ReportAllocs()
	b.ResetTimer()
	for sent, total := uint64(0), uint64(b.N); ; {
		done := acked.Load()
		if done >= total {
			break
		}
		// As the engine does: whatever the window has room for leaves as one batch.
		room := min(total, done+window) - sent
		if room == 0 {
			<-moved
			continue
		}
		batch := make([]core.Outbound, room)
		for i := range batch {
			sent++
			batch[i] = core.Outbound{Seq: core.Seq(sent), Message: message}
		}
		s.Send(1, batch)
	}
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "msg/s")
}
