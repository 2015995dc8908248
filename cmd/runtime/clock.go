package main

import (
	"context"
	"path/filepath"
	"time"

	"github.com/fairlead-iot/fairlead/core"
	"github.com/fairlead-iot/fairlead/internal/clock"
	"github.com/fairlead-iot/fairlead/store"
)

// newClock makes the device's clock, which is usable also beside an error.
func newClock(stateDir string, from timeSource) (*clock.Clock, error) {
	return clock.New(clock.Config{Built: from.built, Kept: store.Time{Path: filepath.Join(stateDir, "clock.json")}, System: from.system, Look: from.look})
}

// doubting adds what is odd about the clock to what a source says of its credentials. While the clock is lost, the hub is
// asked first.
func (rt *running) doubting(source core.CredentialSource) core.CredentialSource {
	d := doubtingSource{source, rt}
	if holder, ok := source.(core.TokenHolder); ok {
		return doubtingHolder{d, holder}
	}
	return d
}

type doubtingSource struct {
	source core.CredentialSource
	rt     *running
}

// Credential implements core.CredentialSource.
func (d doubtingSource) Credential(ctx context.Context) (core.Credential, error) {
	if d.rt.clock.IsLost() {
		d.rt.date.ask(ctx)
	}
	c, err := d.source.Credential(ctx)
	if c.Doubt == "" {
		c.Doubt = d.rt.clock.Doubt()
	}
	return c, err
}

type doubtingHolder struct {
	doubtingSource
	holder core.TokenHolder
}

// Replace implements core.TokenHolder.
func (d doubtingHolder) Replace(token core.Secret) error { return d.holder.Replace(token) }

// clockJumped has credentials made again: those made by the old clock may end at another time than was thought. Where the
// hub says that the clock is wrong now, they are made by the hub's.
func (rt *running) clockJumped(ctx context.Context, by time.Duration) {
	rt.date.ask(ctx)
	rt.log.Warn("the clock was set, or the machine slept: the credential is made again", "by", by.Round(time.Second).String(), "now", rt.clock.Now().UTC().Format(time.RFC3339))
	rt.client.Engine().CredentialChanged()
}

// keepTime writes the time down while the hub accepts the device, until ctx ends.
func (rt *running) keepTime(ctx context.Context) {
	connected := make(chan struct{}, 1)
	stop := rt.client.OnConnection(func(c core.Connection) {
		if c.Connected() {
			select {
			case connected <- struct{}{}:
			default:
			}
		}
	})
	defer stop()
	tick := time.NewTicker(clock.KeepEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-connected:
		case <-tick.C:
			if c, err := rt.client.Connection(ctx); err != nil || !c.Connected() {
				continue
			}
		}
		if err := rt.clock.Keep(); err != nil {
			rt.log.Warn("the time is not kept for the next start", "error", err)
		}
	}
}
