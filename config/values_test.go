package config_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fairlead-iot/fairlead/config"
)

// A provisioning payload is whatever JSON can say, as in the Python SDK.
func TestAPayloadIsWhatJSONCanSay(t *testing.T) {
	const before, after = "device: {provisioning: {id_scope: s, registration_id: r, symmetric_key: {env: K}, payload: ", "}}\n"
	for text, want := range map[string]any{
		"{model: x1, deep: {list: [a, 1]}}": map[string]any{"model": "x1", "deep": map[string]any{"list": []any{"a", int64(1)}}},
		"{}":                                map[string]any{},
		"[x1, {rev: 3}, null]":              []any{"x1", map[string]any{"rev": int64(3)}, nil},
		"x1":                                "x1",
		`""`:                                "",
		"3":                                 int64(3),
		"1.5":                               1.5,
		"false":                             false,
		"null":                              nil,
	} {
		c, err := load(t, "c.yaml", map[string]string{"c.yaml": before + text + after}, config.Options{})
		if err != nil {
			t.Errorf("%s: %v", text, err)
			continue
		}
		if diff := cmp.Diff(want, c.Device.Provisioning.Payload.Value); diff != "" {
			t.Errorf("%s (-want +got):\n%s", text, diff)
		}
	}
	_, err := load(t, "c.yaml", map[string]string{"c.yaml": before + "[1, .inf]" + after}, config.Options{})
	if err == nil || !strings.Contains(err.Error(), "device.provisioning.payload[1]: .inf cannot be handed over as JSON") {
		t.Errorf("what JSON cannot say: %v", err)
	}
	c, err := load(t, "gw.yaml", map[string]string{
		"gw.yaml": before + "{model: x1, rev: 3}" + after, "gw.d/site.yaml": "device: {provisioning: {payload: {site: 7}}}\n",
	}, config.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]any{"site": int64(7)}, c.Device.Provisioning.Payload.Value); diff != "" {
		t.Errorf("a later layer (-want +got):\n%s", diff)
	}
}

func TestWarningsSayWhatHasNoEffect(t *testing.T) {
	const inert = ": has no effect: connection_retry is false, so that a lost connection is not made again"
	const unsigned = ": has no effect: with this identity the device signs no token of its own"
	for _, tt := range []struct {
		name, file string
		want       []string
	}{
		{"nothing", identity + "connection: {connection_retry: true, connection_retry_interval: 5s, connection_retry_max: 1m}\n", nil},
		{"retries that are off", identity + "connection: {connection_retry: false}\n", nil},
		{
			"waits before no retries", identity + "connection: {connection_retry: false, connection_retry_interval: 5s, connection_retry_max: 1m}\n",
			[]string{"c.yaml:2:66: connection.connection_retry_interval" + inert, "c.yaml:2:92: connection.connection_retry_max" + inert},
		},
		{
			"the life of tokens that others sign", "device: {sastoken: {file: token}, sastoken_ttl: 1h}\n",
			[]string{"c.yaml:1:49: device.sastoken_ttl" + unsigned},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, err := load(t, "c.yaml", map[string]string{"c.yaml": tt.file}, config.Options{})
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, p := range c.Warnings() {
				got = append(got, p.String())
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}
