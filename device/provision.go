package device

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/fairlead-iot/fairlead/core"
	"github.com/fairlead-iot/fairlead/credentials"
	"github.com/fairlead-iot/fairlead/store"
)

// Reprovision says when a device that has been assigned to a hub asks again where it belongs.
//
// https://learn.microsoft.com/azure/iot-dps/concepts-device-reprovision
type Reprovision uint8

const (
	// ReprovisionRefused asks again when the hub refuses the identity, or cannot be reached for 10 attempts in a row.
	ReprovisionRefused Reprovision = iota
	// ReprovisionAtStart asks at each start too.
	ReprovisionAtStart
	// ReprovisionNever keeps the first assignment for good.
	ReprovisionNever
)

// How often the provisioning service is asked by a device that has an assignment already.
const (
	// refusedAttempts: "if the device fails to connect to its hub for 10 attempts in a row, it should reprovision".
	// https://learn.microsoft.com/azure/iot-dps/how-to-reprovision
	refusedAttempts = 10
	// askFirst is the least wait from one question to the next; it doubles up to askMost. After askForget without a
	// question it begins anew.
	askFirst  = time.Minute
	askMost   = time.Hour
	askForget = 6 * time.Hour
)

// ProvisioningStatus is what a provisioned device knows of its assignment.
type ProvisioningStatus struct {
	// Hostname is the hub's and DeviceID the device's name there; "" while the service has not said.
	Hostname, DeviceID string
	// At is when the service said so, by this device's clock then.
	At time.Time
	// Kept: an earlier run was told, this one has not had to ask.
	Kept bool
	// Err is why the last question came to nothing; nil after an answer.
	Err error
}

// Assignments keeps the last assignment over restarts; store.Assignments does so in a file.
type Assignments interface {
	Load() (store.Assignment, error)
	Save(a store.Assignment) error
}

// Provisioning is how a device learns which hub it belongs to, and by what name. All but Keep, Gateway, Reprovision and
// Logger is required.
type Provisioning struct {
	// Registrar asks the provisioning service; Proof proves to it who the device is.
	Registrar core.Registrar
	Proof     core.CredentialSource
	// Credentials makes the source of credentials for a hub; Transports the routes to it, always as many as Routes names.
	// They are called for each assignment.
	Credentials func(core.Identity) (core.CredentialSource, error)
	Transports  func(core.Identity) ([]core.Transport, error)
	Routes      []string
	// Keep, if set, lets a start with the service down use the last assignment.
	Keep Assignments
	// Gateway, if set, is the host to connect to in any hub's place.
	Gateway     string
	Reprovision Reprovision
	Logger      *slog.Logger
}

// provisioner is the source of credentials and the transports of a device that is provisioned. To the engine it is what
// they always are; that the hub may change between two attempts is seen here only. So a reassigned device keeps its
// outbox, its open calls and its plugins.
type provisioner struct {
	cfg Provisioning
	log *slog.Logger

	// asking is held while the service is asked.
	asking sync.Mutex

	mu       sync.Mutex
	now      assigned // zero until the first assignment is known
	shown    ProvisioningStatus
	asked    bool // the service has answered in this process
	refusals int  // attempts since the last session that the hub refused the identity
	failures int  // other attempts that failed since
	tries    int  // questions that came soon after one another
	askedAt  time.Time
	next     time.Time // not before then
	proven   proven
	tried    []byte // the certificate that the service was asked about last
}

// assigned is what belongs to an assignment.
type assigned struct {
	identity   core.Identity
	source     core.CredentialSource
	transports []core.Transport
}

// newProvisioner checks the configuration and looks for the last assignment. It does not touch the network.
func newProvisioner(cfg Provisioning) (*provisioner, error) {
	if cfg.Registrar == nil || cfg.Proof == nil || cfg.Credentials == nil || cfg.Transports == nil || len(cfg.Routes) == 0 {
		return nil, fmt.Errorf("device: provisioning: %w: registrar, proof, credentials, transports and routes are needed", core.ErrInvalid)
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	p := &provisioner{cfg: cfg, log: cfg.Logger}
	if cfg.Keep == nil {
		return p, nil
	}
	kept, err := cfg.Keep.Load()
	if err == nil {
		err = p.adopt(kept.Hostname, kept.DeviceID)
	}
	if err == nil {
		p.shown = ProvisioningStatus{Hostname: kept.Hostname, DeviceID: kept.DeviceID, At: kept.At, Kept: true}
	}
	switch {
	case errors.Is(err, store.ErrNewer):
		return nil, fmt.Errorf("device: provisioning: %w", err)
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		p.log.Warn("the last assignment is of no use; the provisioning service is asked again", "error", err)
	}
	return p, nil
}

// adopt makes an assignment the current one.
func (p *provisioner) adopt(hostname, deviceID string) error {
	id := core.Identity{Hostname: hostname, DeviceID: deviceID, Gateway: p.cfg.Gateway}
	if p.identity() == id {
		return nil
	}
	if err := credentials.CheckIdentity(id); err != nil {
		return fmt.Errorf("the assignment to %.200q as %.200q: %w", hostname, deviceID, err)
	}
	source, err := p.cfg.Credentials(id)
	if err != nil {
		return fmt.Errorf("make credentials for %s: %w", hostname, err)
	}
	transports, err := p.cfg.Transports(id)
	if err != nil {
		return fmt.Errorf("make transports to %s: %w", hostname, err)
	}
	if len(transports) != len(p.cfg.Routes) {
		return fmt.Errorf("make transports to %s: %d, and there are %d routes", hostname, len(transports), len(p.cfg.Routes))
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.now = assigned{id, source, transports}
	return nil
}

// identity returns who the device is; zero while that is not known.
func (p *provisioner) identity() core.Identity {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.now.identity
}

// Credential returns a credential for the hub, and asks the provisioning service first where that is due. It implements
// core.CredentialSource.
func (p *provisioner) Credential(ctx context.Context) (core.Credential, error) {
	p.asking.Lock()
	defer p.asking.Unlock()
	if why := p.due(time.Now()); why != "" {
		_, err := p.ask(ctx, why)
		if err != nil && p.identity() == (core.Identity{}) {
			return core.Credential{}, err
		}
		if err != nil {
			p.log.WarnContext(ctx, "the provisioning service did not help; the last assignment stays", "why_asked", why, "hub", p.identity().Hostname, "error", err)
		}
	}
	c, err := p.atHub(ctx)
	if err != nil || !p.isUnknown(c) {
		return c, err
	}
	return p.introduce(ctx, c)
}

// atHub returns a credential for the hub that the device is assigned to.
func (p *provisioner) atHub(ctx context.Context) (core.Credential, error) {
	p.mu.Lock()
	now := p.now
	p.mu.Unlock()
	c, err := now.source.Credential(ctx)
	if err != nil {
		return core.Credential{}, err
	}
	c.Identity = now.identity
	return c, nil
}

// due says why the service is to be asked; "" if it is not.
func (p *provisioner) due(now time.Time) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	why := ""
	switch {
	case p.now.source == nil:
		return "no hub is known" // the machine's back-off is all that is needed
	case p.cfg.Reprovision == ReprovisionNever:
	case p.refusals > 0:
		why = "the hub refuses the identity"
	case p.failures >= refusedAttempts:
		why = fmt.Sprintf("%d attempts in a row failed", p.failures)
	case p.cfg.Reprovision == ReprovisionAtStart && !p.asked:
		why = "the device started"
	}
	if why != "" && now.Before(p.next) {
		return ""
	}
	return why
}

// ask asks the service and takes over what it says. It returns what the device proved itself by.
func (p *provisioner) ask(ctx context.Context, why string) (_ core.Credential, err error) {
	p.pace(time.Now())
	defer func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.shown.Err = err
	}()
	p.log.DebugContext(ctx, "ask the provisioning service", "why", why)
	proof, err := p.cfg.Proof.Credential(ctx)
	if err != nil {
		return proof, fmt.Errorf("prove the identity to the provisioning service: %w", err)
	}
	r, err := p.cfg.Registrar.Register(ctx, proof)
	if err != nil {
		return proof, err
	}
	old := p.identity()
	if err := p.adopt(r.State.AssignedHub, r.State.DeviceID); err != nil {
		return proof, &core.Error{Op: "take over what the provisioning service says", Kind: core.Fatal, Err: err}
	}
	p.mu.Lock()
	p.asked, p.refusals, p.failures = true, 0, 0
	p.shown = ProvisioningStatus{Hostname: r.State.AssignedHub, DeviceID: r.State.DeviceID, At: time.Now()}
	p.proven.certificate = leafOf(proof)
	p.mu.Unlock()
	p.log.InfoContext(ctx, "assigned", "hub", r.State.AssignedHub, "device", r.State.DeviceID, "substatus", r.State.Substatus, "before", old.Hostname, "why_asked", why)
	if p.cfg.Keep != nil {
		if err := p.cfg.Keep.Save(store.Assignment{Hostname: r.State.AssignedHub, DeviceID: r.State.DeviceID, At: time.Now().UTC()}); err != nil {
			p.log.ErrorContext(ctx, "the assignment cannot be kept: a restart has to ask again", "error", err)
		}
	}
	return proof, nil
}

// pace puts the next question off, the longer the more there were.
func (p *provisioner) pace(now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if now.Sub(p.askedAt) >= askForget {
		p.tries = 0
	}
	wait := min(askFirst<<min(p.tries, 10), askMost)
	p.tries++
	p.askedAt = now
	p.next = now.Add(wait + rand.N(wait/4)) //nolint:gosec // jitter
}

// outcome notes what an attempt at the hub came to.
func (p *provisioner) outcome(ctx context.Context, err error) {
	if err != nil && errors.Is(ctx.Err(), context.Canceled) {
		return // the device gave it up itself
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case err == nil:
		p.refusals, p.failures = 0, 0
	case core.KindOf(err) == core.Unauthorized:
		p.refusals++
	default:
		p.failures++
	}
}

// routes returns the transports that the engine is given.
func (p *provisioner) routes() []core.Transport {
	var out []core.Transport
	for i, name := range p.cfg.Routes {
		out = append(out, &route{p: p, index: i, name: name})
	}
	return out
}

// route is a transport to whichever hub the credential is for.
type route struct {
	p     *provisioner
	index int
	name  string
}

// Name implements core.Transport.
func (r *route) Name() string { return r.name }

// Open implements core.Transport.
func (r *route) Open(ctx context.Context, c core.Credential) (core.Link, error) {
	r.p.mu.Lock()
	now := r.p.now
	r.p.mu.Unlock()
	if now.identity != c.Identity {
		return nil, &core.Error{Op: "open " + r.name, Kind: core.Transient, Err: errReassigned}
	}
	l, err := now.transports[r.index].Open(ctx, c)
	if err != nil {
		r.p.outcome(ctx, err)
		return nil, err
	}
	return &link{l, r.p}, nil
}

var errReassigned = errors.New("the device has been assigned to another hub meanwhile")

// link notes what its attempt came to.
type link struct {
	core.Link
	p *provisioner
}

// Connect implements core.Link.
func (l *link) Connect(ctx context.Context, c core.Credential, h core.Handler) (core.Session, error) {
	s, err := l.Link.Connect(ctx, c, h)
	l.p.outcome(ctx, err)
	if err == nil {
		l.p.prove(c)
	}
	return s, err
}
