package clock

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"
)

const (
	// look is how often Watch compares the wall clock with the monotonic one.
	look = 10 * time.Second
	// jumpFrom is the least difference that counts as a jump: clocks are slewed by less, and hubs tolerate more.
	jumpFrom = 30 * time.Second
	// behindFrom is how much earlier than the kept time a clock must be to be odd.
	behindFrom = 5 * time.Minute
	// keepAtMost is how often the time is written at most: a device on a bad line must not wear its flash out.
	keepAtMost = 10 * time.Minute
	// KeepEvery is how often a device that stays connected should call Keep.
	KeepEvery = time.Hour
	// formatVersion is that of the kept file.
	formatVersion = 1
)

// Config says what is known of the time. System is required.
type Config struct {
	// Built is when the program was made; zero where that is unknown.
	Built time.Time
	// State is the file of the kept time; "" keeps none.
	State string
	// System is the system's wall clock: time.Now.
	System func() time.Time
}

// Clock is the wall clock. Make it with New.
type Clock struct {
	cfg   Config
	kept  time.Time // the time that an earlier run kept
	start time.Time // has the monotonic reading

	mu     sync.Mutex
	keptAt time.Time // when this run kept the time last
}

// kept is the file's form.
type kept struct {
	Version int       `json:"version"`
	Wall    time.Time `json:"wall"`
}

// New makes a clock. A kept file that cannot be read is as none, but for the error that is returned beside the clock.
func New(cfg Config) (*Clock, error) {
	c := &Clock{cfg: cfg, start: time.Now()}
	if cfg.State == "" {
		return c, nil
	}
	text, err := os.ReadFile(cfg.State)
	if errors.Is(err, fs.ErrNotExist) {
		return c, nil
	}
	var k kept
	if err == nil {
		err = json.Unmarshal(text, &k)
	}
	if err == nil && k.Version > formatVersion {
		err = fmt.Errorf("its version %d is newer than this program, which knows %d", k.Version, formatVersion)
	}
	if err != nil {
		return c, fmt.Errorf("read the kept time from %s: %w", cfg.State, err)
	}
	c.kept = k.Wall
	return c, nil
}

// Now returns the best guess of the time.
func (c *Clock) Now() time.Time {
	now := c.cfg.System()
	if !c.isWrong(now) {
		return now
	}
	floor := c.cfg.Built
	if c.kept.After(floor) {
		floor = c.kept
	}
	return floor.Add(time.Since(c.start))
}

// isWrong reports whether the system's clock cannot be right.
func (c *Clock) isWrong(now time.Time) bool { return now.Before(c.cfg.Built) }

// Doubt says what is odd about the system's clock; "" where nothing is.
func (c *Clock) Doubt() string {
	now := c.cfg.System()
	at := now.UTC().Format(time.RFC3339)
	switch {
	case c.isWrong(now):
		return fmt.Sprintf("this device's clock says %s, before this program was made; %s is used meanwhile: set the clock (NTP)", at, c.Now().UTC().Format(time.RFC3339))
	case now.Add(behindFrom).Before(c.kept):
		return fmt.Sprintf("this device's clock says %s, earlier than when it was connected last (%s): is it right?", at, c.kept.UTC().Format(time.RFC3339))
	default:
		return ""
	}
}

// Keep writes the time down for the next start; call it while a hub accepts the device, which vouches for the clock to a degree.
// A clock that is wrong beyond doubt is not kept.
func (c *Clock) Keep() error {
	now := c.cfg.System()
	if c.cfg.State == "" || c.isWrong(now) {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.keptAt.IsZero() && time.Since(c.keptAt) < keepAtMost {
		return nil
	}
	text, err := json.Marshal(kept{Version: formatVersion, Wall: now.UTC().Round(0)})
	if err == nil {
		err = write(c.cfg.State, append(text, '\n'))
	}
	if err != nil {
		return fmt.Errorf("keep the time in %s: %w", c.cfg.State, err)
	}
	c.keptAt = time.Now()
	return nil
}

// write replaces a file in one step that a power cut leaves whole.
func write(name string, text []byte) (err error) {
	f, err := os.CreateTemp(filepath.Dir(name), filepath.Base(name)+".*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(f.Name())
		}
	}()
	_, err = f.Write(text)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), name)
}

// Watch calls jumped whenever the wall clock has moved against the monotonic one by more than is slewed: somebody set it,
// or the machine slept. It returns when ctx ends.
func (c *Clock) Watch(ctx context.Context, jumped func(by time.Duration)) {
	tick := time.NewTicker(look)
	defer tick.Stop()
	offset := func() time.Duration { return c.cfg.System().Round(0).Sub(c.start.Round(0)) - time.Since(c.start) }
	last := offset()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		now := offset()
		by := now - last
		last = now
		if by.Abs() >= jumpFrom {
			jumped(by)
		}
	}
}
