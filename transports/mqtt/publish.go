package mqtt

import (
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

// isEmpty reports whether nothing waits.
func (q *queue) isEmpty() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.batches) == 0 && len(q.control) == 0
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
		for s.pass() {
		}
	}
}

// pass does what is queued now, and reports whether it found anything and the session lives.
func (s *session) pass() bool {
	s.control()
	batches := s.queue.takeBatches()
	for i, b := range batches {
		lane := s.lanes.get(b.lane)
		if lane == nil {
			return false
		}
		for j, m := range b.messages {
			s.control()
			last := j == len(b.messages)-1 && i == len(batches)-1
			s.g.more.Store(!last || !s.queue.isEmpty())
			topic := s.t.topics.telemetry(m.Message)
			if len(topic) > maxTopicBytes {
				// Refused at acceptance (core.Message.Check); here it could only end every session anew.
				s.t.log.Error("message dropped: its properties do not fit into an MQTT topic", "lane", b.lane, "seq", m.Seq, "bytes", len(topic))
				lane.add(nil, m.Seq)
				continue
			}
			token := s.offer(topic, m.Message.Payload)
			if token == nil {
				return false
			}
			lane.add(token, m.Seq)
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
		for i, f := range todo {
			s.g.more.Store(i < len(todo)-1)
			f()
		}
	}
}

// offer publishes at QoS 1 and returns paho's token, or nil when the session has ended.
func (s *session) offer(topic string, payload []byte) paho.Token {
	return s.insist(publishSize(topic, payload), func() paho.Token { return s.client.Publish(topic, 1, false, payload) })
}

// insist has paho take something, which is of that size as a PUBLISH and else 0, and returns its token, or nil when the
// session has ended. Where paho does not take it, it is offered again: nothing else is sent meanwhile, so order holds.
func (s *session) insist(size int, ask func() paho.Token) paho.Token {
	for s.g.reserve(size) {
		token := ask()
		if tokenError(token) == nil {
			return token
		}
		s.g.unreserve(size)
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

// publishSize is the length of a whole PUBLISH of QoS 1.
func publishSize(topic string, payload []byte) int {
	body := 2 + len(topic) + 2 + len(payload)
	n := 2 + body
	for ; body > 127; body >>= 7 {
		n++
	}
	return n
}
