package mqtt

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	paho "github.com/eclipse/paho.mqtt.golang"

	"github.com/fairlead-iot/fairlead/core"
	"github.com/fairlead-iot/fairlead/transports/netdial"
	"github.com/fairlead-iot/fairlead/transports/transporttest"
)

const (
	benchWindow  = 1000
	benchPayload = 256
)

// sink is a hub that acknowledges everything, in batches, and forgets it: the least that a client can be measured against.
func sink(tb testing.TB) (addr string, roots []byte) {
	tb.Helper()
	authority := transporttest.NewAuthority(tb, "test")
	listener, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{
		Certificates: []tls.Certificate{authority.Issue(tb, nil, "127.0.0.1")}, DynamicRecordSizingDisabled: true,
	})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go drainInto(conn)
		}
	}()
	return listener.Addr().String(), authority.PEM
}

func drainInto(conn net.Conn) {
	defer conn.Close()
	r := bufio.NewReaderSize(conn, 64<<10)
	var out []byte
	body := make([]byte, 0, 1024)
	for {
		header, err := r.ReadByte()
		if err != nil {
			return
		}
		length, shift := 0, 0
		for {
			d, err := r.ReadByte()
			if err != nil {
				return
			}
			length |= int(d&0x7f) << shift
			if shift += 7; d&0x80 == 0 {
				break
			}
		}
		if cap(body) < length {
			body = make([]byte, length)
		}
		body = body[:length]
		for n := 0; n < length; {
			m, err := r.Read(body[n:])
			if err != nil {
				return
			}
			n += m
		}
		switch header >> 4 {
		case 1:
			out = append(out, connackOK...)
		case packetPublish:
			at := 2 + int(body[0])<<8 + int(body[1])
			out = append(out, packetPuback<<4, 2, body[at], body[at+1])
		case 12:
			out = append(out, packetPingresp<<4, 0)
		case packetDisconnect:
			return
		}
		if r.Buffered() == 0 || len(out) > 16<<10 {
			if _, err := conn.Write(out); err != nil {
				return
			}
			out = out[:0]
		}
	}
}

func BenchmarkSessionSend(b *testing.B) {
	addr, roots := sink(b)
	_, port, _ := net.SplitHostPort(addr)
	tr, err := New(Config{
		Identity: core.Identity{Hostname: "127.0.0.1", DeviceID: "dev"}, Port: mustAtoi(b, port),
		TLS: netdial.TLSConfig{ServerVerificationCert: roots},
	})
	if err != nil {
		b.Fatal(err)
	}
	link, err := tr.Open(b.Context(), core.Credential{})
	if err != nil {
		b.Fatal(err)
	}
	var acked atomic.Uint64
	moved := make(chan struct{}, 1)
	s, err := link.Connect(b.Context(), core.Credential{}, core.Handler{Acked: func(_ core.Lane, upto core.Seq) {
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
	message := &core.Message{Payload: make([]byte, benchPayload)}
	b.ReportAllocs()
	b.ResetTimer()
	sent := uint64(0)
	for total := uint64(b.N); ; {
		done := acked.Load()
		if done >= total {
			break
		}
		// As the engine does: whatever the window has room for leaves as one batch.
		room := min(total, done+benchWindow) - sent
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

func BenchmarkPahoAlone(b *testing.B) {
	addr, roots := sink(b)
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(roots)
	o := paho.NewClientOptions().AddBroker("tls://" + addr).SetClientID("dev").SetProtocolVersion(4).
		SetCleanSession(false).SetAutoReconnect(false).SetWriteTimeout(time.Minute)
	o.SetCustomOpenConnectionFn(func(uri *url.URL, _ paho.ClientOptions) (net.Conn, error) {
		return tls.Dial("tcp", uri.Host, &tls.Config{RootCAs: pool})
	})
	client := paho.NewClient(o)
	if token := client.Connect(); token.Wait() && token.Error() != nil {
		b.Fatal(token.Error())
	}
	defer client.Disconnect(100)
	payload := make([]byte, benchPayload)
	b.ReportAllocs()
	b.ResetTimer()
	window := make(chan paho.Token, benchWindow)
	var wg sync.WaitGroup
	wg.Go(func() {
		for token := range window {
			token.Wait()
		}
	})
	for range b.N {
		window <- client.Publish("devices/dev/messages/events/", 1, false, payload)
	}
	close(window)
	wg.Wait()
	b.StopTimer()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "msg/s")
}

// BenchmarkSessionRoundTrip is a message that is alone.
func BenchmarkSessionRoundTrip(b *testing.B) {
	addr, roots := sink(b)
	_, port, _ := net.SplitHostPort(addr)
	tr, err := New(Config{
		Identity: core.Identity{Hostname: "127.0.0.1", DeviceID: "dev"}, Port: mustAtoi(b, port),
		TLS: netdial.TLSConfig{ServerVerificationCert: roots},
	})
	if err != nil {
		b.Fatal(err)
	}
	link, err := tr.Open(b.Context(), core.Credential{})
	if err != nil {
		b.Fatal(err)
	}
	acked := make(chan struct{})
	s, err := link.Connect(b.Context(), core.Credential{}, core.Handler{Acked: func(core.Lane, core.Seq) { acked <- struct{}{} }})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close(context.Background())
	message := &core.Message{Payload: make([]byte, benchPayload)}
	b.ResetTimer()
	for n := range b.N {
		s.Send(1, []core.Outbound{{Seq: core.Seq(n + 1), Message: message}})
		<-acked
	}
}

// BenchmarkPahoAloneRoundTrip is the same with paho.
func BenchmarkPahoAloneRoundTrip(b *testing.B) {
	addr, roots := sink(b)
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(roots)
	o := paho.NewClientOptions().AddBroker("tls://" + addr).SetClientID("dev").SetProtocolVersion(4).
		SetCleanSession(false).SetAutoReconnect(false)
	o.SetCustomOpenConnectionFn(func(uri *url.URL, _ paho.ClientOptions) (net.Conn, error) {
		return tls.Dial("tcp", uri.Host, &tls.Config{RootCAs: pool})
	})
	client := paho.NewClient(o)
	if token := client.Connect(); token.Wait() && token.Error() != nil {
		b.Fatal(token.Error())
	}
	defer client.Disconnect(100)
	payload := make([]byte, benchPayload)
	b.ResetTimer()
	for range b.N {
		client.Publish("devices/dev/messages/events/", 1, false, payload).Wait()
	}
}

func mustAtoi(tb testing.TB, s string) int {
	tb.Helper()
	n, err := net.LookupPort("tcp", s)
	if err != nil {
		tb.Fatal(err)
	}
	return n
}
