package main

import (
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/fairlead-iot/fairlead/config"
	"github.com/fairlead-iot/fairlead/core"
)

// loadText loads a configuration from a file in a directory of the test's own.
func loadText(t *testing.T, text string) *config.Config {
	t.Helper()
	name := filepath.Join(t.TempDir(), "c.yaml")
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := config.Load(name, config.Options{Environ: []string{"HOME=/home/dev"}})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestTheKeyInPartsMayBeAModules(t *testing.T) {
	t.Parallel()
	c := loadText(t, "device: {symmetric_key: {hostname: hub.test, device_id: gw-1, module_id: m, key: c2VjcmV0}}\n")
	id, source, err := credential(c, time.Now, slog.New(slog.NewTextHandler(io.Discard, nil)))
	if err != nil {
		t.Fatal(err)
	}
	if want := (core.Identity{Hostname: "hub.test", DeviceID: "gw-1", ModuleID: "m"}); id != want {
		t.Errorf("identity %+v, want %+v", id, want)
	}
	if _, err := source.Credential(t.Context()); err != nil {
		t.Error(err)
	}
}
