package clock

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fairlead-iot/fairlead/store"
)

// system is a wall clock that somebody sets; it stands still unless the bubble's time moves.
type system struct{ shift atomic.Int64 } // Watch reads it from a goroutine of its own

func (s *system) now() time.Time { return time.Now().Add(time.Duration(s.shift.Load())) }

func (s *system) set(at time.Time) { s.shift.Store(int64(time.Until(at))) }

func (s *system) move(by time.Duration) { s.shift.Add(int64(by)) }

var built = time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)

func make1(t *testing.T, s *system, file string) *Clock {
	t.Helper()
	cfg := Config{Built: built, System: s.now}
	if file != "" {
		cfg.Kept = store.Time{Path: file}
	}
	c, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func wantNow(t *testing.T, c *Clock, want time.Time, doubt string) {
	t.Helper()
	if got := c.Now(); !got.Equal(want) {
		t.Errorf("now is %v, want %v", got, want)
	}
	if got := c.Doubt(); (doubt == "") != (got == "") || !strings.Contains(got, doubt) {
		t.Errorf("doubt %q, want %q", got, doubt)
	}
}

func TestAClockOf1970IsNotBelieved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "clock")
		s := &system{}
		s.set(time.Unix(60, 0))
		c := make1(t, s, file)
		wantNow(t, c, built, "says 1970-01-01T00:01:00Z, before this program was made; 2026-03-01T00:00:00Z is used meanwhile")
		time.Sleep(time.Hour) // what passes is counted
		wantNow(t, c, built.Add(time.Hour), "2026-03-01T01:00:00Z is used meanwhile")
		if err := c.Keep(); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(file); !os.IsNotExist(err) {
			t.Errorf("a wrong time was kept: %v", err)
		}

		right := built.Add(100 * 24 * time.Hour)
		s.set(right)
		wantNow(t, c, right, "")
		if err := c.Keep(); err != nil {
			t.Fatal(err)
		}

		// The next start, without a clock again, goes on from there; one that was set back is believed, and shown.
		s.set(time.Unix(0, 0))
		c = make1(t, s, file)
		wantNow(t, c, right, "before this program was made")
		s.set(right.Add(-2 * time.Hour))
		wantNow(t, c, right.Add(-2*time.Hour), "earlier than when it was connected last (2026-06-09T00:00:00Z)")
		s.set(right.Add(50 * 365 * 24 * time.Hour))
		wantNow(t, c, right.Add(50*365*24*time.Hour), "")
	})
}

func TestAKeptTimeThatCannotBeReadIsAsNone(t *testing.T) {
	for name, text := range map[string]string{"garbage": "{", "a newer version": `{"version":2,"wall":"2030-01-01T00:00:00Z"}`} {
		file := filepath.Join(t.TempDir(), "clock")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		s := &system{}
		s.set(time.Unix(0, 0))
		c, err := New(Config{Built: built, Kept: store.Time{Path: file}, System: s.now})
		if err == nil || !strings.Contains(err.Error(), file) || c.Now().Sub(built) > time.Minute {
			t.Errorf("%s: %v, now %v", name, err, c.Now())
		}
	}
}

func TestJumpsAreSeenAndSlewsAreNot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &system{}
		c := make1(t, s, "")
		ctx, cancel := context.WithCancel(t.Context())
		var seen []time.Duration
		done := make(chan struct{})
		go func() {
			defer close(done)
			c.Watch(ctx, func(by time.Duration) { seen = append(seen, by) })
		}()
		for _, by := range []time.Duration{time.Second, -time.Second, 26 * 365 * 24 * time.Hour, -2 * time.Hour, 365 * 24 * time.Hour, 31 * time.Second} {
			time.Sleep(look + time.Second)
			synctest.Wait()
			s.move(by)
		}
		time.Sleep(look + time.Second)
		cancel()
		<-done
		if want := []time.Duration{26 * 365 * 24 * time.Hour, -2 * time.Hour, 365 * 24 * time.Hour, 31 * time.Second}; !slices.Equal(seen, want) {
			t.Errorf("jumps %v, want %v", seen, want)
		}
	})
}

// A hub, and the authority that vouches for it, know the time when the device does not.
func TestTheHubsTimeIsUsedWhereTheClockIsWrong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "clock")
		s := &system{}
		s.set(time.Unix(0, 0))
		c := make1(t, s, file)
		if !c.IsLost() {
			t.Error("a clock of 1970 is not lost")
		}
		// # The hub's certificate is younger than the program.
		young := built.Add(200 * 24 * time.Hour)
		c.Learn(young)
		time.Sleep(time.Minute)
		wantNow(t, c, young.Add(time.Minute), "2026-09-17T00:01:00Z is used meanwhile")
		c.Learn(built)
		wantNow(t, c, young.Add(time.Minute), "is used meanwhile")
		if !c.IsLost() {
			t.Error("a moment that has passed is not the time")
		}
		s.set(young.Add(-time.Hour))
		wantNow(t, c, young.Add(time.Minute), "before the hub's certificate was made")

		// # The hub says what time it is.
		hub := young.Add(30 * 24 * time.Hour)
		c.Hear(hub)
		time.Sleep(time.Hour)
		wantNow(t, c, hub.Add(time.Hour), "and the hub's 2026-10-17T01:00:00Z, which is used meanwhile")
		if c.IsLost() {
			t.Error("the time is known, and the clock still lost")
		}
		if err := c.Keep(); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(file); !os.IsNotExist(err) {
			t.Errorf("a wrong time was kept: %v", err)
		}

		// # The clock is set, a few minutes ahead: it is believed again, and so is one that the hub agrees with.
		s.set(hub.Add(time.Hour + 4*time.Minute))
		wantNow(t, c, hub.Add(time.Hour+4*time.Minute), "")
		c.Hear(hub.Add(time.Hour))
		s.move(time.Hour)
		wantNow(t, c, hub.Add(2*time.Hour+4*time.Minute), "")

		// # After a jump what the hub said is forgotten.
		c.Hear(hub)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			c.Watch(ctx, func(time.Duration) {})
		}()
		synctest.Wait()
		s.move(24 * time.Hour)
		time.Sleep(look + time.Second)
		synctest.Wait()
		wantNow(t, c, s.now(), "")
		cancel()
		<-done
	})
}
