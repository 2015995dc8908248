package store_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/fairlead-iot/fairlead/store"
)

func TestARouteIsKept(t *testing.T) {
	r := store.Route{Path: filepath.Join(t.TempDir(), "route.json")}
	if _, err := r.Load(); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("nothing saved yet: %v, want ErrNotExist", err)
	}
	for _, name := range []string{"mqttws", "mqtt-2"} {
		if err := r.Save(name); err != nil {
			t.Fatal(err)
		}
		if got, err := r.Load(); err != nil || got != name {
			t.Errorf("load: %q, %v; want %q", got, err, name)
		}
	}
}

func TestARouteThatCannotBeReadIsRefused(t *testing.T) {
	for _, c := range []struct {
		name, text string
		isNewer    bool
	}{
		{"newer", `{"version":2,"route":"x"}`, true},
		{"cut short", `{"version":1,"rou`, false},
		{"garbage", "\x00", false},
		{"no route", `{"version":1}`, false},
		{"no version", `{"route":"x"}`, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := store.Route{Path: filepath.Join(t.TempDir(), "route.json")}
			if err := os.WriteFile(r.Path, []byte(c.text), 0o600); err != nil {
				t.Fatal(err)
			}
			if name, err := r.Load(); err == nil || errors.Is(err, store.ErrNewer) != c.isNewer || errors.Is(err, fs.ErrNotExist) {
				t.Errorf("load: %q, %v", name, err)
			}
		})
	}
}
