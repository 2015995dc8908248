package mqtt

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/fairlead-iot/fairlead/core"
)

// Registrars registers one device by the first of several ways that gets through to the provisioning service. Make it
// with NewRegistrars. It may be used from any goroutine.
type Registrars struct {
	ways []*Registrar

	mu     sync.Mutex
	first  int         // the way that got through last time
	spared []time.Time // until when each way is not tried, because who stands on it asked for that
	failed []error     // what each way failed of last
}

var _ core.Registrar = (*Registrars)(nil)

// NewRegistrars takes at least one way; the order is that of preference.
func NewRegistrars(first *Registrar, more ...*Registrar) *Registrars {
	ways := append([]*Registrar{first}, more...)
	return &Registrars{ways: ways, spared: make([]time.Time, len(ways)), failed: make([]error, len(ways))}
}

// Register registers as Registrar does, with 90 s for each way. A way that is blocked gives way to the next at once; any
// other answer counts. One that is to be spared (a proxy that refuses the user's name) is left out for as long; where all
// are, the error's RetryAfter is the shortest of these times. It implements core.Registrar.
func (r *Registrars) Register(ctx context.Context, c core.Credential) (core.Registration, error) {
	r.mu.Lock()
	first := r.first
	r.mu.Unlock()
	var failed error
	for i := range r.ways {
		n := (first + i) % len(r.ways)
		err := r.sparedBy(n)
		if err == nil {
			var reg core.Registration
			var kind core.Kind
			reg, kind, err = r.ways[n].try(ctx, c)
			if err == nil || kind != core.Blocked {
				r.mu.Lock()
				r.first = n
				r.mu.Unlock()
				return reg, err
			}
			r.spare(n, err)
		}
		if failed != nil {
			err = fmt.Errorf("%w; and %w", failed, err)
		}
		failed = err
	}
	return core.Registration{}, &core.Error{
		Op: "register by any way", Kind: core.Transient, Phase: core.FaultOf(failed).Phase, RetryAfter: r.left(), Err: failed,
	}
}

// sparedBy returns what a way failed of that must not be tried yet; nil where it may be.
func (r *Registrars) sparedBy(way int) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if left := time.Until(r.spared[way]); left > 0 {
		return fmt.Errorf("not tried for another %v: %w", left.Round(time.Second), r.failed[way])
	}
	return nil
}

// spare notes how a way failed.
func (r *Registrars) spare(way int, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.spared[way], r.failed[way] = time.Now().Add(core.FaultOf(err).RetryAfter), err
}

// left is how long until a way may be tried.
func (r *Registrars) left() time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	return max(0, time.Until(slices.MinFunc(r.spared, time.Time.Compare)))
}
