package journal

import (
	"encoding/json"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func contents(t *testing.T, j *Journal) map[string]string {
	t.Helper()
	got := map[string]string{}
	if err := j.Each("", func(key string, value json.RawMessage) error {
		got[key] = string(value)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return got
}

func open(t *testing.T, dir string) *Journal {
	t.Helper()
	j, err := Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = j.Close() })
	return j
}

func TestChangesSurviveWithoutClose(t *testing.T) {
	dir := t.TempDir()
	j := open(t, dir)
	for i, key := range []string{"a", "b", "a"} {
		if err := j.Put(key, i); err != nil {
			t.Fatal(err)
		}
	}
	if err := j.Put("c", "gone"); err != nil {
		t.Fatal(err)
	}
	if err := j.Delete("c"); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"a": "2", "b": "1"}
	if diff := cmp.Diff(want, contents(t, open(t, dir))); diff != "" {
		t.Errorf("after a restart (-want +got):\n%s", diff)
	}
}

// Wherever a kill cuts the file, it opens, holds what its whole lines say, and
// takes further changes.
func TestTornEndIsDropped(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, fileName)
	j := open(t, dir)
	size := func() int {
		info, err := os.Stat(name)
		if err != nil {
			t.Fatal(err)
		}
		return int(info.Size())
	}
	type state struct {
		size int
		want map[string]string
	}
	states := []state{{0, map[string]string{}}}
	for _, change := range []func() error{
		func() error { return j.Put("a", 1) },
		func() error { return j.Put("b", "some longer value") },
		func() error { return j.Put("a", map[string]int{"x": 2}) },
		func() error { return j.Delete("b") },
	} {
		if err := change(); err != nil {
			t.Fatal(err)
		}
		states = append(states, state{size(), contents(t, j)})
	}
	whole, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	for cut := range len(whole) + 1 {
		if err := os.WriteFile(name, whole[:cut], 0o600); err != nil {
			t.Fatal(err)
		}
		want := map[string]string{}
		for _, s := range states {
			if s.size <= cut {
				want = maps.Clone(s.want)
			}
		}
		torn := open(t, dir)
		if diff := cmp.Diff(want, contents(t, torn)); diff != "" {
			t.Fatalf("cut at %d of %d (-want +got):\n%s", cut, len(whole), diff)
		}
		if err := torn.Put("later", 3); err != nil {
			t.Fatal(err)
		}
		want["later"] = "3"
		if diff := cmp.Diff(want, contents(t, open(t, dir))); diff != "" {
			t.Fatalf("cut at %d of %d, then continued (-want +got):\n%s", cut, len(whole), diff)
		}
	}
}

func TestFailedCompactionFailsNoWrite(t *testing.T) {
	dir := t.TempDir()
	j := open(t, dir)
	// A directory in the way of the new file.
	if err := os.MkdirAll(filepath.Join(dir, fileName+".tmp", "x"), 0o700); err != nil {
		t.Fatal(err)
	}
	big := make([]byte, 1<<20)
	for i := range 10 {
		big[0] = byte(i)
		if err := j.Put("k", big); err != nil {
			t.Fatalf("put %d: %v", i, err)
		}
	}
	if diff := cmp.Diff(contents(t, j), contents(t, open(t, dir))); diff != "" {
		t.Error(diff)
	}
	if err := os.RemoveAll(filepath.Join(dir, fileName+".tmp")); err != nil {
		t.Fatal(err)
	}
	for range 20 {
		if err := j.Put("k", big); err != nil {
			t.Fatal(err)
		}
	}
	if info, err := os.Stat(filepath.Join(dir, fileName)); err != nil || info.Size() > 12<<20 {
		t.Errorf("%v, %v: it is never compacted", info, err)
	}
}

func TestNewerVersionIsRefused(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, fileName), []byte(`{"format":"fairlead-hub-state","version":99}`+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir); !errors.Is(err, ErrNewer) {
		t.Errorf("Open: %v, want ErrNewer", err)
	}
}

func TestDamageInTheMiddleIsAnError(t *testing.T) {
	dir := t.TempDir()
	text := `{"format":"fairlead-hub-state","version":1}` + "\n00000000 {}\n00000000 {}\n"
	if err := os.WriteFile(filepath.Join(dir, fileName), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir); err == nil {
		t.Error("Open took a journal with a bad line in its middle")
	}
}

func TestCompactionKeepsTheLatest(t *testing.T) {
	dir := t.TempDir()
	j := open(t, dir)
	big := make([]byte, 1<<20)
	for range 10 {
		if err := j.Put("k", big); err != nil {
			t.Fatal(err)
		}
	}
	info, err := os.Stat(filepath.Join(dir, fileName))
	if err != nil {
		t.Fatal(err)
	}
	if info.Size() > 8<<20 {
		t.Errorf("the file has %d bytes for one live value of 1.4 MB", info.Size())
	}
	if err := j.Put("k", "last"); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(map[string]string{"k": `"last"`}, contents(t, open(t, dir))); diff != "" {
		t.Error(diff)
	}
}
