package mqtt

import (
	"context"
	"fmt"
	"sync/atomic"

	"github.com/fairlead-iot/fairlead/core"
)

// Registrars registers one device by the first of several ways that gets through to the provisioning service. Make it
// with NewRegistrars. It may be used from any goroutine.
type Registrars struct {
	ways  []*Registrar
	first atomic.Int64 // the way that got through last time
}

var _ core.Registrar = (*Registrars)(nil)

// NewRegistrars takes at least one way; the order is that of preference.
func NewRegistrars(first *Registrar, more ...*Registrar) *Registrars {
	return &Registrars{ways: append([]*Registrar{first}, more...)}
}

// Register registers as Registrar does, with 90 s for each way. A way that is blocked gives way to the next at once; any
// other answer counts. It implements core.Registrar.
func (r *Registrars) Register(ctx context.Context, c core.Credential) (core.Registration, error) {
	var failed error
	first := int(r.first.Load())
	for i := range r.ways {
		n := (first + i) % len(r.ways)
		reg, kind, err := r.ways[n].try(ctx, c)
		if err == nil || kind != core.Blocked {
			r.first.Store(int64(n))
			return reg, err
		}
		if failed != nil {
			err = fmt.Errorf("%w; and %w", failed, err)
		}
		failed = err
	}
	return core.Registration{}, failed
}
