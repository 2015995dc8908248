package mqtt

import (
	"errors"
	"runtime"
	"sync"

	paho "github.com/eclipse/paho.mqtt.golang"

	"github.com/fairlead-iot/fairlead/core"
)

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
