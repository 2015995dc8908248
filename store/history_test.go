package store_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fairlead-iot/fairlead/store"
)

var start = time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)

func openHistory(t *testing.T, dir string) *store.History {
	t.Helper()
	h, err := store.OpenHistory(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = h.Close() })
	return h
}

func add(t *testing.T, h *store.History, entries ...store.Entry) {
	t.Helper()
	for _, e := range entries {
		if err := h.Add(e); err != nil {
			t.Fatal(err)
		}
	}
}

// lines tells the entries in short.
func lines(t *testing.T, dir string) (lines []string, damaged int) {
	t.Helper()
	entries, damaged, err := store.ReadHistory(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		s := fmt.Sprint(e.At.Sub(start), " ", e.What)
		if e.Route != "" {
			s += " by " + e.Route
		}
		if e.Lasted > 0 {
			s += fmt.Sprintf(" after %vs", e.Lasted)
		}
		if e.Renewals > 0 {
			s += fmt.Sprintf(" renewed %d", e.Renewals)
		}
		if e.Count > 0 {
			s += fmt.Sprintf(" ×%d", e.Count)
		}
		if e.Reason != "" {
			s += ": " + e.Reason
		}
		lines = append(lines, s)
	}
	return lines, damaged
}

func at(d time.Duration) time.Time { return start.Add(d) }

func TestTheHistoryTellsWhatEndedTheSessions(t *testing.T) {
	dir := t.TempDir()
	h := openHistory(t, dir)
	add(
		t, h,
		store.Entry{At: at(0), What: store.Started, Version: "v1", PID: 7},
		store.Entry{At: at(1 * time.Second), What: store.Failed, Route: "mqtt", Kind: "blocked", Phase: "tcp", Reason: "no answer"},
		store.Entry{At: at(2 * time.Second), What: store.Connected, Route: "mqttws", Epoch: 2},
		store.Entry{At: at(time.Hour), What: store.Closed, Route: "mqttws", Epoch: 2, Reason: "renewal"},
		store.Entry{At: at(time.Hour), What: store.Connected, Route: "mqttws", Epoch: 3},
		store.Entry{At: at(2 * time.Hour), What: store.Lost, Route: "mqttws", Epoch: 3, Reason: "reset"},
		store.Entry{At: at(2*time.Hour + 2*time.Second), What: store.Connected, Route: "mqttws", Epoch: 4},
		store.Entry{At: at(3 * time.Hour), What: store.Closed, Route: "mqttws", Epoch: 4, Reason: "renewal"},
		store.Entry{At: at(3 * time.Hour), What: store.Failed, Route: "mqttws", Kind: "transient", Phase: "mqtt", Reason: "no CONNACK"},
	)
	want := []string{
		"0s started",
		"1s failed by mqtt ×1: no answer",
		"2s connected by mqttws",
		"2h0m0s lost by mqttws after 7198s renewed 1: reset",
		"2h0m2s connected by mqttws",
		"3h0m0s lost by mqttws after 3598s: the session was closed to be renewed, and the new connection failed",
		"3h0m0s failed by mqttws ×1: no CONNACK",
	}
	got, damaged := lines(t, dir)
	if diff := cmp.Diff(want, got); diff != "" || damaged != 0 {
		t.Errorf("%d damaged (-want +got):\n%s", damaged, diff)
	}
}

// TestALongOutageIsCounted: a week of attempts takes a few lines, and a kill loses no more than the last doubling.
func TestALongOutageIsCounted(t *testing.T) {
	dir := t.TempDir()
	h := openHistory(t, dir)
	add(t, h, store.Entry{At: at(0), What: store.Lost, Route: "mqtt", Reason: "reset"})
	for i := range 1000 {
		add(
			t, h,
			store.Entry{At: at(time.Duration(2*i+1) * time.Minute), What: store.Failed, Route: "mqtt", Kind: "blocked", Phase: "tcp", Reason: fmt.Sprintf("no answer to port %d", 40000+i)},
			store.Entry{At: at(time.Duration(2*i+2) * time.Minute), What: store.Failed, Route: "mqttws", Kind: "transient", Phase: "dns", Reason: "no such host"},
		)
	}
	// The process is killed here: nothing is closed.
	got, _ := lines(t, dir)
	want := []string{
		"0s lost by mqtt: reset",
		"17h3m0s failed by mqtt ×512: no answer to port 40511",
		"17h4m0s failed by mqttws ×512: no such host",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("after a kill (-want +got):\n%s", diff)
	}
	if err := h.Close(); err != nil {
		t.Fatal(err)
	}
	got, _ = lines(t, dir)
	want[1] = "33h19m0s failed by mqtt ×1000: no answer to port 40999"
	want[2] = "33h20m0s failed by mqttws ×1000: no such host"
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("after an orderly end (-want +got):\n%s", diff)
	}
}

func TestTheHistoryIsBounded(t *testing.T) {
	dir := t.TempDir()
	h := openHistory(t, dir)
	for i := range 2000 {
		add(t, h, store.Entry{At: at(time.Duration(i) * time.Second), What: store.Lost, Route: "mqtt", Reason: strings.Repeat("ä", 3000)})
	}
	files, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	size := int64(0)
	for _, f := range files {
		info, err := f.Info()
		if err != nil {
			t.Fatal(err)
		}
		size += info.Size()
		if info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %o, want 600", f.Name(), info.Mode().Perm())
		}
	}
	if size > 64<<10 || len(files) != 2 {
		t.Errorf("%d bytes in %d files, want at most 64 KiB in 2", size, len(files))
	}
	got, damaged := lines(t, dir)
	if len(got) < 30 || damaged != 0 || !strings.HasPrefix(got[len(got)-1], "33m19s") {
		t.Errorf("%d entries, %d damaged, the last %.20q; want at least 30, the newest among them", len(got), damaged, got[len(got)-1])
	}
}

// TestADamagedHistoryIsReadAsFarAsItGoes: a line that was cut short, or a disk's garbage, costs itself only, and the writing
// goes on behind it.
func TestADamagedHistoryIsReadAsFarAsItGoes(t *testing.T) {
	for _, c := range []struct {
		name, tail string
		damaged    int
	}{
		{"cut short", `{"at":"2026-11-25T12:0`, 1},
		{"zeros", strings.Repeat("\x00", 100), 1},
		{"garbage, then sound", "\xff\xfe{]\n{\"at\":\"2026-11-25T12:00:05Z\",\"what\":\"stopped\"}\n", 1},
		{"nothing", "", 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			h := openHistory(t, dir)
			add(t, h, store.Entry{At: at(0), What: store.Started})
			path := filepath.Join(dir, "history.jsonl")
			f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := f.WriteString(c.tail); err != nil {
				t.Fatal(err)
			}
			if err := f.Close(); err != nil {
				t.Fatal(err)
			}
			h = openHistory(t, dir)
			add(t, h, store.Entry{At: at(time.Minute), What: store.Started})
			got, damaged := lines(t, dir)
			if damaged != c.damaged || got[0] != "0s started" || got[len(got)-1] != "1m0s started" {
				t.Errorf("%q, %d damaged; want %d, and both starts", got, damaged, c.damaged)
			}
		})
	}
	t.Run("all of it", func(t *testing.T) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "history.jsonl"), []byte("\x00\x01\x02 garbage"), 0o600); err != nil {
			t.Fatal(err)
		}
		h := openHistory(t, dir)
		add(t, h, store.Entry{At: at(time.Minute), What: store.Started})
		if got, damaged := lines(t, dir); damaged != 1 || len(got) != 1 {
			t.Errorf("%q, %d damaged; want one entry and one damaged line", got, damaged)
		}
	})
}

func TestANewerHistoryIsNotTouched(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "history.jsonl")
	const text = "{\"version\":2}\n{\"then\":\"something else\"}\n"
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := store.OpenHistory(dir); !errors.Is(err, store.ErrNewer) {
		t.Errorf("open: %v, want ErrNewer", err)
	}
	if _, _, err := store.ReadHistory(dir); !errors.Is(err, store.ErrNewer) {
		t.Errorf("read: %v, want ErrNewer", err)
	}
	if got, err := os.ReadFile(path); err != nil || string(got) != text {
		t.Errorf("the file is %q now: %v", got, err)
	}
}

func TestWithoutAHistoryThereAreNoEntries(t *testing.T) {
	if entries, damaged, err := store.ReadHistory(t.TempDir()); err != nil || len(entries) != 0 || damaged != 0 {
		t.Errorf("%v, %d, %v", entries, damaged, err)
	}
}
