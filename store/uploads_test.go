package store_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fairlead-iot/fairlead/core"
	"github.com/fairlead-iot/fairlead/store"
)

func TestUploadsAreKept(t *testing.T) {
	s := store.Uploads{Dir: filepath.Join(t.TempDir(), "uploads")}
	if got, err := s.Load(); err != nil || got != nil {
		t.Fatalf("nothing saved yet: %v, %v", got, err)
	}
	want := []core.UploadRecord{
		{ID: "a", Number: 1, BlobName: "ü/b", Path: "/x y", State: core.UploadWaiting, Size: 7, ModTime: time.Unix(5, 6).UTC(), File: "1:2", CorrelationID: "c"},
		{ID: "b", Number: 2, BlobName: "b", Path: "/x", State: core.UploadFailed, Reason: "no", Owed: []core.UploadOutcome{{CorrelationID: "d", StatusCode: 403}}},
	}
	for _, r := range want {
		if err := s.Save(r); err != nil {
			t.Fatal(err)
		}
	}
	got, err := s.Load()
	slices.SortFunc(got, func(a, b core.UploadRecord) int { return int(a.Number) - int(b.Number) })
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Fatalf("%v (-want +got):\n%s", err, diff)
	}
	info, err := os.Stat(filepath.Join(s.Dir, "a.json"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if err := s.Remove("a"); err != nil {
		t.Fatal(err)
	}
	if got, err := s.Load(); err != nil || len(got) != 1 || got[0].ID != "b" {
		t.Errorf("after a was removed: %v, %v", got, err)
	}
}

func TestADamagedUploadIsSetAsideAndANewerOneRefused(t *testing.T) {
	s := store.Uploads{Dir: t.TempDir()}
	if err := s.Save(core.UploadRecord{ID: "good", BlobName: "b", Path: "/x"}); err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"", "\x00", `{"version":1}`, `{"version":1,"id":"other","path":"/x","blob_name":"b"}`, `{"version":1,"id":"bad","path":"/x","blob_name":"b","state":"?"}`} {
		if err := os.WriteFile(filepath.Join(s.Dir, "bad.json"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := s.Load(); err != nil || len(got) != 1 || got[0].ID != "good" {
			t.Errorf("beside %q: %v, %v", text, got, err)
		}
		if kept, err := os.ReadFile(filepath.Join(s.Dir, "bad.json.damaged")); err != nil || string(kept) != text {
			t.Errorf("%q is not set aside: %q, %v", text, kept, err)
		}
	}
	if err := os.WriteFile(filepath.Join(s.Dir, "new.json"), []byte(`{"version":2}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Load(); !errors.Is(err, store.ErrNewer) {
		t.Errorf("a newer one: %v", err)
	}
}

// TestOneRecordThatCannotBeReadKeepsNoOtherBack: whatever stands there, and whatever the disk says of it.
func TestOneRecordThatCannotBeReadKeepsNoOtherBack(t *testing.T) {
	var reports []string
	s := store.Uploads{Dir: t.TempDir(), Report: func(err error) { reports = append(reports, err.Error()) }}
	if err := s.Save(core.UploadRecord{ID: "good", BlobName: "b", Path: "/x"}); err != nil {
		t.Fatal(err)
	}
	err := errors.Join(
		os.Mkdir(filepath.Join(s.Dir, "folder.json"), 0o700),
		os.Symlink("loop.json", filepath.Join(s.Dir, "loop.json")),
		// # set aside before, and something of that name is in the way
		os.WriteFile(filepath.Join(s.Dir, "bad.json"), []byte("x"), 0o600),
		os.MkdirAll(filepath.Join(s.Dir, "bad.json.damaged", "full"), 0o700),
	)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 { // nothing goes with the first look
		reports = nil
		if got, err := s.Load(); err != nil || len(got) != 1 || got[0].ID != "good" {
			t.Errorf("%v, %v; want the good one alone", got, err)
		}
		text := strings.Join(reports, "\n")
		if len(reports) != 4 || !strings.Contains(text, "folder.json") || !strings.Contains(text, "loop.json") || !strings.Contains(text, "bad.json is set aside") || !strings.Contains(text, "set a damaged record aside") {
			t.Errorf("reports:\n%s", text)
		}
	}
}
