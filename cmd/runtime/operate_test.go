package main

import (
	"strings"
	"testing"

	"github.com/fairlead-iot/fairlead/internal/control"
)

func TestStatusNamesTheDeviceByWhatIsKnown(t *testing.T) {
	t.Parallel()
	registered := control.Provisioning{Host: "dps.test", IDScope: "0ne1", RegistrationID: "sn-7"}
	assigned := registered
	assigned.AssignedHub, assigned.DeviceID, assigned.Since = "hub.test", "gw-7", "2026-05-01T12:00:00Z"
	for _, tt := range []struct {
		name   string
		status control.Status
		want   []string
	}{
		{"a device", control.Status{Hostname: "hub.test", DeviceID: "gw-7"}, []string{"gw-7 at hub.test"}},
		{"a module", control.Status{Hostname: "hub.test", DeviceID: "gw-7", ModuleID: "m"}, []string{"gw-7/m at hub.test"}},
		{
			"before the first assignment",
			control.Status{Provisioning: &registered},
			[]string{"registration sn-7 of 0ne1, not assigned yet", "registration sn-7 of 0ne1: dps.test has not said yet which hub it belongs to"},
		},
		{
			"after it",
			control.Status{Hostname: "hub.test", DeviceID: "gw-7", Provisioning: &assigned},
			[]string{"gw-7 at hub.test", "registration sn-7 of 0ne1: assigned to hub.test since 2026-05-01T12:00:00Z"},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var out strings.Builder
			if err := printStatus(&out, tt.status); err != nil {
				t.Fatal(err)
			}
			rows := map[string]string{}
			for line := range strings.Lines(out.String()) {
				name, text, _ := strings.Cut(line, " ")
				rows[name] = strings.TrimSpace(text)
			}
			for i, name := range []string{"device", "provisioning"}[:len(tt.want)] {
				if rows[name] != tt.want[i] {
					t.Errorf("%s: %q, want %q", name, rows[name], tt.want[i])
				}
			}
		})
	}
}
