package bubble_test

import (
	"strings"
	"testing"
	"testing/synctest"

	"github.com/fairlead-iot/fairlead/internal/bubble"
)

func TestItSeesWhatRunsInTheBubbleAlone(t *testing.T) {
	if got := bubble.Goroutines(); len(got) != 0 {
		t.Errorf("outside of a bubble it sees %q", got)
	}
	end := make(chan struct{})
	defer close(end)
	go func() { <-end }() // not in it
	synctest.Test(t, func(t *testing.T) {
		before := len(bubble.Goroutines())
		leave := make(chan struct{})
		go func() { <-leave }()
		synctest.Wait()
		got := bubble.Goroutines()
		if len(got) != before+1 || !strings.Contains(strings.Join(got, ""), "bubble_test.TestItSees") {
			t.Errorf("%d before, and now %q", before, got)
		}
		close(leave)
		synctest.Wait()
		if got := bubble.Goroutines(); len(got) != before {
			t.Errorf("after its end: %q", got)
		}
	})
}
