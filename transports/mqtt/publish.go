package mqtt

import (
	"errors"
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

// offer publishes at QoS 1 and returns paho's token, or nil when the session has ended. Where paho has no room it is
// offered again: nothing else is published meanwhile, so order holds.
func (s *session) offer(topic string, payload []byte) paho.Token {
	size := publishSize(topic, payload)
	for s.g.reserve(size) {
		token := s.client.Publish(topic, 1, false, payload)
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

// lanes tracks what the hub has acknowledged, lane by lane.
type lanes struct {
	s *session

	mu      sync.Mutex
	byID    map[core.Lane]*lane
	ended   bool
	waiters sync.WaitGroup
}

// get returns the lane, or nil when the session has ended.
func (l *lanes) get(id core.Lane) *lane {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended {
		return nil
	}
	if found, ok := l.byID[id]; ok {
		return found
	}
	if l.byID == nil {
		l.byID = make(map[core.Lane]*lane)
	}
	made := &lane{id: id, wake: make(chan struct{}, 1)}
	l.byID[id] = made
	l.waiters.Go(func() { l.s.waitAcks(made) })
	return made
}

// wait waits until every lane has reported what it can, after winding was closed.
func (l *lanes) wait() {
	l.mu.Lock()
	l.ended = true
	l.mu.Unlock()
	l.waiters.Wait()
}

// lane is the messages of a lane that await their acknowledgement, in order.
type lane struct {
	id   core.Lane
	wake chan struct{}

	mu      sync.Mutex
	waiting []sent
}

// sent is a message in flight. Without a token it counts as acknowledged in its turn.
type sent struct {
	token paho.Token
	seq   core.Seq
}

func (l *lane) add(token paho.Token, seq core.Seq) {
	l.mu.Lock()
	l.waiting = append(l.waiting, sent{token, seq})
	first := len(l.waiting) == 1
	l.mu.Unlock()
	if first {
		select {
		case l.wake <- struct{}{}:
		default:
		}
	}
}

func (l *lane) take() []sent {
	l.mu.Lock()
	defer l.mu.Unlock()
	waiting := l.waiting
	l.waiting = nil
	return waiting
}

// waitAcks is a lane's goroutine: it waits for the oldest message's acknowledgement, takes those behind it that are there
// already, and reports them as one. MQTT has the hub acknowledge in the order of sending (MQTT-4.6.0-2).
func (s *session) waitAcks(l *lane) {
	for {
		waiting := l.take()
		if len(waiting) == 0 {
			select {
			case <-l.wake:
				continue
			case <-s.winding:
				return
			}
		}
		for len(waiting) > 0 {
			if token := waiting[0].token; token != nil {
				select {
				case <-token.Done():
					if len(waiting) > 1 && !isAcked(waiting[1].token) {
						runtime.Gosched() // the acknowledgements of a burst are being read right now
					}
				case <-s.winding:
				}
			}
			n := 0
			for n < len(waiting) && isAcked(waiting[n].token) {
				n++
			}
			if n == 0 {
				// The end leaves the oldest one without. Should paho ever give up a message of a living session, the rest of
				// the lane could not be acknowledged in order.
				s.g.abort(&core.Error{Op: "publish", Kind: core.Transient, Phase: phaseMQTT, Err: errPublishLost})
				return
			}
			upto := waiting[n-1].seq
			waiting = waiting[n:]
			s.deliver(func(h *core.Handler) {
				if h.Acked != nil {
					h.Acked(l.id, upto)
				}
			})
		}
	}
}

var errPublishLost = errors.New("the client library lost a message")

// isAcked reports whether the hub has acknowledged the message. An error in its token does not count: the message will
// be sent again.
func isAcked(token paho.Token) bool {
	return token == nil || isDone(token) && token.Error() == nil
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
