package uploads

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/fairlead-iot/fairlead/core"
)

// Waits between tries. They double from the first to the last, with jitter from half to whole.
const (
	retryFirst = time.Second
	retryMax   = 5 * time.Minute
	// throttledMin is the least wait where the hub asked for less, and refusedMin where it refuses the identity.
	throttledMin = 10 * time.Second
	refusedMin   = 30 * time.Second
	// callTries is how often Ask tries.
	callTries = 5
)

// wait returns how long to wait after the n-th failure in a row, from 1.
func wait(n int, kind core.Kind, after time.Duration) time.Duration {
	d := min(retryFirst<<min(n-1, 16), retryMax)
	switch kind {
	case core.Throttled:
		d = max(d, throttledMin)
	case core.Unauthorized, core.Fatal:
		d = max(d, refusedMin)
	case core.Transient, core.Unavailable, core.Blocked, core.Refused, core.TakenOver:
	}
	d = d/2 + rand.N(d/2+1) //nolint:gosec // jitter
	return max(d, after)
}

// Ask calls f, again after a wait where its error passes by itself (Transient, Throttled, Blocked), at most 5 times and
// until ctx ends. It returns f's last error.
func Ask(ctx context.Context, f func(context.Context) error) error {
	for n := 1; ; n++ {
		err := f(ctx)
		if err == nil {
			return nil
		}
		e := asError(err)
		switch e.Kind {
		case core.Transient, core.Unavailable, core.Throttled, core.Blocked:
		case core.Unauthorized, core.Refused, core.Fatal, core.TakenOver:
			return err
		}
		if n == callTries {
			return fmt.Errorf("%w (tried %d times)", err, n)
		}
		t := time.NewTimer(wait(n, e.Kind, e.RetryAfter))
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
			return fmt.Errorf("%w: %w", err, context.Cause(ctx))
		}
	}
}

// asError returns the detail of an error; what has none is transient.
func asError(err error) *core.Error {
	if e, ok := errors.AsType[*core.Error](err); ok {
		return e
	}
	kind := core.Transient
	if errors.Is(err, core.ErrInvalid) || errors.Is(err, core.ErrUnsupported) {
		kind = core.Refused
	}
	return &core.Error{Kind: kind, Err: err}
}
