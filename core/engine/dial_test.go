package engine

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fairlead-iot/fairlead/core"
	"github.com/fairlead-iot/fairlead/core/coretest"
)

// lateTransport opens a link late, and then says nothing to CONNECT.
type lateTransport struct {
	opens time.Duration
	tries chan time.Duration // how long each took
}

func (tr *lateTransport) Open(ctx context.Context, _ core.Credential) (core.Link, error) {
	began := time.Now()
	select {
	case <-time.After(tr.opens):
		return &muteLink{tr, began}, nil
	case <-ctx.Done():
		tr.tries <- time.Since(began)
		return nil, &core.Error{Op: "open", Kind: core.Blocked, Err: context.Cause(ctx)}
	}
}

type muteLink struct {
	tr    *lateTransport
	began time.Time
}

func (l *muteLink) Connect(ctx context.Context, _ core.Credential, _ core.Handler) (core.Session, error) {
	<-ctx.Done()
	l.tr.tries <- time.Since(l.began)
	return nil, &core.Error{Op: "connect", Kind: core.Transient, Err: context.Cause(ctx)}
}

func (l *muteLink) Close() error { return nil }

func (tr *lateTransport) Name() string { return "late" }

func TestAWholeDialIsBounded(t *testing.T) {
	for _, c := range []struct{ opens, want time.Duration }{
		{0, 30 * time.Second},
		{20 * time.Second, 30 * time.Second},
		{24 * time.Second, 30 * time.Second},
		{time.Hour, 25 * time.Second},
	} {
		synctest.Test(t, func(t *testing.T) {
			tr := &lateTransport{c.opens, make(chan time.Duration, 10)}
			e := newEngine(t, coretest.NewHub(), func(cfg *Config) { cfg.Transports = []core.Transport{tr} })
			run(t, e)
			go func() { _ = e.Device(0).Connect(t.Context()) }() // it waits for a session, in vain
			if took := <-tr.tries; took != c.want {
				t.Errorf("with a link that opens after %v a dial took %v, want %v", c.opens, took, c.want)
			}
		})
	}
}

// noCredential is a source that has nothing to hand out.
type noCredential struct{}

func (noCredential) Credential(context.Context) (core.Credential, error) {
	return core.Credential{}, errors.New("the file is gone")
}

func TestAnAttemptWithoutACredentialBlamesNoRoute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		happened := make(chan Happening, 100)
		e := newEngine(t, coretest.NewHub(), func(cfg *Config) {
			cfg.Credentials = noCredential{}
			cfg.OnHappening = func(h Happening) {
				select {
				case happened <- h:
				default:
				}
			}
		})
		run(t, e)
		go func() { _ = e.Device(0).Connect(t.Context()) }() // it waits for a session, in vain
		if h := <-happened; h.Kind != AttemptFailed || h.Route != "" || h.Fault.Reason == "" {
			t.Errorf("%+v: want an attempt that failed of its credential, and by no route", h)
		}
	})
}
