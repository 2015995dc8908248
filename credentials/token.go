package credentials

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/fairlead-iot/fairlead/core"
)

// GivenToken is a core.CredentialSource of a SAS token that somebody else signed, and that can be replaced. Make it with
// NewGivenToken. Its methods may be called from any goroutine.
type GivenToken struct {
	identity core.Identity
	now      func() time.Time

	mu    sync.Mutex
	token Token
}

var _ core.TokenHolder = (*GivenToken)(nil)

// NewGivenToken takes a device's or module's SAS token (sr names one device or module, sig, se; see ReadToken). One that has ended by
// now, the wall clock, is taken too: it can be replaced, or the clock may be wrong. The error wraps core.ErrInvalid.
func NewGivenToken(text core.Secret, now func() time.Time) (*GivenToken, error) {
	if now == nil {
		return nil, fmt.Errorf("make SAS token credential: no clock: %w", core.ErrInvalid)
	}
	t, err := ReadToken(text.Reveal())
	if err != nil {
		return nil, fmt.Errorf("make SAS token credential: %w", err)
	}
	return &GivenToken{identity: t.Identity, now: now, token: t}, nil
}

// Identity names the device or module that the token is for.
func (g *GivenToken) Identity() core.Identity { return g.identity }

// Token returns the present token.
func (g *GivenToken) Token() core.Secret {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.token.Text
}

// Expiry returns when the present token ends.
func (g *GivenToken) Expiry() time.Time {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.token.Expiry
}

// Replace puts another token of the same device or module at the same hub in place of the present one. One that has
// ended is refused. The error wraps core.ErrInvalid and says what is wrong; the present token then stays.
func (g *GivenToken) Replace(text core.Secret) error {
	t, err := ParseToken(text.Reveal(), g.now())
	if err != nil {
		return err
	}
	var field, is string
	switch id := g.identity; {
	case t.Identity.DeviceID != id.DeviceID:
		field, is = "device", id.DeviceID
	case t.Identity.ModuleID != id.ModuleID && id.ModuleID == "":
		field, is = "module", "the device itself"
	case t.Identity.ModuleID != id.ModuleID:
		field, is = "module", id.ModuleID
	case t.Identity.Hostname != id.Hostname:
		field, is = "hub", id.Hostname
	}
	if field != "" {
		return fmt.Errorf("the token is for another %s than this one (%s); to change the identity, change device.sastoken and start again: %w", field, is, core.ErrInvalid)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.token = t
	return nil
}

// Credential hands the token out.
func (g *GivenToken) Credential(ctx context.Context) (core.Credential, error) {
	if err := ctx.Err(); err != nil {
		return core.Credential{}, &core.Error{Op: "hand out SAS token", Kind: core.Transient, Err: context.Cause(ctx)}
	}
	g.mu.Lock()
	t := g.token
	g.mu.Unlock()
	now := g.now()
	c := core.Credential{Token: t.Text, Given: true, Life: t.Expiry.Sub(now)}
	if c.Life <= 0 {
		c.Life = 0
		c.Doubt = fmt.Sprintf("the SAS token ended at %s, and this device's clock says %s: have a new one made, and replace it (fairlead token update, or its file)",
			t.Expiry.Format(time.RFC3339), now.UTC().Format(time.RFC3339))
	}
	return c, nil
}
