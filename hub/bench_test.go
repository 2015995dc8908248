package hub_test

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/fairlead-iot/fairlead/hub"
	"github.com/fairlead-iot/fairlead/hub/hubtest"
)

// BenchmarkPublish measures what the hub takes from one client that keeps up to
// 1000 messages of 256 B in flight. The client writes "batch" of them at a time
// and is as cheap as possible, so that the hub's own cost dominates.
func BenchmarkPublish(b *testing.B) {
	for _, bb := range []struct {
		name  string
		disk  bool
		tls   bool
		batch int
	}{
		{"tls/disk/batch=1", true, true, 1},
		{"tls/disk/batch=50", true, true, 50},
		{"tls/memory/batch=50", false, true, 50},
	} {
		b.Run(bb.name, func(b *testing.B) {
			var opts []hubtest.Option
			if bb.disk {
				opts = append(opts, hubtest.WithDir(b.TempDir()))
			}
			h := hubtest.Start(b, opts...)
			cs := h.AddDevice("dev1")
			nc, err := net.Dial("tcp", h.MQTTAddr().String())
			if err != nil {
				b.Fatal(err)
			}
			c := tls.Client(nc, &tls.Config{RootCAs: h.CAPool(), ServerName: "localhost", MinVersion: tls.VersionTLS13})
			defer c.Close() //nolint:errcheck // the benchmark is over
			if _, err := io.WriteString(c, connectBytes(b, cs, "dev1")); err != nil {
				b.Fatal(err)
			}
			answer := make([]byte, 4)
			if _, err := io.ReadFull(c, answer); err != nil || answer[3] != 0 {
				b.Fatalf("CONNACK %x, %v", answer, err)
			}
			const window = 1000
			one := []byte(packet(0x32, str("devices/dev1/messages/events/a=b")+"\x00\x00"+strings.Repeat("x", 256)))
			idAt := len(one) - 258
			b.SetBytes(256)
			b.ResetTimer()
			acked := make(chan int, window)
			go func() {
				defer close(acked)
				buf := make([]byte, 64<<10)
				part := 0
				for done := 0; done < b.N; {
					n, err := c.Read(buf)
					if err != nil {
						return
					}
					part += n
					acked <- part / 4
					done += part / 4
					part %= 4
				}
			}()
			free, id := window, uint16(0)
			var out bytes.Buffer
			for sent := 0; sent < b.N; {
				for free < bb.batch {
					n, ok := <-acked
					if !ok {
						b.Fatal("the connection ended")
					}
					free += n
				}
				n := min(bb.batch, b.N-sent)
				out.Reset()
				for range n {
					if id++; id == 0 {
						id = 1
					}
					binary.BigEndian.PutUint16(one[idAt:], id)
					out.Write(one)
				}
				if _, err := c.Write(out.Bytes()); err != nil {
					b.Fatal(err)
				}
				sent += n
				free -= n
			}
			for range acked { //nolint:revive // until the last PUBACK
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "msg/s")
		})
	}
}

func connectBytes(tb testing.TB, connectionString, id string) string {
	tb.Helper()
	return connectBytesFlags(tb, connectionString, id, 0xc2)
}

func connectBytesFlags(tb testing.TB, connectionString, id string, flags byte) string {
	tb.Helper()
	password, err := hub.DeviceToken(connectionString, time.Hour)
	if err != nil {
		tb.Fatal(err)
	}
	return packet(0x10, str("MQTT")+string([]byte{4, flags, 0, 0})+str(id)+str("localhost/"+id+"/?api-version=2021-04-12")+str(password))
}
