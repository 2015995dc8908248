package clock

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"time"
)

const (
	// look is Config.Look where that is not set.
	look = 10 * time.Second
	// jumpFrom is the least difference that counts as a jump: clocks are slewed by less, and hubs tolerate more.
	jumpFrom = 30 * time.Second
	// behindFrom is how much earlier than the kept time, or away from the hub's, a clock must be to be odd: about what hubs
	// tolerate.
	behindFrom = 5 * time.Minute
	// keepAtMost is how often the time is written at most: a device on a bad line must not wear its flash out.
	keepAtMost = 10 * time.Minute
	// KeepEvery is how often a device that stays connected should call Keep.
	KeepEvery = time.Hour
)

// Config says what is known of the time. System is required.
type Config struct {
	// Built is when the program was made; zero where that is unknown.
	Built time.Time
	// Kept is where the time is kept for the next start; nil keeps none.
	Kept Keeper
	// System is the system's wall clock: time.Now.
	System func() time.Time
	// Look is how often Watch compares the wall clock with the monotonic one; 0 means every 10 s.
	Look time.Duration
}

// Keeper keeps a moment beyond the process. Load's error wraps fs.ErrNotExist where there is none.
type Keeper interface {
	Load() (time.Time, error)
	Save(wall time.Time) error
}

// Clock is the wall clock. Make it with New.
type Clock struct {
	cfg    Config
	kept   time.Time     // the time that an earlier run kept
	start  time.Time     // has the monotonic reading
	offset time.Duration // of the wall clock then

	mu     sync.Mutex
	keptAt time.Time // when this run kept the time last
	// learned is the latest moment that is known to have passed, and learnedAt when that came to be known.
	learned, learnedAt time.Time
	// heard is the hub's time at heardAt, where the system's was another one; zero otherwise.
	heard, heardAt time.Time
}

// New makes a clock. A kept time that cannot be read is as none, but for the error that is returned beside the clock.
func New(cfg Config) (*Clock, error) {
	c := &Clock{cfg: cfg, start: time.Now()}
	c.offset = c.offsetNow()
	if cfg.Kept == nil {
		return c, nil
	}
	kept, err := cfg.Kept.Load()
	if errors.Is(err, fs.ErrNotExist) {
		return c, nil
	}
	c.kept = kept
	return c, err
}

// Now returns the best guess of the time.
func (c *Clock) Now() time.Time {
	now := c.cfg.System()
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.guess(now)
}

func (c *Clock) guess(now time.Time) time.Time {
	if hub, ok := c.hubs(now); ok {
		return hub
	}
	if !c.isWrong(now) {
		return now
	}
	best := c.cfg.Built
	if c.kept.After(best) {
		best = c.kept
	}
	best = best.Add(time.Since(c.start))
	if learned := c.learned.Add(time.Since(c.learnedAt)); learned.After(best) {
		best = learned
	}
	return best
}

// hubs returns the hub's time, if it is known and the system's clock says something else.
func (c *Clock) hubs(now time.Time) (time.Time, bool) {
	if c.heard.IsZero() {
		return time.Time{}, false
	}
	hub := c.heard.Add(time.Since(c.heardAt))
	return hub, now.Sub(hub).Abs() > behindFrom
}

// isWrong reports whether the system's clock cannot be right.
func (c *Clock) isWrong(now time.Time) bool { return now.Before(c.cfg.Built) || now.Before(c.learned) }

// IsLost reports whether the system's clock cannot be right and nobody has said yet what time it is: Now is a moment that
// has passed.
func (c *Clock) IsLost() bool {
	now := c.cfg.System()
	c.mu.Lock()
	defer c.mu.Unlock()
	_, ok := c.hubs(now)
	return c.isWrong(now) && !ok
}

// Learn notes a moment that is known to have passed.
func (c *Clock) Learn(passed time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if passed.After(c.learned) {
		c.learned, c.learnedAt = passed, time.Now()
	}
}

// Hear notes the time that a hub says, which has proved who it is. Where the system's clock differs by more than a hub
// tolerates, Now goes by the hub's from now on: until the system's comes to agree, or jumps.
func (c *Clock) Hear(hub time.Time) {
	now := c.cfg.System()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.heard, c.heardAt = time.Time{}, time.Time{}
	if now.Sub(hub).Abs() > behindFrom {
		c.heard, c.heardAt = hub, time.Now()
	}
}

// forget drops what a hub said: the machine may have slept since.
func (c *Clock) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.heard, c.heardAt = time.Time{}, time.Time{}
}

// Doubt says what is odd about the system's clock; "" where nothing is.
func (c *Clock) Doubt() string {
	now := c.cfg.System()
	at := now.UTC().Format(time.RFC3339)
	c.mu.Lock()
	defer c.mu.Unlock()
	best := c.guess(now).UTC().Format(time.RFC3339)
	switch _, isHubs := c.hubs(now); {
	case isHubs:
		return fmt.Sprintf("this device's clock says %s, and the hub's %s, which is used meanwhile: set the clock (NTP)", at, best)
	case now.Before(c.cfg.Built):
		return fmt.Sprintf("this device's clock says %s, before this program was made; %s is used meanwhile: set the clock (NTP)", at, best)
	case c.isWrong(now):
		return fmt.Sprintf("this device's clock says %s, before the hub's certificate was made; %s is used meanwhile: set the clock (NTP)", at, best)
	case now.Add(behindFrom).Before(c.kept):
		return fmt.Sprintf("this device's clock says %s, earlier than when it was connected last (%s): is it right?", at, c.kept.UTC().Format(time.RFC3339))
	default:
		return ""
	}
}

// Keep writes the time down for the next start; call it while a hub accepts the device, which vouches for the clock to
// a degree. A clock that is wrong beyond doubt is not kept.
func (c *Clock) Keep() error {
	now := c.cfg.System()
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, isHubs := c.hubs(now); isHubs || c.cfg.Kept == nil || c.isWrong(now) {
		return nil
	}
	if !c.keptAt.IsZero() && time.Since(c.keptAt) < keepAtMost {
		return nil
	}
	if err := c.cfg.Kept.Save(now); err != nil {
		return err
	}
	c.keptAt = time.Now()
	return nil
}

// offsetNow is how far the wall clock is from the monotonic one.
func (c *Clock) offsetNow() time.Duration {
	return c.cfg.System().Round(0).Sub(c.start.Round(0)) - time.Since(c.start)
}

// Watch calls jumped whenever the wall clock has moved against the monotonic one by more than is slewed: somebody set it,
// or the machine slept. It returns when ctx ends.
func (c *Clock) Watch(ctx context.Context, jumped func(by time.Duration)) {
	tick := time.NewTicker(cmp.Or(c.cfg.Look, look))
	defer tick.Stop()
	last := c.offset // from the start, or a jump before this call would never show
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		now := c.offsetNow()
		by := now - last
		last = now
		if by.Abs() >= jumpFrom {
			c.forget()
			jumped(by)
		}
	}
}
