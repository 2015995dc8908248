package mqtt

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"net"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	paho "github.com/eclipse/paho.mqtt.golang"
	"github.com/eclipse/paho.mqtt.golang/packets"

	"github.com/fairlead-iot/fairlead/core"
)

// session is one MQTT session: one paho client, used once, on one guard. What the session publishes goes past paho,
// straight into the guard's buffer, and its PUBACKs never reach paho. Everything that leads to a write, calls of paho
// included, is done by one goroutine, the publisher, which takes it from a queue; so no method of the session waits for
// the network unless its context bounds it, and order is the order of the queue.
type session struct {
	t      *Transport
	g      *guard
	client paho.Client

	// The way up (publish.go).
	queue  queue
	flight *flight
	topic  []byte // the publisher's, for the topic at hand

	// The way down.
	hmu   sync.Mutex // held while a function of the handler runs
	h     core.Handler
	ended bool // no more calls of the handler

	// pending are the requests that await their reply; rids carry nonce, so that a reply which the hub kept for an
	// earlier session, of this process or the one before, is nobody's.
	rmu     sync.Mutex
	pending map[uint64]struct{}
	nonce   string

	unacked arrivals

	dropped atomic.Uint64 // inbound packets that meant nothing here

	// answers takes those of the provisioning service; nil in a session with a hub.
	answers chan registrationAnswer

	pahoLost chan struct{} // closed when paho's goroutines have ended, if it ever was connected
	done     chan struct{}
	gone     chan struct{} // closed when every goroutine has ended
	err      error         // written before done is closed
	workers  sync.WaitGroup
}

var _ core.Session = (*session)(nil)

// newSession sends CONNECT on conn, which it takes over, and waits for CONNACK.
func newSession(ctx context.Context, t *Transport, conn net.Conn, c core.Credential, h core.Handler) (*session, error) {
	var nonce [4]byte
	_, _ = rand.Read(nonce[:]) // never fails
	s := &session{
		t: t, h: h, flight: newFlight(),
		queue:    queue{wake: make(chan struct{}, 1)},
		pending:  make(map[uint64]struct{}),
		nonce:    hex.EncodeToString(nonce[:]),
		pahoLost: make(chan struct{}),
		done:     make(chan struct{}),
		gone:     make(chan struct{}),
	}
	if t.topics.provisioning {
		s.answers = make(chan registrationAnswer, maxRegistrationAnswers)
	}
	s.g = newGuard(conn, silence(t.keepAlive), t.chunk, s.acked)
	s.client = paho.NewClient(s.options(c))
	stop := context.AfterFunc(ctx, func() { s.g.abort(noConnackError(ctx)) })
	token := s.client.Connect()
	s.workers.Go(s.publish)
	go s.supervise(token)
	select {
	case <-token.Done():
	case <-s.g.done:
	}
	if !stop() { // ctx has ended the connection, or is about to
		<-s.g.done
	} else if err := tokenError(token); err != nil {
		s.g.abort(&core.Error{Op: "connect", Kind: core.Transient, Phase: phaseMQTT, Err: err})
	}
	select {
	case <-s.g.done:
		<-s.gone
		return nil, s.g.cause
	default:
		return s, nil
	}
}

// tokenError returns a token's error, nil while it is not complete.
func tokenError(token paho.Token) error {
	select {
	case <-token.Done():
		return token.Error()
	default:
		return nil
	}
}

// options configures paho as a plain single session: everything that it does by itself over time is off.
func (s *session) options(c core.Credential) *paho.ClientOptions {
	o := paho.NewClientOptions().
		AddBroker("tcp://hub"). // never dialed: the connection is ours
		SetCustomOpenConnectionFn(func(*url.URL, paho.ClientOptions) (net.Conn, error) { return s.g, nil }).
		SetProtocolVersion(4). // or a refusal would be followed by a second CONNECT, as MQTT 3.1
		SetClientID(s.t.clientID).
		SetUsername(s.t.username).
		SetPassword(c.Token.Reveal()).
		// The hub keeps subscriptions and undelivered messages over a reconnect; the provisioning service keeps nothing.
		SetCleanSession(s.t.topics.provisioning).
		SetAutoReconnect(false).SetConnectRetry(false).SetResumeSubs(false).
		SetStore(noStore{}). // the outbox is the only memory
		SetOrderMatters(true).SetAutoAckDisabled(true).
		SetKeepAlive(s.t.keepAlive).
		// The guard's watch decides. paho would give up a slow link over one late answer, whatever else the hub says.
		SetPingTimeout(math.MaxInt64).
		SetConnectTimeout(2 * connackTimeout).
		SetWriteTimeout(publishTimeout).
		SetDefaultPublishHandler(func(_ paho.Client, m paho.Message) { s.receive(m) })
	o.SetConnectionLostHandler(func(paho.Client, error) { close(s.pahoLost) })
	return o
}

// supervise ends the session after its connection. connected is paho's Connect token.
func (s *session) supervise(connected paho.Token) {
	<-s.g.done
	s.flight.end()
	// What had arrived is still on its way through paho. It counts, as long as paho is quick.
	pahoGone := make(chan struct{})
	go func() {
		defer close(pahoGone)
		<-connected.Done()
		if connected.Error() == nil { // else paho has started nothing that would be lost
			<-s.pahoLost
		}
	}()
	timer := time.NewTimer(windDown)
	select {
	case <-pahoGone:
	case <-timer.C:
	}
	timer.Stop()
	s.hmu.Lock()
	s.ended = true
	s.hmu.Unlock()
	if !errors.Is(s.g.cause, errSessionClosed) {
		s.err = s.g.cause
	}
	close(s.done)
	<-pahoGone
	s.workers.Wait()
	s.g.wait()
	close(s.gone)
}

// deliver calls f, which calls one function of the handler, unless the session has ended.
func (s *session) deliver(f func(h *core.Handler)) {
	s.hmu.Lock()
	defer s.hmu.Unlock()
	if !s.ended {
		f(&s.h)
	}
}

// receive is paho's handler for everything inbound: it runs on paho's one router goroutine, in the order of the wire.
func (s *session) receive(m paho.Message) {
	if m.Qos() > 0 && m.Duplicate() && s.unacked.has(m.MessageID()) {
		s.t.log.Debug("a packet came again within its session", "packet_id", m.MessageID())
		return // one acknowledgement answers both
	}
	a := s.t.topics.parse(m.Topic(), m.Payload())
	if m.Qos() > 0 {
		// What is not a message needs no verdict; and what nobody understands must not block the hub's queue.
		if !s.unacked.add(m.MessageID(), a.kind != arrivalMessage, &a.inbound.Token) {
			s.g.abort(violation("more than %d messages without an acknowledgement", maxArrivals))
			return
		}
		defer s.release()
	} else if a.kind == arrivalMessage {
		a.inbound.Token = s.unacked.token()
	}
	switch a.kind {
	case arrivalMessage, arrivalMethod, arrivalDesired:
		// "If the DUP flag is set to 1, it indicates that this might be re-delivery of an earlier attempt"
		// https://docs.oasis-open.org/mqtt/mqtt/v3.1.1/os/mqtt-v3.1.1-os.html#_Toc398718038
		a.inbound.Redelivered = a.kind == arrivalMessage && m.Duplicate()
		if a.kind != arrivalMessage {
			a.inbound.Token = 0 // acknowledged without a verdict
		}
		s.deliver(func(h *core.Handler) {
			if h.Receive != nil {
				h.Receive(a.inbound)
			}
		})
	case arrivalReply:
		id, ok := s.answered(a.rid)
		if !ok {
			s.drop("an answer that nobody waits for", m)
			return
		}
		a.reply.ID = id
		s.deliver(func(h *core.Handler) {
			if h.Replied != nil {
				h.Replied(a.reply)
			}
		})
	case arrivalRegistration:
		select {
		case s.answers <- a.registration:
		default:
			s.drop("more answers than requests", m)
		}
	default:
		s.drop("an unknown topic", m)
	}
}

func (s *session) drop(why string, m paho.Message) {
	n := s.dropped.Add(1)
	s.t.log.Debug("inbound packet dropped", "why", why, "topic", m.Topic(), "bytes", len(m.Payload()), "dropped", n)
}

// answered takes a reply's request off the pending ones.
func (s *session) answered(rid string) (uint64, bool) {
	text, ok := strings.CutPrefix(rid, s.nonce+"-")
	if !ok {
		return 0, false
	}
	id, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		return 0, false
	}
	s.rmu.Lock()
	defer s.rmu.Unlock()
	_, ok = s.pending[id]
	delete(s.pending, id)
	return id, ok
}

// Present implements core.Session.
func (s *session) Present() bool { return s.g.present }

// Request implements core.Session.
func (s *session) Request(r core.Request) {
	rid := s.nonce + "-" + strconv.FormatUint(r.ID, 10)
	s.rmu.Lock()
	s.pending[r.ID] = struct{}{}
	s.rmu.Unlock()
	topic, payload := twinGet+rid, []byte(twinGetBody)
	if r.Kind == core.ReportedPatch {
		topic, payload = twinReported+rid, r.Payload
	}
	s.first(func() { s.offer(topic, payload, nil) })
}

// Respond implements core.Session.
func (s *session) Respond(ctx context.Context, r core.MethodResponse) error {
	payload := r.Payload
	if payload == nil {
		payload = []byte("null")
	}
	const op = "respond to method"
	topic, acked := methodResponseTopic(r), make(chan struct{}, 1)
	if len(topic) > maxTopicBytes {
		return &core.Error{Op: op, Kind: core.Refused, Phase: phaseMQTT, Err: fmt.Errorf("%w: the hub's request id does not fit into an MQTT topic", core.ErrTooLarge)}
	}
	s.first(func() { s.offer(topic, payload, acked) })
	select {
	case <-acked:
		return nil
	case <-ctx.Done():
		return contextError(ctx, op)
	case <-s.done: // not g.done: the answer may have come just before the end
	}
	select {
	case <-acked:
		return nil
	default:
		return s.endError(op)
	}
}

// Subscribe implements core.Session.
func (s *session) Subscribe(ctx context.Context, f core.Feature) error {
	op, filter := "subscribe "+f.String(), s.t.topics.filter(f)
	if filter == "" {
		return &core.Error{Op: op, Kind: core.Refused, Phase: phaseMQTT, Err: core.ErrUnsupported}
	}
	return s.subscribe(ctx, op, filter)
}

func (s *session) subscribe(ctx context.Context, op, filter string) error {
	token, err := s.await(ctx, op, func() paho.Token {
		return s.insist(func() paho.Token { return s.client.Subscribe(filter, 1, nil) })
	})
	if err != nil {
		return err
	}
	// A refusal is not an error to paho.
	granted, ok := token.(*paho.SubscribeToken).Result()[filter]
	if !ok || granted == subackFailure {
		return &core.Error{
			Op: op, Kind: core.Refused, Phase: phaseMQTT, Status: subackFailure,
			Err: fmt.Errorf("the hub refuses the subscription: %w", core.ErrService),
		}
	}
	return nil
}

// await has the publisher make a token, and waits until it is complete, the session has ended, or ctx.
func (s *session) await(ctx context.Context, op string, ask func() paho.Token) (paho.Token, error) {
	made := make(chan paho.Token, 1)
	s.first(func() { made <- ask() })
	var token paho.Token
	select {
	case token = <-made:
	case <-s.g.done:
		return nil, s.endError(op)
	case <-ctx.Done():
		return nil, contextError(ctx, op)
	}
	if token == nil {
		return nil, s.endError(op)
	}
	select {
	case <-token.Done():
	case <-s.done: // not g.done: the answer may have come just before the end
		if tokenError(token) != nil || !isDone(token) {
			return nil, s.endError(op)
		}
	case <-ctx.Done():
		return nil, contextError(ctx, op)
	}
	if err := token.Error(); err != nil {
		select {
		case <-s.g.done:
			return nil, s.endError(op)
		default:
			return nil, &core.Error{Op: op, Kind: core.Transient, Phase: phaseMQTT, Err: err}
		}
	}
	return token, nil
}

// endError is the error of an operation that the end of the session ended. It waits for Done: see core.Session.
func (s *session) endError(op string) error {
	<-s.done
	return &core.Error{Op: op, Kind: core.KindOf(s.g.cause), Phase: phaseMQTT, Err: s.g.cause}
}

// Close implements core.Session.
func (s *session) Close(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { s.g.abort(errSessionClosed) })
	defer stop()
	if ctx.Err() == nil {
		// Behind what is queued already, acknowledgements above all.
		s.first(func() {
			s.g.finish()
			s.g.abort(errSessionClosed)
		})
	} else {
		s.g.abort(errSessionClosed)
	}
	<-s.gone
	return nil
}

// Done implements core.Session.
func (s *session) Done() <-chan struct{} { return s.done }

// Err implements core.Session.
func (s *session) Err() error {
	select {
	case <-s.done:
		return s.err
	default:
		return nil
	}
}

// noStore is a paho store that keeps nothing: with a client per session there is nothing to resume, and the outbox is
// what remembers. paho's own would keep every payload until its acknowledgement.
type noStore struct{}

func (noStore) Open()                             {}
func (noStore) Put(string, packets.ControlPacket) {}
func (noStore) Get(string) packets.ControlPacket  { return nil }
func (noStore) All() []string                     { return nil }
func (noStore) Del(string)                        {}
func (noStore) Close()                            {}
func (noStore) Reset()                            {}
