package core_test

import (
	"testing"
	"time"

	"github.com/fairlead-iot/fairlead/core"
	"github.com/fairlead-iot/fairlead/core/coretest"
)

func TestDialsInADay(t *testing.T) {
	for _, c := range []struct {
		name        string
		change      func(*core.Config)
		least, most int
	}{
		{"the defaults", func(*core.Config) {}, 150, core.DialBudget},
		{"three routes", func(c *core.Config) { c.Routes = 3 }, 150, core.DialBudget},
		// A wait is drawn from the upper half of what it may be.
		{"a minute", func(c *core.Config) { c.RetryMax = time.Minute }, 24 * 60, 24*60*2 + core.DialBudget},
		{"five seconds", func(c *core.Config) { c.RetryInterval, c.RetryMax = 5*time.Second, 5*time.Second }, 24 * 720, 24*720*2 + core.DialBudget},
		{"no retry", func(c *core.Config) { c.ConnectionRetry = false }, 1, 1},
	} {
		cfg := coretest.DefaultConfig()
		c.change(&cfg)
		if n := core.DialsInADay(cfg); n < c.least || n > c.most {
			t.Errorf("%s: %d dials, want %d to %d", c.name, n, c.least, c.most)
		}
	}
}
