//go:build faults && unix

package faults

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"
)

var (
	hubSeed  = flag.Uint64("hub-seed", 1, "of the moments at which the hub is killed")
	hubKills = flag.Int("hub-kills", 24, "how often the hub is killed")
)

// ledger is what the hub has acknowledged, by kind, and what is not known.
type ledger struct {
	mu        sync.Mutex
	telemetry []int               // numbers, in order
	messages  map[string][]string // ids of cloud-to-device messages by device, in order
	desired   int                 // the last number
	reported  int
	asked     int               // the last number that desired was asked to be, by however many requests that were not answered
	devices   map[string]string // id to status; "" for deleted
	unknown   map[string]bool   // devices whose last change was not answered
	wrong     []string          // refusals, which there should be none of

	acked [4]atomic.Int64 // of each kind, for who waits for progress
}

func (l *ledger) locked(kind int, f func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f()
	l.acked[kind].Add(1)
}

// failed notes an error; one of the connection says nothing.
func (l *ledger) failed(err error) {
	if errors.Is(err, errRefused) {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.wrong = append(l.wrong, err.Error())
	}
}

// load is the four kinds of writes, as fast as the hub answers, until the test says stop.
type load struct {
	*ledger
	c    *hubClient
	stop chan struct{}
	keys map[string]string // of the devices that connect
}

// again runs f until stop; after an error it gives a hub that is gone a moment.
func (l *load) again(f func() error) {
	for {
		err := f()
		l.failed(err)
		wait := time.Duration(0)
		if err != nil {
			wait = 5 * time.Millisecond
		}
		select {
		case <-l.stop:
			return
		case <-time.After(wait):
		}
	}
}

// pad makes records large enough for the journal to be compacted, and the log to have several segments, now and then.
var pad = strings.Repeat("x", 4000)

// telemetry sends numbers, 50 at a time; none is sent twice.
func (l *load) telemetry() {
	const window = 50
	n := 0
	l.again(func() error {
		link, err := l.c.connect("sender", l.keys["sender"])
		if err != nil {
			return err
		}
		defer link.Close() //nolint:errcheck // the hub is gone, or the test over
		for {
			first := n
			var out bytes.Buffer
			for i := range window {
				if err := link.publish(&out, "devices/sender/messages/events/", strconv.Itoa(n)+" "+pad[:500], 1, uint16(i+1)); err != nil {
					return err
				}
				n++
			}
			if _, err := link.Write(out.Bytes()); err != nil {
				return err
			}
			for i := range window {
				if err := link.want(func(p packets.ControlPacket) bool {
					ack, ok := p.(*packets.PubackPacket)
					return ok && int(ack.MessageID) == i+1
				}); err != nil {
					return err
				}
				l.locked(0, func() { l.ledger.telemetry = append(l.ledger.telemetry, first+i) })
			}
			select {
			case <-l.stop:
				return nil
			default:
			}
		}
	})
}

// queueDepth is how many messages a device's queue takes; one that is not answered may stand in it too.
const queueDepth = 50

// messages fills the queue of one device after the other.
func (l *load) messages() {
	device, sent, n := "", 0, 0
	l.again(func() error {
		if device == "" || sent == queueDepth {
			id := fmt.Sprintf("receiver-%d", n)
			n++
			key, err := l.c.newDevice(id)
			if err != nil {
				return err
			}
			l.mu.Lock()
			l.keys[id] = key
			l.mu.Unlock()
			device, sent = id, 0
		}
		sent++
		id := fmt.Sprintf("m%d", n)
		n++
		if err := l.c.do(http.MethodPost, "/fairlead/devices/"+device+"/messages/devicebound", map[string]any{"messageId": id, "body": []byte(id)}, nil); err != nil {
			return err
		}
		l.locked(1, func() { l.ledger.messages[device] = append(l.ledger.messages[device], id) })
		return nil
	})
}

// twins changes desired properties by REST and reported ones by MQTT, in turns.
func (l *load) twins() {
	n := 0
	l.again(func() error {
		link, err := l.c.connect("twin", l.keys["twin"])
		if err != nil {
			return err
		}
		defer link.Close() //nolint:errcheck // as above
		if err := link.subscribe("$iothub/twin/res/#"); err != nil {
			return err
		}
		for {
			n++
			l.mu.Lock()
			l.asked = n
			l.mu.Unlock()
			body := map[string]any{"n": n, "pad1": pad, "pad2": pad, "pad3": pad}
			if err := l.c.change(http.MethodPatch, "/twins/twin", map[string]any{"properties": map[string]any{"desired": body}}); err != nil {
				return err
			}
			l.locked(2, func() { l.desired = n })
			text, err := json.Marshal(body)
			if err != nil {
				return err
			}
			if err := link.publish(link, "$iothub/twin/PATCH/properties/reported/?$rid="+strconv.Itoa(n), string(text), 0, 0); err != nil {
				return err
			}
			if err := link.want(func(p packets.ControlPacket) bool {
				answer, ok := p.(*packets.PublishPacket)
				return ok && strings.HasPrefix(answer.TopicName, "$iothub/twin/res/204/?$rid="+strconv.Itoa(n)+"&")
			}); err != nil {
				return err
			}
			l.locked(2, func() { l.reported = n })
			select {
			case <-l.stop:
				return nil
			default:
			}
		}
	})
}

// registry makes identities; it disables every second one and deletes every third.
func (l *load) registry() {
	n := 0
	l.again(func() error {
		id := fmt.Sprintf("device-%d", n)
		n++
		change := func(status string, f func() error) error {
			l.mu.Lock()
			l.unknown[id] = true
			l.mu.Unlock()
			if err := f(); err != nil {
				return err
			}
			l.locked(3, func() {
				l.devices[id] = status
				delete(l.unknown, id)
			})
			return nil
		}
		err := change("enabled", func() error {
			_, err := l.c.newDevice(id)
			return err
		})
		if err == nil && n%2 == 0 {
			err = change("disabled", func() error {
				return l.c.change(http.MethodPut, "/devices/"+id, map[string]any{"deviceId": id, "status": "disabled"})
			})
		}
		if err == nil && n%3 == 0 {
			err = change("", func() error { return l.c.change(http.MethodDelete, "/devices/"+id, nil) })
		}
		return err
	})
}

// Killed at any moment, while it opens too, the hub has all that it acknowledged, and its directory opens again.
func TestAKilledHubHasAllThatItAcknowledged(t *testing.T) {
	t.Logf("-hub-seed=%d", *hubSeed)
	random := rand.New(rand.NewPCG(*hubSeed, 0)) //nolint:gosec // it is to be repeatable
	w := newWorld(t)
	c, err := newHubClient(w.ready.MQTT, w.ready.HTTPS, w.ready.Service, w.ready.CAFile)
	if err != nil {
		t.Fatal(err)
	}
	defer c.http.CloseIdleConnections()
	l := &load{
		ledger: &ledger{messages: map[string][]string{}, devices: map[string]string{}, unknown: map[string]bool{}},
		c:      c, stop: make(chan struct{}), keys: map[string]string{},
	}
	for _, id := range []string{"sender", "twin"} {
		if l.keys[id], err = c.newDevice(id); err != nil {
			t.Fatal(err)
		}
	}
	var working sync.WaitGroup
	for _, worker := range []func(){l.telemetry, l.messages, l.twins, l.registry} {
		working.Go(worker)
	}
	opening := 0
	for kill := range *hubKills {
		if kill%4 == 3 { // while it opens
			w.hub.kill(t)
			time.Sleep(time.Duration(random.IntN(30)) * time.Millisecond) // who was connected notices, or not
			p := w.launchHub(w.ports())
			time.Sleep(time.Duration(random.IntN(60)) * time.Millisecond) // the moment of the kill is what is tried
			p.kill(t)
			opening++
		} else {
			var before [4]int64
			for kind := range before {
				before[kind] = l.acked[kind].Load()
			}
			eventually(t, time.Minute, "an acknowledgement of each kind", func() bool {
				for kind := range before {
					if l.acked[kind].Load() == before[kind] {
						return false
					}
				}
				return true
			})
			time.Sleep(time.Duration(random.IntN(600)) * time.Millisecond) // as above
			w.hub.kill(t)
		}
		w.restartHub()
	}
	close(l.stop)
	working.Wait()
	w.hub.kill(t)
	w.restartHub()
	l.compare(t, w)
	t.Logf("%d kills, %d of them while it opened; acknowledged: %d messages of telemetry, %d to devices, twins up to %d and %d, %d identities",
		*hubKills+1, opening, len(l.ledger.telemetry), l.acked[1].Load(), l.desired, l.reported, len(l.devices))
}

// compare holds the ledger against what the hub has.
func (l *load) compare(t *testing.T, w *world) {
	t.Helper()
	for _, text := range l.wrong {
		t.Errorf("the hub said no: %s", text)
	}
	for _, problem := range missing(l.ledger.telemetry, w.numbersOf("sender")) {
		t.Error(problem)
	}
	for device, ids := range l.ledger.messages {
		got, err := l.queued(device)
		if err != nil {
			t.Fatal(err)
		}
		at := 0
		for _, id := range ids {
			i := slices.Index(got[at:], id)
			if i < 0 {
				t.Errorf("%s was acknowledged for %s, which has %v in its queue", id, device, got)
				break
			}
			at += i + 1
		}
		if slices.Sort(got); len(slices.Compact(got)) != len(got) {
			t.Errorf("%s has a message twice: %v", device, got)
		}
	}
	var twin struct {
		Properties struct {
			Desired, Reported struct{ N int }
		}
	}
	if err := l.c.do(http.MethodGet, "/twins/twin", nil, &twin); err != nil {
		t.Fatal(err)
	}
	if got := twin.Properties.Desired.N; got < l.desired || got > l.asked {
		t.Errorf("desired is %d, %d was acknowledged, and %d asked for", got, l.desired, l.asked)
	}
	if got := twin.Properties.Reported.N; got < l.reported || got > l.desired { // it is reported once desired was acknowledged
		t.Errorf("reported is %d, %d was acknowledged, and %d asked for", got, l.reported, l.desired)
	}
	for id, want := range l.devices {
		if l.unknown[id] {
			continue
		}
		var d struct{ Status string }
		err := l.c.do(http.MethodGet, "/devices/"+id, nil, &d)
		if want == "" {
			if err == nil {
				t.Errorf("%s was deleted, and is there", id)
			}
		} else if err != nil {
			t.Errorf("%s was acknowledged: %v", id, err)
		} else if d.Status != want {
			t.Errorf("%s is %s, and %s was acknowledged", id, d.Status, want)
		}
	}
}

// queued connects a device and takes what stands in its queue, in order.
func (l *load) queued(device string) (ids []string, err error) {
	link, err := l.c.connect(device, l.keys[device])
	if err != nil {
		return nil, err
	}
	defer link.Close() //nolint:errcheck // it is over
	if err := link.subscribe("devices/" + device + "/messages/devicebound/#"); err != nil {
		return nil, err
	}
	ping := packets.NewControlPacket(packets.Pingreq)
	if err := ping.Write(link); err != nil { // what is queued comes before its answer
		return nil, err
	}
	for {
		p, err := link.read()
		if err != nil {
			return nil, err
		}
		switch p := p.(type) {
		case *packets.PublishPacket:
			ids = append(ids, string(p.Payload))
		case *packets.PingrespPacket:
			return ids, nil
		}
	}
}

// numbersOf are the numbers that a device's messages begin with, as the hub has them.
func (w *world) numbersOf(device string) []int {
	w.t.Helper()
	var out []int
	for line := range strings.Lines(w.hubDo("monitor", "--follow=false", "--json", "--device", device)) {
		var m struct {
			Body string `json:"body"`
		}
		if err := json.Unmarshal([]byte(line), &m); err != nil {
			w.t.Fatalf("line %q: %v", line, err)
		}
		number, _, _ := strings.Cut(m.Body, " ")
		n, err := strconv.Atoi(number)
		if err != nil {
			w.t.Fatalf("body %q: %v", m.Body, err)
		}
		out = append(out, n)
	}
	return out
}

// missing says which acknowledged numbers the hub does not have, and whether it has one twice or out of order.
func missing(acknowledged, hub []int) (problems []string) {
	for i := 1; i < len(hub); i++ {
		if hub[i] <= hub[i-1] {
			problems = append(problems, fmt.Sprintf("the hub has %d after %d", hub[i], hub[i-1]))
		}
	}
	has := make(map[int]bool, len(hub))
	for _, n := range hub {
		has[n] = true
	}
	for _, n := range acknowledged {
		if !has[n] {
			problems = append(problems, fmt.Sprintf("%d was acknowledged, and the hub does not have it", n))
		}
	}
	return problems[:min(len(problems), 10)]
}

func TestTheLedgerSeesLosses(t *testing.T) {
	for _, tt := range []struct {
		acknowledged, hub []int
		want              int
	}{
		{[]int{1, 2, 4}, []int{1, 2, 3, 4, 5}, 0}, {[]int{1, 2}, []int{1}, 1}, {[]int{1, 2}, []int{2, 1}, 1}, {[]int{1}, []int{1, 1}, 1}, {[]int{1}, nil, 1},
	} {
		if got := missing(tt.acknowledged, tt.hub); len(got) != tt.want {
			t.Errorf("%v at the hub, %v acknowledged: %q", tt.hub, tt.acknowledged, got)
		}
	}
}
