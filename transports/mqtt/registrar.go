package mqtt

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"strconv"
	"sync"
	"time"

	"github.com/fairlead-iot/fairlead/core"
	"github.com/fairlead-iot/fairlead/transports/netdial"
)

// RegistrarConfig says which device registers, and with which provisioning service. IDScope and RegistrationID are
// required.
type RegistrarConfig struct {
	// Host is the provisioning service's, or a gateway's that stands in its place; "" means DefaultProvisioningHost. Port
	// is 0 for what stands in Host ("localhost:18883"), else 8883. Address, if set, is dialed in place of Host.
	Host    string
	Port    int
	Address string
	// IDScope says which provisioning service, as in 0ne00000000.
	IDScope string
	// RegistrationID names the enrollment's device: up to 128 letters, digits and - . _ : and, with certificates, the
	// common name of the device's.
	RegistrationID string
	// Payload is handed to custom allocation: any JSON; nil for none.
	Payload json.RawMessage
	// UserAgent names the program: "fairlead/1.2 (linux; arm64)".
	UserAgent string
	TLS       netdial.TLSConfig
	// Proxy, if set, is the only way to the service.
	Proxy netdial.Proxy
	// DialContext, if set, takes the place of DNS and TCP; Open that of TLS as well, as in Config.
	DialContext netdial.ContextDialer
	Open        Opener
	// Now is the wall clock against which certificates are checked; nil is time.Now.
	Now func() time.Time
	// Logger gets debug lines about what was dropped; nil is none.
	Logger *slog.Logger
}

// registrationIDPattern: "a case-insensitive string (up to 128 characters long) of alphanumeric characters plus the
// special characters: '-', '.', '_', ':'. The last character must be alphanumeric or dash".
// https://learn.microsoft.com/azure/iot-dps/concepts-service#registration-id
var registrationIDPattern = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[A-Za-z0-9._:-]*[A-Za-z0-9-]$`) })

// idScopePattern is wider than what the service hands out; a slash or a space would change the user name's meaning.
var idScopePattern = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[A-Za-z0-9._-]+$`) })

const registrationIDMax = 128 // bytes, of the id scope too

// CheckRegistration refuses an id scope or a registration id that the provisioning service cannot have. Its error wraps
// core.ErrInvalid.
func CheckRegistration(idScope, registrationID string) error {
	switch {
	case len(idScope) > registrationIDMax || !idScopePattern().MatchString(idScope):
		return fmt.Errorf("id scope %.40q: %w: copy it from the provisioning service's overview, as in 0ne00000000", idScope, core.ErrInvalid)
	case len(registrationID) > registrationIDMax || !registrationIDPattern().MatchString(registrationID):
		return fmt.Errorf("registration id %.140q: %w: it has up to 128 letters, digits and - . _ : and ends with a letter, a digit or -",
			registrationID, core.ErrInvalid)
	}
	return nil
}

// Registrar registers one device with a provisioning service over MQTT. Each Register is a connection of its own. It may
// be used from any goroutine.
type Registrar struct {
	t    *Transport
	what string // "register gw-0042 at host"
	body []byte
}

var _ core.Registrar = (*Registrar)(nil)

// NewRegistrar checks the configuration. Its error wraps core.ErrInvalid.
func NewRegistrar(cfg RegistrarConfig) (*Registrar, error) {
	if err := CheckRegistration(cfg.IDScope, cfg.RegistrationID); err != nil {
		return nil, fmt.Errorf("make registrar: %w", err)
	}
	connection := cfg.Transport()
	cfg.Host = connection.Identity.Hostname
	if cfg.UserAgent == "" {
		cfg.UserAgent = defaultUserAgent()
	}
	body, err := json.Marshal(struct {
		RegistrationID string          `json:"registrationId"`
		Payload        json.RawMessage `json:"payload,omitempty"`
	}{cfg.RegistrationID, cfg.Payload})
	if err != nil {
		return nil, fmt.Errorf("make registrar: payload: %w: %w", err, core.ErrInvalid)
	}
	// The session is the hub's, with other names and topics.
	t, err := New(connection)
	if err != nil {
		return nil, fmt.Errorf("make registrar: %w", err)
	}
	t.username = registrationUsername(cfg.IDScope, cfg.RegistrationID, cfg.UserAgent)
	t.topics = topics{provisioning: true}
	return &Registrar{t: t, what: "register " + cfg.RegistrationID + " at " + cfg.Host, body: body}, nil
}

// Transport returns the configuration of the connection to the provisioning service.
func (cfg RegistrarConfig) Transport() Config {
	if cfg.Host == "" {
		cfg.Host = DefaultProvisioningHost
	}
	return Config{
		Identity: core.Identity{Hostname: cfg.Host, DeviceID: cfg.RegistrationID}, UserAgent: cfg.UserAgent,
		Port: cfg.Port, Address: cfg.Address, TLS: cfg.TLS, Proxy: cfg.Proxy, DialContext: cfg.DialContext, Open: cfg.Open, Now: cfg.Now, Logger: cfg.Logger,
	}
}

// Register registers the device, and waits until the service has assigned it to a hub: as long as the service asks for
// with retry-after, but no longer than 90 s. It implements core.Registrar.
func (r *Registrar) Register(ctx context.Context, c core.Credential) (core.Registration, error) {
	reg, _, err := r.try(ctx, c)
	return reg, err
}

// try registers. The kind is that of the error, where it failed; that a way is blocked says nothing of the routes to the
// hub, and the error does not say so either.
func (r *Registrar) try(ctx context.Context, c core.Credential) (core.Registration, core.Kind, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, registrationTimeout, errRegistrationTimeout)
	defer cancel()
	reg, err := r.register(ctx, c)
	if err != nil {
		return core.Registration{}, core.KindOf(err), r.fail(err)
	}
	return reg, core.Transient, nil
}

var errRegistrationTimeout = fmt.Errorf("the provisioning service assigned no hub within %v", registrationTimeout)

// fail says what was attempted, and keeps the kind.
func (r *Registrar) fail(err error) error {
	out := &core.Error{Op: r.what, Kind: core.Transient, Phase: phaseDPS, Err: err}
	if e, ok := errors.AsType[*core.Error](err); ok {
		out.Kind, out.Phase, out.Status, out.RetryAfter, out.TrackingID = e.Kind, e.Phase, e.Status, e.RetryAfter, e.TrackingID
		if e.Op == "" {
			out.Err = e.Err
		}
		if e.Op == "connect" && e.Kind == core.Unauthorized {
			// What CONNACK 5 means here is another thing than at a hub: a wrong key is let in, and refused later.
			out.Err = fmt.Errorf("%w: the provisioning service does not let the device connect (CONNACK %d): are id_scope and registration_id right, "+
				"and is there a key or a certificate?", core.ErrCredential, e.Status)
		}
	}
	if out.Kind == core.Blocked {
		out.Kind = core.Transient // it says nothing of the routes to the hub
	}
	return out
}

func (r *Registrar) register(ctx context.Context, c core.Credential) (core.Registration, error) {
	var reg core.Registration
	opened, err := r.t.Open(ctx, c)
	if err != nil {
		return reg, err
	}
	connected, err := opened.Connect(ctx, c, core.Handler{})
	if err != nil {
		return reg, err
	}
	s := connected.(*session) //nolint:forcetypeassert // Transport makes no other
	defer func() {
		closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), registrationGoodbye)
		defer cancel()
		_ = s.Close(closing) // whether it was orderly changes nothing any more
	}()
	if err := s.subscribe(ctx, "subscribe to answers", registrationPrefix+"#"); err != nil {
		return reg, err
	}
	rid := 0
	for topic, suffix, body := registerTopic, "", r.body; ; {
		rid++
		a, err := s.consult(ctx, topic, s.nonce+"-"+strconv.Itoa(rid), suffix, body)
		if err != nil {
			return reg, err
		}
		wait := a.retryAfter
		if wait == 0 {
			wait = defaultPoll
		}
		switch {
		case a.status >= 429: // the same again, later
			if s.rest(ctx, wait) != nil {
				return reg, a.refusal() // which says what there was to wait for
			}
			continue
		case a.status >= 300:
			return reg, a.refusal()
		}
		var op operation
		if err := json.Unmarshal(a.body, &op); err != nil {
			return reg, fmt.Errorf("parse the provisioning service's answer: %w", err)
		}
		switch {
		case op.Status == statusAssigned:
			return op.result()
		case op.Status != statusAssigning:
			return reg, op.failure(a.status)
		case op.OperationID == "":
			return reg, errNoOperation
		}
		if err := s.rest(ctx, wait); err != nil {
			return reg, err
		}
		topic, suffix, body = operationTopic, "&operationId="+escape(op.OperationID), []byte(operationBody)
	}
}

var (
	errNoOperation = errors.New("the provisioning service says assigning, and names no operation")
	errNoAnswer    = fmt.Errorf("the provisioning service did not answer within %v", answerTimeout)
)

// consult asks the provisioning service and waits for its answer.
func (s *session) consult(ctx context.Context, topic, rid, suffix string, body []byte) (registrationAnswer, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, answerTimeout, errNoAnswer)
	defer cancel()
	s.queue.first(func() { s.offer(topic+rid+suffix, body, nil) })
	for {
		select {
		case a := <-s.answers:
			if a.rid == rid {
				return a, nil
			}
		case <-ctx.Done():
			return registrationAnswer{}, contextError(ctx, "wait for an answer")
		case <-s.done:
			return registrationAnswer{}, s.endError("wait for an answer")
		}
	}
}

// rest waits as long as the service asked for. What ctx would not last through is told at once, with the wait that is
// still asked for.
func (s *session) rest(ctx context.Context, d time.Duration) error {
	if end, ok := ctx.Deadline(); ok && time.Until(end) <= d {
		return &core.Error{Op: "wait", Kind: core.Transient, Phase: phaseDPS, RetryAfter: d, Err: fmt.Errorf("the provisioning service asks for %v of patience", d)}
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return contextError(ctx, "wait")
	case <-s.done:
		return s.endError("wait")
	}
}
