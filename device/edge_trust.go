package device

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"sync"

	"github.com/fairlead-iot/fairlead/core"
)

// EdgeTrust says by which authorities a module knows its Edge hub, and asks again when that is needed: the IoT Edge runtime
// gives the Edge hub a certificate of another authority when the device's own is replaced, and a module goes on running.
type EdgeTrust struct {
	// Bundle returns the authorities, PEM, as credentials.EdgeEnvironment.TrustBundle does.
	Bundle func(ctx context.Context) ([]byte, error)
	// Transports makes the routes that trust these authorities, always as many.
	Transports func(authorities []byte) ([]core.Transport, error)
}

// Routes asks for the authorities, and returns routes that ask again when the Edge hub is not to be known by them. Where
// the answer is another one than before, the Edge hub is dialed by it at once.
func (t EdgeTrust) Routes(ctx context.Context) ([]core.Transport, error) {
	s := &edgeTrust{cfg: t}
	if _, err := s.refresh(ctx, nil); err != nil {
		return nil, err
	}
	var out []core.Transport
	for i, inner := range s.transports {
		out = append(out, &edgeRoute{trust: s, index: i, name: inner.Name()})
	}
	return out, nil
}

// edgeTrust is what the routes share.
type edgeTrust struct {
	cfg EdgeTrust

	mu         sync.Mutex
	bundle     []byte
	transports []core.Transport
}

// current returns the route that trusts what is trusted now.
func (s *edgeTrust) current(index int) (t core.Transport, bundle []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.transports[index], s.bundle
}

// refresh asks for the authorities in place of those that were of no use, and reports whether there are others now.
func (s *edgeTrust) refresh(ctx context.Context, useless []byte) (changed bool, err error) {
	bundle, err := s.cfg.Bundle(ctx)
	if err != nil {
		return false, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if bytes.Equal(bundle, s.bundle) {
		return !bytes.Equal(s.bundle, useless), nil
	}
	transports, err := s.cfg.Transports(bundle)
	if err != nil {
		return false, err
	}
	if s.transports != nil && len(transports) != len(s.transports) {
		return false, fmt.Errorf("device: %w: %d routes to the Edge hub, and there were %d", core.ErrInvalid, len(transports), len(s.transports))
	}
	s.bundle, s.transports = bundle, transports
	return true, nil
}

// edgeRoute is a route by whatever is trusted now.
type edgeRoute struct {
	trust *edgeTrust
	index int
	name  string
}

// Name implements core.Transport.
func (r *edgeRoute) Name() string { return r.name }

// Open implements core.Transport.
func (r *edgeRoute) Open(ctx context.Context, c core.Credential) (core.Link, error) {
	inner, bundle := r.trust.current(r.index)
	l, err := inner.Open(ctx, c)
	if _, unknown := errors.AsType[x509.UnknownAuthorityError](err); !unknown {
		return l, err
	}
	changed, again := r.trust.refresh(ctx, bundle)
	switch {
	case again != nil:
		return nil, &core.Error{Op: "open " + r.name, Kind: core.KindOf(err), Err: fmt.Errorf("%w (and the IoT Edge runtime does not say whom else to trust: %w)", err, again)}
	case !changed:
		return nil, err
	}
	inner, _ = r.trust.current(r.index)
	return inner.Open(ctx, c)
}
