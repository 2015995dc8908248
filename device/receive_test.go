package device_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fairlead-iot/fairlead/core"
	"github.com/fairlead-iot/fairlead/core/coretest"
	"github.com/fairlead-iot/fairlead/device"
)

func call(hub *coretest.Hub, id, name, payload string) {
	hub.Push(core.Inbound{Kind: core.InboundMethod, Method: name, RequestID: id, Payload: []byte(payload)})
}

// answers returns what the hub has, "id status payload" a line.
func answers(hub *coretest.Hub) string {
	s, _ := hub.State()
	var got []string
	for _, a := range s.Answers {
		got = append(got, fmt.Sprintf("%s %d %s", a.RequestID, a.Status, a.Payload))
	}
	return strings.Join(got, "\n")
}

func message(hub *coretest.Hub, n int) {
	hub.Push(core.Inbound{Kind: core.InboundMessage, Token: uint64(n), Message: &core.Message{ID: fmt.Sprint(n), Payload: []byte(fmt.Sprint(n))}})
}

func connect(t *testing.T, c *device.Client) {
	t.Helper()
	if err := c.Connect(t.Context()); err != nil {
		t.Fatal(err)
	}
	synctest.Wait()
}

func TestAMethodIsAnsweredLaterFromElsewhere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, hub := start(t)
		later := make(chan *device.MethodRequest, 10)
		c.HandleMethodRequests(func(r *device.MethodRequest) { later <- r })
		c.HandleMethod("own", func(context.Context, json.RawMessage) (int, any, error) { return 204, nil, nil })
		connect(t, c)
		call(hub, "1", "open", `{"valve":7}`)
		call(hub, "2", "own", "")
		call(hub, "3", "slow", "")
		time.Sleep(10 * time.Second)
		first, second := <-later, <-later
		if first.Name == "slow" { // calls come several at once
			first, second = second, first
		}
		if first.Name != "open" || string(first.Payload) != `{"valve":7}` || string(second.Payload) != "null" {
			t.Fatalf("requests: %s %s, %s %s", first.Name, first.Payload, second.Name, second.Payload)
		}
		hub.Lose(reset()) // the answer leaves in the next session
		if err := first.Respond(200, map[string]bool{"open": true}); err != nil {
			t.Fatal(err)
		}
		if err := first.Respond(200, nil); !errors.Is(err, device.ErrInvalid) {
			t.Errorf("a second answer: %v", err)
		}
		if err := second.Respond(200, strings.Repeat("x", core.MaxMethodPayload)); !errors.Is(err, device.ErrTooLarge) {
			t.Errorf("an answer too large: %v", err)
		}
		if err := second.Respond(200, func() {}); !errors.Is(err, device.ErrInvalid) {
			t.Errorf("an answer that does not marshal: %v", err)
		}
		<-second.Done()
		if err := second.Respond(200, nil); !errors.Is(err, device.ErrTimeout) {
			t.Errorf("an answer that comes too late: %v", err)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		want := "2 204 null\n1 200 {\"open\":true}\n3 504 {\"error\":\"plugin \\\"(this process)\\\" gave no answer in time\"}"
		if got := answers(hub); got != want {
			t.Errorf("the hub has\n%s\nwant\n%s", got, want)
		}
		c.HandleMethodRequests(nil)
		call(hub, "4", "open", "")
		synctest.Wait()
		if got := answers(hub); !strings.Contains(got, "4 404") {
			t.Errorf("without a handler: %s", got)
		}
	})
}

func TestALoopOverMethodRequestsAnswersThem(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, hub := start(t)
		connect(t, c)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() {
			for r, err := range c.MethodRequests(ctx, "add") {
				if err != nil {
					ended <- err
					return
				}
				var n int
				_ = json.Unmarshal(r.Payload, &n)
				if err := r.Respond(200, n+1); err != nil {
					t.Errorf("answer: %v", err)
				}
			}
		}()
		synctest.Wait()
		for i := range 3 {
			call(hub, fmt.Sprint(i), "add", fmt.Sprint(i))
			synctest.Wait()
		}
		call(hub, "9", "other", "")
		synctest.Wait()
		if got := answers(hub); !strings.HasPrefix(got, "0 200 1\n1 200 2\n2 200 3\n9 404 ") {
			t.Errorf("the hub has\n%s", got)
		}
		cancel()
		if err := <-ended; !errors.Is(err, device.ErrCancelled) || !errors.Is(err, context.Canceled) {
			t.Errorf("the loop ended with %v", err)
		}
		// What comes between two loops waits for the next one.
		call(hub, "10", "add", "10")
		time.Sleep(5 * time.Second)
		for r, err := range c.MethodRequests(t.Context(), "add") {
			if err != nil {
				t.Fatal(err)
			}
			if err := r.Respond(200, "next"); err != nil {
				t.Fatal(err)
			}
			break
		}
		synctest.Wait()
		if got := answers(hub); !strings.HasSuffix(got, `10 200 "next"`) {
			t.Errorf("the hub has\n%s", got)
		}
		c.HandleMethod("sub", func(context.Context, json.RawMessage) (int, any, error) { return 200, nil, nil })
		for _, err := range c.MethodRequests(t.Context(), "sub") {
			if !errors.Is(err, device.ErrInvalid) {
				t.Errorf("a loop beside a handler: %v", err)
			}
		}
	})
}

func TestALoopOverMessagesCompletesThemInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, hub := start(t)
		connect(t, c)
		var seen []string
		ended := make(chan error, 1)
		go func() {
			for m, err := range c.Messages(t.Context()) {
				if err != nil {
					ended <- err
					return
				}
				seen = append(seen, string(m.Payload))
				switch {
				case string(m.Payload) == "1" && len(seen) == 2:
					m.Abandon()
				case string(m.Payload) == "2":
					m.Reject()
				}
			}
		}()
		synctest.Wait()
		for i := range 4 {
			message(hub, i)
		}
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if s, _ := hub.State(); fmt.Sprint(seen) != "[0 1 1 2 3]" || fmt.Sprint(s.Completed) != "[0 1 2 3]" {
			t.Errorf("the loop saw %v, the hub was told %v", seen, s.Completed)
		}
		status, err := c.Engine().Status(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if l := status.DeadLetters; len(l) != 1 || l[0].Message.ID != "2" {
			t.Errorf("dead letters: %+v", l)
		}
		if err := c.Shutdown(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := <-ended; !errors.Is(err, device.ErrClosed) {
			t.Errorf("after a shutdown the loop ended with %v", err)
		}
	})
}

func TestOneMessageIsReceivedAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, hub := start(t)
		connect(t, c)
		receive := func() (string, error) {
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			defer cancel()
			for m, err := range c.Messages(ctx) {
				if err != nil {
					return "", err
				}
				return string(m.Payload), nil
			}
			return "", nil
		}
		if _, err := receive(); !errors.Is(err, device.ErrTimeout) {
			t.Errorf("nothing came: %v", err)
		}
		message(hub, 1)
		message(hub, 2) // nobody receives when it comes: it waits
		for _, want := range []string{"1", "2"} {
			if got, err := receive(); got != want {
				t.Errorf("received %q, %v, want %s", got, err, want)
			}
			time.Sleep(20 * time.Second)
		}
		if s, _ := hub.State(); fmt.Sprint(s.Completed) != "[1 2]" {
			t.Errorf("completed %v", s.Completed)
		}
	})
}

func TestAPanicInALoopOverMessagesAbandonsTheMessage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, hub := start(t)
		connect(t, c)
		seen := 0
		once := func() {
			defer func() { _ = recover() }()
			for _, err := range c.Messages(t.Context()) {
				if err != nil {
					t.Fatal(err)
				}
				if seen++; seen == 1 {
					panic("at the disco")
				}
				return
			}
		}
		go message(hub, 1)
		once()
		synctest.Wait()
		if s, _ := hub.State(); len(s.Completed) != 0 {
			t.Errorf("completed %v although the loop did not get to its end", s.Completed)
		}
		once()
		synctest.Wait()
		if s, _ := hub.State(); fmt.Sprint(s.Completed) != "[1]" || seen != 2 {
			t.Errorf("completed %v, seen %d times", s.Completed, seen)
		}
	})
}

func TestALoopOverDesiredChangesJoinsWhatItMissed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, hub := start(t)
		hub.SetDesired(map[string]any{"interval": 5}, false)
		connect(t, c)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		var got []string
		var end error
		for d, err := range c.DesiredChanges(ctx) {
			if end = err; err != nil {
				break
			}
			got = append(got, fmt.Sprintf("v%d %s patch %s", d.Version, d.Document, d.Patch))
			if len(got) == 1 { // two changes while the body runs
				hub.SetDesired(map[string]any{"mode": "eco"}, true)
				hub.SetDesired(map[string]any{"interval": 7}, true)
				synctest.Wait()
			}
		}
		want := []string{`v2 {"interval":5} patch `, `v4 {"interval":7,"mode":"eco"} patch {"interval":7,"mode":"eco"}`}
		if strings.Join(got, "\n") != strings.Join(want, "\n") {
			t.Errorf("the loop was given:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
		if !errors.Is(end, device.ErrTimeout) {
			t.Errorf("the loop ended with %v", end)
		}
		c.HandleDesired(func(context.Context, core.Desired) error { return nil })
		for _, err := range c.DesiredChanges(t.Context()) {
			if !errors.Is(err, device.ErrInvalid) {
				t.Errorf("a loop beside a handler: %v", err)
			}
		}
	})
}
