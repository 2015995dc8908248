package journal

import (
	"encoding/json"
	"errors"
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

func TestTornEndIsDropped(t *testing.T) {
	dir := t.TempDir()
	name := filepath.Join(dir, fileName)
	j := open(t, dir)
	if err := j.Put("kept", 1); err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := j.Put("torn", "some longer value"); err != nil {
		t.Fatal(err)
	}
	whole, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	for cut := len(before); cut < len(whole); cut++ {
		if err := os.WriteFile(name, whole[:cut], 0o600); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(map[string]string{"kept": "1"}, contents(t, open(t, dir))); diff != "" {
			t.Fatalf("cut at %d of %d (-want +got):\n%s", cut, len(whole), diff)
		}
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
