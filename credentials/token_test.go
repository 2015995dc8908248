package credentials_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/fairlead-iot/fairlead/core"
	"github.com/fairlead-iot/fairlead/credentials"
)

func token(resource string, end time.Time) core.Secret {
	return core.Secret(fmt.Sprintf("SharedAccessSignature sr=%s&sig=c2lnbmF0dXJl&se=%d", strings.ReplaceAll(resource, "/", "%2F"), end.Unix()))
}

func TestAGivenTokenIsHandedOutUntilItIsReplaced(t *testing.T) {
	now := noon
	g, err := credentials.NewGivenToken(token("hub.test/devices/d/modules/m", noon.Add(time.Minute)), func() time.Time { return now })
	if err != nil {
		t.Fatal(err)
	}
	if id := g.Identity(); id != (core.Identity{Hostname: "hub.test", DeviceID: "d", ModuleID: "m"}) {
		t.Errorf("identity %+v", id)
	}
	first, err := g.Credential(t.Context())
	if err != nil || first.Life != time.Minute || !first.Given || first.Doubt != "" {
		t.Errorf("first: %+v, %v", first, err)
	}
	now = noon.Add(time.Hour)
	ended, err := g.Credential(t.Context())
	if err != nil || ended.Life != 0 || ended.Token != first.Token ||
		!strings.HasPrefix(ended.Doubt, "the SAS token ended at 2026-05-01T12:01:00Z, and this device's clock says 2026-05-01T13:00:00Z: have a new one made") {
		t.Errorf("ended: %+v, %v", ended, err)
	}
	next := token("hub.test/devices/d/modules/m", noon.Add(2*time.Hour))
	if err := g.Replace(next + "\n"); err != nil {
		t.Fatal(err)
	}
	if c, err := g.Credential(t.Context()); err != nil || c.Token != next || c.Life != time.Hour || !g.Expiry().Equal(noon.Add(2*time.Hour)) {
		t.Errorf("replaced: %+v, %v", c, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := g.Credential(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("with an ended context: %v", err)
	}
}

func TestAReplacementMustBeOfTheSameIdentity(t *testing.T) {
	end := noon.Add(time.Hour)
	device, err := credentials.NewGivenToken(token("hub.test/devices/d", end), clock)
	if err != nil {
		t.Fatal(err)
	}
	module, err := credentials.NewGivenToken(token("hub.test/devices/d/modules/m", end), clock)
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name string
		of   *credentials.GivenToken
		text core.Secret
		want string
	}{
		{"another device", device, token("hub.test/devices/D", end), "for another device than this one (d)"},
		{"a module's for a device", device, token("hub.test/devices/d/modules/m", end), "for another module than this one (the device itself)"},
		{"a device's for a module", module, token("hub.test/devices/d", end), "for another module than this one (m)"},
		{"another hub", device, token("other.test/devices/d", end), "for another hub than this one (hub.test)"},
		{"a hub's", device, token("hub.test", end), "sr must name one device or module"},
		{"one that has ended", device, token("hub.test/devices/d", noon.Add(-time.Second)), "it expired at 2026-05-01T11:59:59Z"},
		{"no token", device, "HostName=hub.test", "it must begin with SharedAccessSignature and a space"},
		{"empty", device, "", "it must begin with SharedAccessSignature and a space"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			err := tt.of.Replace(tt.text)
			if err == nil || !strings.Contains(err.Error(), tt.want) || !errors.Is(err, core.ErrInvalid) || strings.Contains(err.Error(), "c2lnbmF0dXJl") {
				t.Errorf("got %v, want ErrInvalid with %q and without the signature", err, tt.want)
			}
			if !tt.of.Expiry().Equal(end) {
				t.Error("the present token went")
			}
		})
	}
	if _, err := credentials.NewGivenToken("nonsense", clock); !errors.Is(err, core.ErrInvalid) {
		t.Errorf("nonsense: %v", err)
	}
	if _, err := credentials.NewGivenToken(token("hub.test/devices/d", end), nil); !errors.Is(err, core.ErrInvalid) {
		t.Errorf("no clock: %v", err)
	}
}
