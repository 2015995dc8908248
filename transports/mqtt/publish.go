package mqtt

import (
	"encoding/binary"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	paho "github.com/eclipse/paho.mqtt.golang"

	"github.com/fairlead-iot/fairlead/core"
)

// queue is what the publisher has to do. It has no bound of its own: the machine's window bounds it.
type queue struct {
	wake chan struct{} // one entry: something was added

	mu      sync.Mutex
	control []func()
	batches []batch
	urgent  atomic.Bool // control is not empty
}

type batch struct {
	lane     core.Lane
	messages []core.Outbound
}

// first adds something that goes before all messages, behind what was added so before.
func (q *queue) first(f func()) {
	q.mu.Lock()
	q.control = append(q.control, f)
	q.urgent.Store(true)
	q.mu.Unlock()
	q.signal()
}

func (q *queue) add(b batch) {
	q.mu.Lock()
	q.batches = append(q.batches, b)
	q.mu.Unlock()
	q.signal()
}

func (q *queue) signal() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

// takeControl takes all of control.
func (q *queue) takeControl() []func() {
	if !q.urgent.Load() {
		return nil
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	control := q.control
	q.control = nil
	q.urgent.Store(false)
	return control
}

// takeBatches takes all batches.
func (q *queue) takeBatches() []batch {
	q.mu.Lock()
	defer q.mu.Unlock()
	batches := q.batches
	q.batches = nil
	return batches
}

// Send implements core.Session.
func (s *session) Send(lane core.Lane, messages []core.Outbound) {
	select {
	case <-s.g.done:
		return // nobody would take it
	default:
	}
	if len(messages) > 0 {
		s.queue.add(batch{lane, messages})
	}
}

// publish is the publisher's goroutine.
func (s *session) publish() {
	for {
		select {
		case <-s.queue.wake:
		case <-s.g.done:
			return
		}
		// What is queued is put together, then written as one. One yield in between lets whoever is about to send do so:
		// with many in flight that halves the writes.
		for s.pass() {
		}
		runtime.Gosched()
		for s.pass() {
		}
		s.g.send()
	}
}

// pass puts together what is queued now, and reports whether there was anything and the session lives.
func (s *session) pass() bool {
	s.control()
	batches := s.queue.takeBatches()
	for _, b := range batches {
		if !s.messages(b) {
			return false
		}
	}
	return len(batches) > 0
}

// control does what goes before messages.
func (s *session) control() {
	for {
		todo := s.queue.takeControl()
		if len(todo) == 0 {
			return
		}
		for _, f := range todo {
			f()
		}
	}
}

// messages puts a batch together, and reports whether the session lives.
func (s *session) messages(b batch) bool {
	dropped := false
	for rest := b.messages; len(rest) > 0; {
		s.control()
		if !s.room() {
			return false
		}
		s.g.append(func(out []byte, room int) []byte {
			for len(rest) > 0 && len(out) < room && !s.queue.urgent.Load() && !s.flight.isFull() {
				m := rest[0]
				rest = rest[1:]
				s.topic = s.t.topics.appendTelemetry(s.topic[:0], m.Message)
				fits := len(s.topic) <= maxTopicBytes
				id := s.flight.message(b.lane, m.Seq, fits)
				if !fits {
					// Refused at acceptance (core.Message.Check); here it could only end every session anew.
					s.t.log.Error("message dropped: its properties do not fit into an MQTT topic", "lane", b.lane, "seq", m.Seq, "bytes", len(s.topic))
					dropped = true
					continue
				}
				out = appendPublish(out, s.topic, id, m.Message.Payload)
			}
			return out
		})
	}
	if dropped {
		s.acked(nil) // its turn may have come already
	}
	return true
}

// first has the publisher do something before all messages, also where those wait for acknowledgements.
func (s *session) first(f func()) {
	s.queue.first(f)
	s.flight.nudge()
}

// room waits until more may be published or control is not empty, and reports whether the session lives. What was put
// together so far leaves meanwhile.
func (s *session) room() bool {
	if s.flight.isFull() {
		s.g.send()
	}
	return s.flight.room(&s.queue.urgent) && s.outlet()
}

// outlet waits until the guard takes more, and reports whether the session lives.
func (s *session) outlet() bool {
	if s.g.isFull() {
		s.g.send()
	}
	return s.g.hasRoom()
}

// offer puts a PUBLISH of QoS 1 together that is no message, unless the session has ended. acked, if not nil, is sent to at
// its PUBACK; it must have room. What messages have in flight does not make it wait.
func (s *session) offer(topic string, payload []byte, acked chan<- struct{}) {
	if !s.outlet() {
		return
	}
	id, ok := s.flight.other(acked)
	if !ok { // thousands of requests and answers, and the hub has acknowledged none
		s.g.abort(&core.Error{Op: "publish", Kind: core.Transient, Phase: phaseMQTT, Err: errIDsUsedUp})
		return
	}
	s.g.append(func(out []byte, _ int) []byte { return appendPublish(out, []byte(topic), id, payload) })
}

// appendPublish appends a PUBLISH of QoS 1.
//
// https://docs.oasis-open.org/mqtt/mqtt/v3.1.1/os/mqtt-v3.1.1-os.html#_Toc398718037
func appendPublish(b, topic []byte, id uint16, payload []byte) []byte {
	b = append(b, packetPublish<<4|1<<1)
	length := 2 + len(topic) + 2 + len(payload)
	for ; length > 127; length >>= 7 {
		b = append(b, byte(length)|0x80)
	}
	b = append(b, byte(length))
	b = binary.BigEndian.AppendUint16(b, uint16(len(topic))) //nolint:gosec // at most maxTopicBytes
	b = append(b, topic...)
	b = binary.BigEndian.AppendUint16(b, id)
	return append(b, payload...)
}

// insist has paho subscribe, and returns its token, or nil when the session has ended. Where paho does not take it, it is
// offered again.
func (s *session) insist(ask func() paho.Token) paho.Token {
	s.g.send() // what was put together so far: it would wait for the publisher, which waits here
	for s.g.calm() {
		token := ask()
		if tokenError(token) == nil {
			return token
		}
		// No packet id was free, paho's writer was busy, or the connection has just ended. Nothing was written.
		pause := time.NewTimer(publishPause)
		select {
		case <-pause.C:
		case <-s.g.done:
		}
		pause.Stop()
	}
	return nil
}

// isDone reports whether a token is complete. paho's WaitTimeout(0) would toss a coin.
func isDone(token paho.Token) bool {
	select {
	case <-token.Done():
		return true
	default:
		return false
	}
}
