package sim

import (
	"flag"
	"fmt"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var (
	oneSeed = flag.Uint64("sim.seed", 0, "play this seed alone, and print its transcript if it fails")
	oneBug  = flag.String("sim.bug", "", "plant this bug, by its name in bugs_test.go, and see how it shows")
	seeds   = flag.Uint64("sim.seeds", 0, "how many seeds to play; 0 is 2000, or 300 with the race detector, or 200 with -short")
)

// TestSeeds plays many worlds. A failure names the seed; -sim.seed plays it again.
func TestSeeds(t *testing.T) {
	draw := Draw
	if *oneBug != "" {
		i := slices.IndexFunc(bugs, func(b bug) bool { return b.name == *oneBug })
		if i < 0 {
			t.Fatalf("there is no planted bug %q: the names are in bugs_test.go", *oneBug)
		}
		draw = func(seed uint64) Options {
			o := Draw(seed)
			o.Wrap = bugs[i].wrap
			return o
		}
	}
	if *oneSeed != 0 {
		report(t, draw(*oneSeed))
		return
	}
	n := *seeds
	switch {
	case n > 0:
	case testing.Short():
		n = 200
	case isRace:
		n = 300
	default:
		n = 2000
	}
	var next, failures atomic.Uint64
	sums := make(chan Stats, runtime.GOMAXPROCS(0))
	for range cap(sums) {
		go func() {
			sum := Stats{Faults: map[string]int{}}
			for seed := next.Add(1); seed <= n && failures.Load() < 5; seed = next.Add(1) {
				r := Run(draw(seed))
				if r.Violation != nil {
					failures.Add(1)
					report(t, draw(seed))
				}
				sum.add(r.Stats)
			}
			sums <- sum
		}()
	}
	total := Stats{Faults: map[string]int{}}
	for range cap(sums) {
		total.add(<-sums)
	}
	t.Logf("%d seeds: %+v", n, total)
	if failures.Load() == 0 && n >= 200 {
		checkBusy(t, n, total)
	}
}

func (s *Stats) add(o Stats) {
	s.Steps += o.Steps
	s.Dials += o.Dials
	s.Sessions += o.Sessions
	s.Submitted += o.Submitted
	s.Messages += o.Messages
	s.Methods += o.Methods
	s.Answers += o.Answers
	s.CloudMessages += o.CloudMessages
	s.Changes += o.Changes
	for name, n := range o.Faults {
		s.Faults[name] += n
	}
}

// checkBusy sees to it that the worlds were not idle: promises are easily kept where nothing happens.
func checkBusy(t *testing.T, seeds uint64, s Stats) {
	t.Helper()
	for _, name := range []string{
		"credential fails", "dial refused", "dial hangs", "dial blocked", "token rejected", "throttled", "unavailable", "subscription refused",
		"session forgotten", "answer lost", "answer late", "answer doubled", "session lost", "hub away", "taken over", "stale event",
		"plugin crashed", "plugin hung", "plugin start fails", "handler slow", "twin re-created", "operator", "withdrawn",
		"token short-lived", "wall clock jumped", "clock unset", "operation cancelled", "store full", "change lost",
	} {
		if s.Faults[name] < int(seeds)/10 {
			t.Errorf("fault %q happened %d times in %d seeds", name, s.Faults[name], seeds)
		}
	}
	for name, n := range map[string]int{
		"sessions": s.Sessions, "messages": s.Messages, "methods": s.Methods, "answers": s.Answers, "cloud messages": s.CloudMessages, "changes": s.Changes,
	} {
		if n < int(seeds)*5 {
			t.Errorf("%d %s in %d seeds", n, name, seeds)
		}
	}
}

// report plays a failing seed again for its transcript.
func report(t *testing.T, o Options) {
	t.Helper()
	o.Trace = true
	r := Run(o)
	if r.Violation == nil {
		return
	}
	lines := r.Transcript
	if keep := 150; *oneSeed == 0 && len(lines) > keep {
		lines = append([]string{"…"}, lines[len(lines)-keep:]...)
	}
	again := fmt.Sprintf("go test ./internal/sim -run TestSeeds -sim.seed=%d", o.Seed)
	if *oneBug != "" {
		again += fmt.Sprintf(" -sim.bug=%q", *oneBug)
	}
	t.Errorf("seed %d at commit %s: %v\n%s\nplay it again with: %s", o.Seed, commit(), r.Violation, strings.Join(lines, "\n"), again)
}

func commit() string {
	out, err := exec.Command("git", "describe", "--always", "--dirty").Output()
	if err != nil {
		return "unknown"
	}
	return strings.TrimSpace(string(out))
}

// TestAWorldIsItsSeed: the same seed is the same story to the letter, or no failure could be played again.
func TestAWorldIsItsSeed(t *testing.T) {
	for seed := range uint64(5) {
		o := Draw(seed)
		o.Trace = true
		first := Run(o)
		if diff := cmp.Diff(first, Run(o)); diff != "" {
			t.Errorf("seed %d: the second time (-first +second):\n%s", seed, diff)
		}
		o.Trace = false
		if diff := cmp.Diff(first.Stats, Run(o).Stats); diff != "" {
			t.Errorf("seed %d: without a transcript (-with +without):\n%s", seed, diff)
		}
	}
}

// TestADayWithoutTheHub: what keeps the device out may last. It stays within the day's budget, does not give up, and is
// back after it as after a minute.
func TestADayWithoutTheHub(t *testing.T) {
	for name, f := range map[string]Faults{
		"refused":        {DialRefused: 1},
		"silent":         {DialHangs: 1},
		"token rejected": {TokenRejected: 1},
		"throttled":      {Throttled: 1},
		"unavailable":    {Unavailable: 1},
		"clock unset":    {ClockUnset: 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for seed := range uint64(10) {
				o := Draw(seed + 1)
				o.Duration, o.Faults, o.Routes = 24*time.Hour, f, 1
				r := Run(o)
				if r.Violation != nil {
					t.Errorf("seed %d: %v", o.Seed, r.Violation)
				}
				// The last few follow when the hub is back.
				if n := r.Stats.Dials; n < 100 || n > dialsPerDay {
					t.Errorf("seed %d: %d dials in a day without the hub, want 100 to %d", o.Seed, n, dialsPerDay)
				}
			}
		})
	}
}
