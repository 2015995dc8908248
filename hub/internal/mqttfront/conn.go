package mqttfront

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/fairlead-iot/fairlead/hub/api"
	"github.com/fairlead-iot/fairlead/hub/internal/iot"
	"github.com/fairlead-iot/fairlead/hub/internal/lobby"
	"github.com/fairlead-iot/fairlead/hub/internal/mqttwire"
	"github.com/fairlead-iot/fairlead/hub/internal/msglog"
)

// errGone ends the reader of a connection whose end was decided elsewhere.
var errGone = errors.New("mqttfront: connection given up")

// conn is one MQTT connection. The reader owns everything above mu.
type conn struct {
	f      *Front
	nc     net.Conn
	id     api.ID
	sess   *iot.Session // nil before CONNECT, and for the provisioning service
	prov   *provisioning
	events string // the identity's telemetry topic
	will   *mqttwire.Will
	idle   time.Duration // reading deadline, 0 before CONNECT
	expiry *time.Timer   // of the credential
	// present is what CONNACK said of a persistent session.
	present bool
	// What the packets of one read brought; keep empties them. The records alias
	// the reading buffer.
	records []msglog.Record
	acks    []ack

	mu       sync.Mutex
	flushing bool      // a flusher runs
	done     sync.Cond // signalled when the flusher has ended
	out      []byte    // packets, whole, for the flusher
	spare    []byte    // that out was before
	acked    int       // how many PUBACKs of telemetry are in out
	closing  bool      // nothing is added to out any more
	gone     bool      // the socket is closed: nothing more is written
	silent   bool      // neither read nor written: a black hole
	reason   string    // why it ends: the first one
	timers   []*time.Timer
	wake     chan struct{} // closed by drop while the reader waits in slowDown
}

var _ iot.Link = (*conn)(nil)

// serve runs a connection to its end.
func (f *Front) serve(nc net.Conn) {
	c := &conn{f: f, nc: nc}
	c.done.L = &c.mu
	f.mu.Lock()
	if f.closed {
		f.mu.Unlock()
		bareClose(nc)
		return
	}
	f.conns[c] = struct{}{}
	f.mu.Unlock()

	err := c.handshake()
	if err == nil {
		err = c.read()
	}
	c.mu.Lock()
	c.closing = true
	if c.reason == "" {
		c.reason = reasonOf(err)
	}
	reason := c.reason
	for _, t := range c.timers {
		t.Stop()
	}
	c.mu.Unlock()
	if c.expiry != nil {
		c.expiry.Stop()
	}
	if c.prov != nil {
		c.prov.within.Stop()
	}
	if c.sess != nil {
		c.sendWill()
		c.sess.End()
	}
	// Who does not read its last packets does not hold the connection for long.
	farewell := time.AfterFunc(farewellWithin, func() { c.Drop("") })
	c.flushed()
	_ = c.nc.Close() // it may be closed already
	farewell.Stop()
	switch {
	case c.sess != nil:
		f.log.Info("device disconnected", "device", c.id.String(), "reason", reason)
	case c.prov != nil:
		f.log.Info("device disconnected from the provisioning service", "registration", c.prov.cred.RegistrationID, "reason", reason)
	default:
		f.log.Info("connection ended before CONNECT was accepted", "remote", nc.RemoteAddr().String(), "reason", reason)
	}
	f.mu.Lock()
	delete(f.conns, c)
	f.mu.Unlock()
}

func reasonOf(err error) string {
	switch {
	case err == nil:
		return "DISCONNECT"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return "the client closed the connection"
	case errors.Is(err, os.ErrDeadlineExceeded):
		return "nothing came within 1.5 times the keep-alive interval"
	default:
		return err.Error()
	}
}

// handshake begins the time within which CONNECT must come, and carries out that of
// TLS. It does so on a goroutine of its own: the stack that it needs is several
// times what the connection needs for the rest of its life.
func (c *conn) handshake() error {
	if err := c.nc.SetDeadline(time.Now().Add(iot.ConnectWithin)); err != nil {
		return fmt.Errorf("set deadline: %w", err)
	}
	t, ok := c.nc.(*tls.Conn)
	if !ok {
		return nil
	}
	ended := make(chan error)
	go func() { ended <- t.Handshake() }() //nolint:noctx // it has a deadline, and Drop closes the socket
	if err := <-ended; err != nil {
		return fmt.Errorf("TLS handshake: %w", err)
	}
	return nil
}

// read parses and handles packets until the connection ends; nil after
// DISCONNECT.
func (c *conn) read() error {
	buf := make([]byte, minBuffer)
	end, quiet := 0, 0 // quiet counts reads that brought little, one after the other
	stranger := true
	for {
		if err := c.slowDown(); err != nil {
			return err
		}
		n, readErr := c.nc.Read(buf[end:])
		end += n
		if n > 0 && c.isSilent() {
			end = 0
			continue
		}
		used, need, done, err := c.handleAll(buf[:end])
		if keepErr := c.keep(); err == nil { // what came before the error counts
			err = keepErr
		}
		if done || err != nil {
			return err
		}
		if readErr != nil {
			return readErr
		}
		if stranger && c.idle != 0 && (c.prov == nil || c.prov.proved) {
			stranger = false
			lobby.Leave(rawConn(c.nc))
		}
		full := end == len(buf)
		if quiet++; n > len(buf)/8 {
			quiet = 0
		}
		end = copy(buf, buf[used:end])
		if size := c.bufferSize(len(buf), need, full, end == 0 && quiet >= quietReads); size != len(buf) {
			buf = append(make([]byte, 0, size), buf[:end]...)[:size]
		}
		if err := c.extend(); err != nil {
			return err
		}
	}
}

// bufferSize is how large the reading buffer shall be: as the load wants it, and
// small again when that is over. need is the length of the packet that is under
// way, where it is known; full says that the last read filled the buffer.
func (c *conn) bufferSize(size, need int, full, rests bool) int {
	switch {
	case c.idle == 0 && full: // a stranger's word is not enough: as the bytes come
		return min(2*size, iot.MaxConnect)
	case c.idle != 0 && need > size:
		return need
	case c.idle != 0 && full:
		return max(size, min(2*size, maxBuffer))
	case rests:
		return minBuffer
	default:
		return size
	}
}

// handleAll handles the whole packets in b. used is their length, need that of
// the packet that follows, once it is known; done comes with DISCONNECT.
func (c *conn) handleAll(b []byte) (used, need int, done bool, err error) {
	for used < len(b) {
		limit := packetLimit
		if !c.begun() {
			limit = iot.MaxConnect
			if mqttwire.Type(b[used]>>4) != mqttwire.Connect {
				return used, 0, false, fmt.Errorf("first packet has type %d", b[used]>>4) // whoever this is may wait for an answer
			}
		}
		total, err := mqttwire.Frame(b[used:], limit)
		if err != nil {
			return used, 0, false, err
		}
		if total == 0 || total > len(b)-used {
			return used, total, false, nil
		}
		done, err := c.handle(b[used : used+total])
		if done || err != nil {
			return used, 0, done, err
		}
		used += total
		if !c.begun() { // a black hole: what follows falls into it
			return len(b), 0, false, nil
		}
	}
	return used, 0, false, nil
}

// begun reports whether CONNECT was accepted.
func (c *conn) begun() bool { return c.sess != nil || c.prov != nil }

// extend moves the reading deadline: any traffic counts.
func (c *conn) extend() error {
	if c.idle == 0 {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.silent {
		return nil
	}
	if err := c.nc.SetReadDeadline(time.Now().Add(c.idle)); err != nil {
		return fmt.Errorf("set deadline: %w", err)
	}
	return nil
}

func (c *conn) isSilent() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.silent
}

// handle acts on one packet; true after DISCONNECT.
func (c *conn) handle(frame []byte) (bool, error) {
	p, err := mqttwire.Decode(frame)
	if !c.begun() {
		return false, c.handleFirst(p, err)
	}
	if err != nil {
		return false, err
	}
	if c.prov != nil {
		return c.prov.handle(p)
	}
	switch p.Type {
	case mqttwire.Publish:
		return false, c.handlePublish(p)
	case mqttwire.Puback:
		return false, c.sess.Complete(p.ID)
	case mqttwire.Subscribe:
		return false, c.handleSubscribe(p)
	case mqttwire.Unsubscribe:
		filters := make([]string, 0, len(p.Filters))
		for _, f := range p.Filters {
			filters = append(filters, f.Topic)
		}
		if err := c.sess.Unsubscribe(filters); err != nil {
			return false, err
		}
		c.send(0, func(out []byte) []byte { return mqttwire.AppendUnsuback(out, p.ID) })
		return false, nil
	case mqttwire.Pingreq:
		c.send(0, mqttwire.AppendPingresp)
		return false, nil
	case mqttwire.Disconnect:
		c.will = nil // [MQTT-3.1.2-10]
		return true, nil
	default: // a second CONNECT, [MQTT-3.1.0-2]
		return false, fmt.Errorf("packet of type %d in a session", p.Type)
	}
}

// handleFirst takes the first packet, which must be CONNECT.
func (c *conn) handleFirst(p mqttwire.Packet, err error) error {
	if errors.Is(err, mqttwire.ErrProtocol) {
		return c.refuse(codeProtocol, err)
	}
	if err != nil {
		return err
	}
	in := p.Connect
	if in.ClientID == "" {
		return c.refuse(codeIdentifier, errors.New("empty client id"))
	}
	c.id = api.ParseID(in.ClientID)
	svc := c.f.svc
	if fault, hit := svc.Strike(api.FaultCut, c.id); hit {
		svc.Refused(c.id, "fault: cut")
		if fault.Mode == "black-hole" {
			var left time.Duration // 0 is for ever
			if !fault.Expires.IsZero() {
				left = max(time.Until(fault.Expires), 1)
			}
			lobby.Leave(rawConn(c.nc)) // the fault may last
			c.Silence(left)
			return nil
		}
		return c.giveUp("fault: cut")
	}
	if fault, hit := svc.Strike(api.FaultConnack, c.id); hit {
		return c.refuse(byte(fault.Code), errors.New("fault: connack"))
	}
	if scope, registration, ok := c.isProvisioning(in); ok {
		return c.connectProvisioning(in, scope, registration)
	}
	u, err := parseUser(in.Username, in.ClientID)
	if err != nil {
		return c.refuse(codeUnauthorized, err)
	}
	if !svc.AnswersTo(u.host) {
		return c.refuse(codeUnauthorized, fmt.Errorf("the user name is for hub %q", u.host))
	}
	cred, err := c.authenticate(in.Password)
	if err != nil {
		return c.refuse(c.codeOf(err, codeUnauthorized), err)
	}
	c.events = eventsTopic(c.id)
	if w := in.Will; w != nil {
		bag, ok := c.bagOf(w.Topic)
		if !ok || w.QoS == 2 {
			return fmt.Errorf("will to topic %q with QoS %d", w.Topic, w.QoS)
		}
		if err := iot.CheckMessage([]byte(bag), w.Payload); err != nil {
			return err
		}
	}
	return c.accept(in, u, cred)
}

func (c *conn) accept(in *mqttwire.ConnectInfo, u user, cred iot.Credential) error {
	feature := func(filter string) (iot.Feature, bool) { return featureOf(c.id, filter) }
	sess, err := c.f.svc.Attach(c.id, c, in.Clean, cred, u.model, feature)
	if err != nil {
		if iot.AsError(err).Code == api.CodeServerError {
			c.f.log.Error("begin session", "device", c.id.String(), "err", err)
		}
		return c.refuse(c.codeOf(err, codeUnavailable), err)
	}
	c.sess, c.will = sess, in.Will
	c.idle = c.idleOf(in.KeepAlive)
	if !cred.Expiry.IsZero() {
		c.expiry = time.AfterFunc(time.Until(cred.Expiry.Add(c.f.svc.Grace())), func() { c.Drop("the token expired") })
	}
	c.f.log.Info("device connected", "device", c.id.String(), "clean", in.Clean, "session_present", c.present, "keep_alive", in.KeepAlive)
	return nil
}

// idleOf is how long the hub waits for any packet, by the keep-alive interval of
// CONNECT in seconds.
func (c *conn) idleOf(keepAlive uint16) time.Duration {
	switch {
	case keepAlive > 0:
		return min(time.Duration(keepAlive)*time.Second*3/2, maxKeepAlive)
	case c.f.cfg.KeepAliveOff:
		return forever
	default:
		return maxKeepAlive
	}
}

// codeOf is the CONNACK code for an error, which has one of its own or is otherwise.
func (c *conn) codeOf(err error, otherwise byte) byte {
	switch iot.AsError(err).Code {
	case api.CodeDeviceDisabled:
		return c.f.cfg.DisabledCode
	case api.CodeDeviceNotFound, api.CodeModuleNotFound:
		return codeUnauthorized
	default:
		return otherwise
	}
}

// refuse answers CONNECT with a code, then ends the connection.
func (c *conn) refuse(code byte, why error) error {
	c.f.svc.Refused(c.id, fmt.Sprintf("code %d: %v", code, why))
	c.send(0, func(out []byte) []byte { return mqttwire.AppendConnack(out, false, code) })
	return fmt.Errorf("CONNECT of %q refused with code %d: %w", c.id, code, why)
}

func (c *conn) giveUp(reason string) error {
	c.Drop(reason)
	return errGone
}

// bagOf returns the property bag of a telemetry topic; false for another topic.
func (c *conn) bagOf(topic string) (string, bool) {
	rest, ok := strings.CutPrefix(topic, c.events)
	if !ok || rest != "" && rest[0] != '/' {
		return "", false
	}
	return strings.TrimPrefix(rest, "/"), true
}

func (c *conn) handlePublish(p mqttwire.Packet) error {
	if p.QoS == 2 {
		return errors.New("PUBLISH with QoS 2")
	}
	if n := len(c.events); len(p.Topic) >= n && string(p.Topic[:n]) == c.events && (len(p.Topic) == n || p.Topic[n] == '/') {
		bag := p.Topic[min(n+1, len(p.Topic)):]
		if err := iot.CheckMessage(bag, p.Payload); err != nil {
			return err
		}
		if _, hit := c.f.svc.Strike(api.FaultQuota, c.id); hit {
			return errors.New("fault: quota")
		}
		mute := c.sess.Injected(bag)
		c.queueTelemetry(bag, p, p.QoS > 0 && !mute)
		return nil
	}
	topic := string(p.Topic)
	var err error
	if rest, ok := strings.CutPrefix(topic, methodAnswerTopic); ok {
		err = c.handleAnswer(rest, p.Payload)
	} else if rest, ok := strings.CutPrefix(topic, twinGetTopic); ok {
		err = c.handleTwin(rest, func(int64) (body []byte, version int64, err error) {
			body, err = c.sess.TwinDocument()
			return body, 0, err
		})
	} else if rest, ok := strings.CutPrefix(topic, reportedTopic); ok {
		err = c.handleTwin(rest, func(onVersion int64) (body []byte, version int64, err error) {
			version, err = c.sess.Report(p.Payload, onVersion)
			return nil, version, err
		})
	} else {
		err = fmt.Errorf("PUBLISH to topic %.200q", topic)
	}
	if err == nil && p.QoS > 0 {
		c.acks = append(c.acks, ack{p.ID, false})
	}
	return err
}

func (c *conn) handleAnswer(rest string, payload []byte) error {
	status, rid, err := parseAnswer(rest)
	if err != nil {
		return fmt.Errorf("method answer: %w", err)
	}
	c.sess.Answer(rid, status, payload)
	return nil
}

// handleTwin carries out a twin request and answers it: 200 with a body, 204
// with a version, or the error's status with its JSON.
func (c *conn) handleTwin(rest string, do func(version int64) (body []byte, version2 int64, err error)) error {
	rid, version, err := parseRequest(rest)
	if err != nil {
		return fmt.Errorf("twin request: %w", err)
	}
	if _, hit := c.f.svc.Strike(api.FaultDropTwinResponse, c.id); hit {
		return nil
	}
	status, body := 200, []byte(nil)
	if refused := c.twinFault(); refused != nil {
		status, version, body = refused.HTTPStatus, 0, iot.NewErrorBody(refused).JSON()
	} else if body, version, err = do(version); err != nil {
		refused := iot.AsError(err)
		if refused.Code == api.CodeServerError {
			c.f.log.Error("answer twin request", "device", c.id.String(), "err", err)
		}
		status, version, body = refused.HTTPStatus, 0, iot.NewErrorBody(refused).JSON()
	} else if version != 0 {
		status = 204
	}
	if c.sess.Subscribed(iot.FeatureTwinResponses) {
		c.publish(twinAnswerTopic(status, rid, version), body, 0, false, 0)
	}
	return nil
}

// twinFault is what a fault answers a twin request with, nil for none.
func (c *conn) twinFault() *api.Error {
	if fault, hit := c.f.svc.Strike(api.FaultTwinStatus, c.id); hit {
		return &api.Error{HTTPStatus: fault.Code, Code: fault.Code*1000 + 1, Message: "fault: twin-status"}
	}
	if _, hit := c.f.svc.Strike(api.FaultThrottle, c.id); hit {
		return api.Refuse(api.CodeThrottled, "The request has been throttled. Wait 10 seconds and try again. Operation type: fault")
	}
	return nil
}

func (c *conn) handleSubscribe(p mqttwire.Packet) error {
	granted := map[string]byte{}
	codes := make([]byte, 0, len(p.Filters))
	_, refused := c.f.svc.Strike(api.FaultRefuseSuback, c.id)
	for _, f := range p.Filters {
		if refused {
			codes = append(codes, 0x80)
			continue
		}
		// The hub ends the connection over an unknown filter; it sends no 0x80.
		if _, ok := featureOf(c.id, f.Topic); !ok {
			return fmt.Errorf("SUBSCRIBE to %.200q", f.Topic)
		}
		qos := min(f.QoS, 1)
		granted[f.Topic] = qos
		codes = append(codes, qos)
	}
	if len(granted) > 0 {
		if err := c.sess.Subscribe(granted); err != nil {
			return err
		}
	}
	c.send(0, func(out []byte) []byte { return mqttwire.AppendSuback(out, p.ID, codes) })
	if slices.Max(codes) != 0x80 {
		c.sess.Delivering()
	}
	return nil
}
