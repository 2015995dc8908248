package sim

import (
	"flag"
	"fmt"
	"math"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fairlead-iot/fairlead/core"
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
		"route swallowed", "route refusing", "route hollow", "link up", "route chosen",
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

// TestADayWithoutTheHub: what keeps the device out may last. It stays within the day's budget over all its routes, does not
// give up, and is back after it as after a minute.
func TestADayWithoutTheHub(t *testing.T) {
	for name, c := range map[string]struct {
		faults    Faults
		obstacles Obstacles
	}{
		"refused":                      {faults: Faults{DialRefused: 1}},
		"silent":                       {faults: Faults{DialHangs: 1}},
		"token rejected":               {faults: Faults{TokenRejected: 1}},
		"throttled":                    {faults: Faults{Throttled: 1}},
		"unavailable":                  {faults: Faults{Unavailable: 1}},
		"clock unset":                  {faults: Faults{ClockUnset: 1}},
		"two routes refused":           {obstacles: Obstacles{"refusing", "refusing"}},
		"two routes swallowed":         {obstacles: Obstacles{"swallowed", "swallowed"}},
		"two routes throttled":         {Faults{Throttled: 1}, Obstacles{"", ""}},
		"one hollow, one swallowed":    {obstacles: Obstacles{"hollow", "swallowed"}},
		"four routes, of all kinds":    {obstacles: Obstacles{"swallowed", "hollow", "refusing", "swallowed"}},
		"four routes, refused":         {obstacles: Obstacles{"refusing", "refusing", "refusing", "refusing"}},
		"a link that flaps":            {Faults{DialRefused: 1, LinkUpEvery: 20 * time.Second}, nil},
		"two routes, and a link flaps": {Faults{LinkUpEvery: 20 * time.Second}, Obstacles{"refusing", "swallowed"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for seed := range uint64(10) {
				o := Draw(seed + 1)
				o.Duration, o.Faults, o.Obstacles, o.Routes = 24*time.Hour, c.faults, c.obstacles, max(1, len(c.obstacles))
				dials := 0
				o.Dialed = func(at core.Instant, _ int) {
					if at < core.Instant(o.Duration) { // the others follow when the hub is back
						dials++
					}
				}
				if r := Run(o); r.Violation != nil {
					t.Errorf("seed %d: %v", o.Seed, r.Violation)
				}
				if dials < 90 || dials > dialsPerDay {
					t.Errorf("seed %d: %d dials in a day without the hub, want 90 to %d", o.Seed, dials, dialsPerDay)
				}
			}
		})
	}
}

// TestADayOnALesserRoute: the better one is tried again all day, and seldom.
func TestADayOnALesserRoute(t *testing.T) {
	for _, obstacle := range []string{"swallowed", "refusing", "hollow"} {
		t.Run(obstacle, func(t *testing.T) {
			t.Parallel()
			o := Draw(1)
			o.Duration, o.Faults, o.Obstacles, o.Routes = 24*time.Hour, Faults{}, Obstacles{obstacle, ""}, 2
			o.TokenLife = 48 * time.Hour
			limits := core.DefaultLimits()
			o.Limits.ProbeFirst, o.Limits.ProbeMax = limits.ProbeFirst, limits.ProbeMax
			o.Without = []Oracle{Preferred} // two hours between two tries
			tries := 0
			o.Dialed = func(at core.Instant, route int) {
				if route == 0 && at < core.Instant(o.Duration) {
					tries++
				}
			}
			if r := Run(o); r.Violation != nil {
				t.Error(r.Violation)
			}
			if tries < 12 || tries > 32 {
				t.Errorf("the better route was tried %d times in a day, want 12 to 32", tries)
			}
		})
	}
}

// TestAFleetSpreadsOut: devices that lost the hub at the same moment do not come back at the same moments. Their waits are
// spread evenly between half of connection_retry_max and the whole, and no minute has more than its share of attempts.
func TestAFleetSpreadsOut(t *testing.T) {
	const fleet = 150
	var waits []float64
	var minutes [60]int
	for seed := range uint64(fleet) {
		o := Draw(seed + 1)
		o.Duration, o.Faults, o.Routes, o.Latency = 8*time.Hour, Faults{DialRefused: 1}, 1, 20*time.Millisecond
		o.Obstacles = nil
		last := core.Instant(0)
		o.Dialed = func(at core.Instant, _ int) {
			wait := at.Sub(last)
			last = at
			if at < core.Instant(2*time.Hour) || at >= core.Instant(o.Duration) {
				return
			}
			waits = append(waits, wait.Minutes())
			if since := at.Sub(core.Instant(6 * time.Hour)); since >= 0 && since < time.Hour {
				minutes[since/time.Minute]++
			}
		}
		if r := Run(o); r.Violation != nil {
			t.Fatalf("seed %d: %v", o.Seed, r.Violation)
		}
	}
	// Kolmogorov and Smirnov: how far the waits are from an even spread. 1.63/√n is passed by chance once in a hundred
	// samples, and the same seeds are the same sample.
	slices.Sort(waits)
	n, worst := float64(len(waits)), 0.0
	for i, w := range waits {
		want := (w - 5) / 5
		worst = max(worst, math.Abs(want-float64(i)/n), math.Abs(want-float64(i+1)/n))
	}
	if most := 1.63 / math.Sqrt(n); len(waits) < 5000 || worst > most {
		t.Errorf("%d waits are off an even spread by %.4f, want at most %.4f", len(waits), worst, most)
	}
	total := 0
	for _, c := range minutes {
		total += c
	}
	mean := float64(total) / float64(len(minutes))
	for i, c := range minutes {
		if off := math.Abs(float64(c) - mean); off > 4.5*math.Sqrt(mean) {
			t.Errorf("minute %d of the seventh hour has %d attempts of %d devices, on average %.1f", i, c, fleet, mean)
		}
	}
}
