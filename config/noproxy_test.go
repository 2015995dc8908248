package config

import "testing"

func TestCheckNoProxy(t *testing.T) {
	for _, good := range []string{
		"localhost", "*", ".plant.lan", "*.plant.lan", "a.example, b.example:8883", "10.0.0.0/8,10.1.2.3", "10.1.2.3:443", "fd00::/8", "::1", "[fd00::1]:443",
	} {
		if wrong := checkNoProxy(good); wrong != "" {
			t.Errorf("%q: %s", good, wrong)
		}
	}
	for _, bad := range []string{"http://a.example", "a.example b.example", "a.example,", "a.example:0", "a.example:https", "10.0.0.0/33", ""} {
		if checkNoProxy(bad) == "" {
			t.Errorf("%q is taken", bad)
		}
	}
}
