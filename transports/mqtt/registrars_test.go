package mqtt

import (
	"context"
	"errors"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fairlead-iot/fairlead/core"
)

// way is a registrar whose connections fail with a kind; "" in calls is noted for each.
func way(t *testing.T, name string, kind *core.Kind, calls *[]string) *Registrar {
	t.Helper()
	r, err := NewRegistrar(RegistrarConfig{
		Host: "dps.example.net", IDScope: "0ne1", RegistrationID: "reg1",
		Open: func(context.Context, core.Credential) (net.Conn, error) {
			*calls = append(*calls, name)
			return nil, &core.Error{Op: "dial " + name, Kind: *kind, Phase: "tcp", Err: errors.New("no luck")}
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestABlockedWayToProvisioningGivesWayToTheNext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first, second := core.Blocked, core.Blocked
		var calls []string
		both := NewRegistrars(way(t, "one", &first, &calls), way(t, "two", &second, &calls))
		try := func(want string) error {
			t.Helper()
			calls = nil
			_, err := both.Register(t.Context(), core.Credential{})
			if err == nil || core.KindOf(err) == core.Blocked {
				t.Errorf("err = %v, want one that is not blocked: it says nothing of the routes to the hub", err)
			}
			if got := strings.Join(calls, " "); got != want {
				t.Errorf("tried %s, want %s", got, want)
			}
			return err
		}
		// # All are blocked: each is tried, and the error names each.
		if err := try("one two"); !strings.Contains(err.Error(), "dial one") || !strings.Contains(err.Error(), "dial two") {
			t.Errorf("%v: want both ways in it", err)
		}
		// # An answer ends the search, whatever it is; the way that it came by is the first next time.
		second = core.Unauthorized
		_ = try("one two")
		_ = try("two")
		// # When that one is blocked, the others have their turn.
		second = core.Blocked
		_ = try("two one")
	})
}

func TestAProxyOnAWayToProvisioningIsSparedAsItAsks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var calls []string
		spare := map[string]time.Duration{"two": time.Minute}
		way := func(name string) *Registrar {
			r, err := NewRegistrar(RegistrarConfig{
				Host: "dps.example.net", IDScope: "0ne1", RegistrationID: "reg1",
				Open: func(context.Context, core.Credential) (net.Conn, error) {
					calls = append(calls, name)
					return nil, &core.Error{Op: "proxy " + name, Kind: core.Blocked, RetryAfter: spare[name], Err: errors.New("no luck")}
				},
			})
			if err != nil {
				t.Fatal(err)
			}
			return r
		}
		both := NewRegistrars(way("one"), way("two"))
		try := func(want string, wait time.Duration) {
			t.Helper()
			calls = nil
			_, err := both.Register(t.Context(), core.Credential{})
			f := core.FaultOf(err)
			if got := strings.Join(calls, " "); got != want || f.RetryAfter != wait || f.Kind != core.Transient {
				t.Errorf("tried %q, and again after %v (%v), want %q and %v", got, f.RetryAfter, f.Kind, want, wait)
			}
			if !strings.Contains(f.Reason, "proxy one") || !strings.Contains(f.Reason, "proxy two") {
				t.Errorf("%v: want what stands in each way", err)
			}
		}
		// # The proxy's no holds up no other way, and is respected by this one.
		try("one two", 0)
		time.Sleep(59 * time.Second)
		try("one", 0)
		time.Sleep(time.Second)
		try("one two", 0)
		// # Where all ask to be spared, the whole is tried again when the first may be.
		spare["one"] = 20 * time.Second
		try("one", 20*time.Second)
		try("", 20*time.Second)
		time.Sleep(20 * time.Second)
		spare["one"] = 0
		try("one", 0)
	})
}
