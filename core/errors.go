package core

import (
	"errors"
	"fmt"
	"time"
)

// Kind classes an error by what the machine does about it. Transports, credential sources and launchers choose the
// kind from tables; the machine reads nothing else of an error.
type Kind uint8

const (
	// Transient passes by itself: try again with back-off. An unknown error counts as transient.
	Transient Kind = iota
	// Throttled means that the hub asked for less: try again later than usual.
	Throttled
	// Unauthorized means that the hub refused the identity or its proof. A fresh credential is tried at once, then
	// slowly and for ever: keys, clocks and the device's enabled state are mended from afar.
	Unauthorized
	// Blocked means that this route does not get through here; the next route is tried at once.
	Blocked
	// Refused means that the other side understood and said no to this one thing.
	Refused
	// Fatal means that nothing changes by trying again soon: a wrong certificate, a protocol that the hub does not
	// speak. It is retried slowly, shown plainly, and woken by a changed configuration.
	Fatal
	// Unavailable means that the hub answered and takes this device not now: it is busy, or the device is disabled, which
	// it does not tell apart. The first tries are made as soon as after any failure; then the waits go on growing, beyond
	// what bounds them in a young outage, since only an operator ends a disabled device's.
	Unavailable
	// TakenOver means that another client uses the identity. No table yields it: the machine infers it from clean
	// closes soon after connecting.
	TakenOver
)

var kindNames = [...]string{"transient", "throttled", "unauthorized", "blocked", "refused", "fatal", "unavailable", "taken-over"}

// String returns the kind's stable name, as used in transcripts, logs and status.
func (k Kind) String() string {
	if int(k) < len(kindNames) {
		return kindNames[k]
	}
	return fmt.Sprintf("kind(%d)", uint8(k))
}

// Error is the one typed error of the ports: transports, credential sources, launchers and the service's answers.
// Callers of the device client see it through errors.As.
type Error struct {
	// Op is what was attempted, with the object but never a secret: "dial tcp hub:8883", "subscribe methods".
	Op   string
	Kind Kind
	// Phase is the layer that failed where one can be told: dns, tcp, proxy, tls, websocket, mqtt.
	Phase string
	// Status is the CONNACK code, twin status or HTTP status; 0 where there is none.
	Status int
	// RetryAfter is the least wait that the hub asked for, or that spares a route which is Blocked; 0 where there is none.
	RetryAfter time.Duration
	// TrackingID is the hub's, for a support request; "" where there is none.
	TrackingID string
	// Clean is set on the end of a session that the other side closed in an orderly way, or by a bare close without
	// an error: the sign by which the machine infers TakenOver.
	Clean bool
	Err   error
}

// Error returns "op: cause".
func (e *Error) Error() string {
	switch {
	case e.Err == nil && e.Status != 0:
		return fmt.Sprintf("%s: status %d", e.Op, e.Status)
	case e.Err == nil:
		return fmt.Sprintf("%s: %s", e.Op, e.Kind)
	default:
		return e.Op + ": " + e.Err.Error()
	}
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

func asError(err error) (*Error, bool) { return errors.AsType[*Error](err) }

// KindOf returns the kind of the first *Error in err's tree, Transient where there is none.
func KindOf(err error) Kind {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Kind
	}
	return Transient
}

// Sentinels for errors.Is. Plugins and callers of the device client see them; each is wrapped with its detail.
var (
	// ErrCredential: the hub refused the device's proof of identity.
	ErrCredential = errors.New("credential refused")
	// ErrConnectionFailed: no session could be made.
	ErrConnectionFailed = errors.New("connection failed")
	// ErrConnectionDropped: the session ended before the operation did, and connection_retry is off.
	ErrConnectionDropped = errors.New("connection dropped")
	// ErrTimeout: the operation's own limit ended it.
	ErrTimeout = errors.New("timed out")
	// ErrCancelled: the caller, a disconnect or a shutdown ended the operation. It will not be sent later.
	ErrCancelled = errors.New("cancelled")
	// ErrNotConnected: there is no session, and auto_connect is off.
	ErrNotConnected = errors.New("not connected")
	// ErrClosed: the device has been shut down.
	ErrClosed = errors.New("closed")
	// ErrTooLarge: the message exceeds what the hub takes; it was refused before it was accepted.
	ErrTooLarge = errors.New("too large")
	// ErrInvalid: the input is malformed; it was refused before it was accepted.
	ErrInvalid = errors.New("invalid")
	// ErrService: the hub answered with an error status; the *Error in the tree has the status and tracking id.
	ErrService = errors.New("refused by the hub")
	// ErrUnsupported: this session, transport or version cannot do that.
	ErrUnsupported = errors.New("not supported")
)
