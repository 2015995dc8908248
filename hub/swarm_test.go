package hub_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/fairlead-iot/fairlead/hub/api"
	"github.com/fairlead-iot/fairlead/hub/hubtest"
)

// Two hundred devices at once, over TCP and WebSocket: each sends, is sent to, is called, and is thrown out by a second
// connection of its own in between.
func TestTwoHundredDevices(t *testing.T) {
	h := hubtest.Start(t, hubtest.WithDir(t.TempDir()))
	const count, each = 200, 20
	ids := make([]string, count)
	for i := range ids {
		ids[i] = fmt.Sprintf("dev%03d", i)
		h.AddDevice(ids[i])
	}
	var wg sync.WaitGroup
	handshakes := make(chan struct{}, 10) // at a time: they cost this side as much as the hub
	begin := func(o options) *device {
		handshakes <- struct{}{}
		defer func() { <-handshakes }()
		return connect(t, h, o)
	}
	for i, id := range ids {
		wg.Go(func() {
			first := begin(options{id: id, ws: i%4 == 0})
			first.subscribe("devices/" + id + "/messages/devicebound/#")
			for n := range each / 2 {
				first.telemetry("", fmt.Sprint(n))
			}
			d := begin(options{id: id, ws: i%4 == 1})
			first.wantLost()
			if err := h.SendC2D(id, api.C2D{Body: []byte("for " + id)}); err != nil {
				t.Error(err)
			}
			if m := d.receive(); string(m.Payload()) != "for "+id {
				t.Errorf("%s received %s", id, m.Payload())
			}
			answering(d, 200, `"`+id+`"`)
			if got, err := h.InvokeMethod(t.Context(), id, "who", nil); err != nil || string(got.Payload) != `"`+id+`"` {
				t.Errorf("%s answered %s, %v", id, got.Payload, err)
			}
			for n := range each / 2 {
				d.telemetry("", fmt.Sprint(n+each/2))
			}
		})
	}
	wg.Wait()
	if t.Failed() {
		return
	}
	for _, id := range ids {
		for n, m := range h.WaitCount(id, each) {
			if string(m.Body) != fmt.Sprint(n) {
				t.Fatalf("%s: message %d is %s", id, n, m.Body)
			}
		}
		h.WaitConnected(id, true)
		h.WaitCounters(id, func(c api.Counters) bool { return c.TakeOvers == 1 && c.C2DCompleted == 1 && c.MethodsAnswered == 1 })
	}
}

// One identity, many connections at the same moment: one remains, whichever it is, and it works.
func TestOneOfManyConnectionsRemains(t *testing.T) {
	h := hubtest.Start(t)
	h.AddDevice("dev1")
	const count = 50
	var wg sync.WaitGroup
	conns := make([]*raw, count)
	for i := range conns {
		conns[i] = dialRaw(t, h)
	}
	for i, r := range conns {
		wg.Go(func() { r.send(r.connectPacket(h, "dev1", byte(0xc0|i%2<<1), 0, time.Hour)) })
	}
	wg.Wait()
	h.WaitCounters("dev1", func(c api.Counters) bool {
		return c.Connects == count && c.Disconnects == count-1 && c.TakeOvers == count-1
	})
	alive := 0
	for _, r := range conns {
		if err := r.SetReadDeadline(time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(r, packet(0xc0, "")) // thrown out: the read says so
		text := make([]byte, 6)
		if n, err := io.ReadFull(r, text); err == nil && strings.HasSuffix(string(text), "\xd0\x00") {
			alive++
		} else if errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("a connection is open and silent after %x", text[:n])
		}
	}
	if alive != 1 {
		t.Errorf("%d connections of one identity are alive", alive)
	}
}

// Nobody who does not read or write holds up the end of the hub.
func TestCloseWithSilentClients(t *testing.T) {
	h := hubtest.Start(t)
	h.AddDevice("dev1")
	h.AddDevice("dev2")
	h.AddDevice("dev3")
	stuck := dialRaw(t, h)
	stuck.send(stuck.connectPacket(h, "dev1", 0xc2, 0, time.Hour))
	stuck.send(packet(0x82, "\x00\x01"+str(twinRes)+"\x01"))
	for range 20 { // it asks and never reads
		stuck.send(strings.Repeat(packet(0x30, str("$iothub/twin/GET/?$rid=1")+" "), 5000))
	}
	ws := connect(t, h, options{id: "dev2", ws: true, manualAck: true})
	ws.subscribe("devices/dev2/messages/devicebound/#")
	if err := h.SendC2D("dev2", api.C2D{Body: []byte("not completed")}); err != nil {
		t.Fatal(err)
	}
	half := dialRaw(t, h)
	half.send("\x10")
	bare, err := h.DialContext(t.Context(), "tcp", h.MQTTAddr().String()) // not even TLS
	if err != nil {
		t.Fatal(err)
	}
	defer bare.Close()                                                                                               //nolint:errcheck // the hub has closed it
	spare, err := tls.Dial("tcp", h.HTTPSAddr().String(), &tls.Config{RootCAs: h.CAPool(), ServerName: "localhost"}) // asks nothing
	if err != nil {
		t.Fatal(err)
	}
	defer spare.Close() //nolint:errcheck // the hub has closed it
	d := connect(t, h, options{id: "dev3"})
	d.telemetry("", strings.Repeat("x", 200_000))
	for range 100 {
		d.telemetry("", strings.Repeat("x", 200_000))
	}
	// Monitors that read nothing of the 20 MB.
	c := newClient(t, h, "service")
	reading, monitors := make(chan struct{}), sync.WaitGroup{}
	hold := make(chan struct{})
	monitors.Go(func() {
		var once sync.Once
		_ = c.Monitor(context.WithoutCancel(t.Context()), api.MessageFilter{From: 1}, true, func(api.Message) error {
			once.Do(func() { close(reading) })
			<-hold
			return errors.New("enough")
		})
	})
	<-reading
	start := time.Now()
	if err := h.Close(context.Background()); err != nil {
		t.Error(err)
	}
	if took := time.Since(start); took > 2*time.Second {
		t.Errorf("closing took %v", took)
	}
	close(hold)
	monitors.Wait()
}
