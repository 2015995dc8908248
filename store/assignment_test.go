package store_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fairlead-iot/fairlead/store"
)

var (
	request    = store.Request{Host: "dps.test", IDScope: "0ne1", RegistrationID: "gw"}
	assignment = store.Assignment{Hostname: "hub.test", DeviceID: "dev", At: time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)}
)

func TestAnAssignmentIsKept(t *testing.T) {
	dir := t.TempDir()
	s := store.Assignments{Path: filepath.Join(dir, "provisioning.json"), For: request}
	if _, err := s.Load(); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("nothing saved yet: %v, want ErrNotExist", err)
	}
	if err := s.Save(store.Assignment{Hostname: "old", DeviceID: "old"}); err != nil {
		t.Fatal(err)
	}
	if err := s.Save(assignment); err != nil {
		t.Fatal(err)
	}
	got, err := s.Load()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(assignment, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	info, err := os.Stat(s.Path)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o600 {
		t.Errorf("mode %o, want 600", info.Mode().Perm())
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(entries) != 1 {
		t.Errorf("%d files are left, want 1", len(entries))
	}
	s.For.RegistrationID = "other"
	if _, err := s.Load(); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("another registration's: %v, want ErrNotExist", err)
	}
}

func TestLoadRefusesWhatItCannotRead(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"newer", `{"version":2,"hostname":"h","device_id":"d"}`, "run the newer program"},
		{"garbage", "\x00\x01", "invalid character"},
		{"cut short", `{"version":1,"host`, "unexpected end"},
		{"no device", `{"version":1,"hostname":"h"}`, "lacks"},
		{"no version", `{"hostname":"h","device_id":"d"}`, "lacks"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := store.Assignments{Path: filepath.Join(t.TempDir(), "f"), For: request}
			if err := os.WriteFile(s.Path, []byte(c.text), 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := s.Load()
			if err == nil || !strings.Contains(err.Error(), c.want) || errors.Is(err, fs.ErrNotExist) {
				t.Errorf("error %v, want one that says %q", err, c.want)
			}
			if errors.Is(err, store.ErrNewer) != (c.name == "newer") {
				t.Errorf("ErrNewer of %v", err)
			}
		})
	}
}
