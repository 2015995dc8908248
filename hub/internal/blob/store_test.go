package blob

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func openStore(t *testing.T, dir string) *Store {
	t.Helper()
	s, err := Open(dir, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func putBlocks(t *testing.T, s *Store, key Key, blocks ...string) {
	t.Helper()
	for _, b := range blocks {
		id, content, _ := strings.Cut(b, "=")
		in, err := s.receive(strings.NewReader(content), int64(len(content)), false, &buffers{})
		if err != nil {
			t.Fatal(err)
		}
		if err := s.putBlock(key, id, in); err != nil {
			t.Fatal(err)
		}
		in.end()
	}
}

func anything(*Blob) error { return nil }

func commitBlocks(t *testing.T, s *Store, key Key, ids ...string) {
	t.Helper()
	var list []reference
	for _, id := range ids {
		list = append(list, reference{id, latest})
	}
	if _, err := s.putBlockList(key, list, Properties{}, anything); err != nil {
		t.Fatal(err)
	}
}

func contentOf(t *testing.T, s *Store, key Key) string {
	t.Helper()
	r, err := s.Open(key)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	var out bytes.Buffer
	if err := r.copyTo(&out, 0, r.Blob().Size, &buffers{}); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

// waiting lists the blocks that wait for a commit, as id:size.
func waiting(t *testing.T, s *Store, key Key) string {
	t.Helper()
	_, _, all, err := s.blocks(key)
	if refusal, ok := errors.AsType[*Error](err); ok {
		return refusal.Code
	}
	var text []string
	for _, b := range all {
		text = append(text, fmt.Sprintf("%s:%d", b.ID, b.Size))
	}
	return strings.Join(text, " ")
}

// files lists the segments on disk.
func files(t *testing.T, dir string) []string {
	t.Helper()
	var all []string
	if err := filepath.WalkDir(filepath.Join(dir, "blobs"), func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() && d.Name() != metaFile && d.Name() != keyFile {
			all = append(all, path)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return all
}

func TestEverythingIsThereAfterAnEndWithoutWarning(t *testing.T) {
	dir := t.TempDir()
	key, other, gone := Key{"c", "dev1/ü/b"}, Key{"c", "dev1/other"}, Key{"c", "dev1/gone"}
	s := openStore(t, dir)
	putBlocks(t, s, key, "a=one", "b=two", "c=left out")
	commitBlocks(t, s, key, "b", "a")
	putBlocks(t, s, key, "a=once", "d=more", "a=again")
	putBlocks(t, s, other, "z=waits")
	putBlocks(t, s, gone, "a=x")
	commitBlocks(t, s, gone, "a")
	putBlocks(t, s, gone, "b=y")
	if err := s.remove(gone, anything); err != nil {
		t.Fatal(err)
	}
	want, err := s.Stat(key)
	if err != nil {
		t.Fatal(err)
	}
	// A segment that was being received, as a killed process leaves it.
	seg, err := s.medium.create()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := seg.Write([]byte("half")); err != nil {
		t.Fatal(err)
	}

	s = openStore(t, dir) // the old one is just left: nothing is flushed at an end
	got, err := s.Stat(key)
	if err != nil || got.ETag != want.ETag || !got.Modified.Equal(want.Modified) || got.Size != 6 {
		t.Errorf("after the end %+v, %v; want %+v", got, err, want)
	}
	if text := contentOf(t, s, key); text != "twoone" {
		t.Errorf("it holds %q", text)
	}
	if text := waiting(t, s, key); text != "a:5 d:4" {
		t.Errorf("blocks that wait: %s", text)
	}
	if text := waiting(t, s, other); text != "z:5" {
		t.Errorf("blocks that wait: %s", text)
	}
	if text := waiting(t, s, gone); text != "BlobNotFound" {
		t.Errorf("a deleted blob has %s", text)
	}
	if n := len(files(t, dir)); n != 5 {
		t.Errorf("%d segments on disk, want 2 of the blob and 3 that wait: %v", n, files(t, dir))
	}
	commitBlocks(t, s, key, "a", "d")
	if text := contentOf(t, s, key); text != "againmore" {
		t.Errorf("it holds %q", text)
	}
	if all := s.List("c", "dev1/"); len(all) != 1 || all[0].Key != key {
		t.Errorf("list %v", all)
	}
}

// Each of these is a moment at which a process may end: the new meta is in place, what it replaced is not removed yet.
func TestGarbageOfAnEndInTheMiddleDoesNotComeBack(t *testing.T) {
	dir := t.TempDir()
	key := Key{"c", "b"}
	s := openStore(t, dir)
	putBlocks(t, s, key, "a=old", "b=waits")
	commitBlocks(t, s, key, "a")
	putBlocks(t, s, key, "c=new", "d=dropped")
	r, err := s.Open(key) // as long as someone reads, nothing is removed
	if err != nil {
		t.Fatal(err)
	}
	commitBlocks(t, s, key, "c")
	if n := len(files(t, dir)); n != 3 {
		t.Errorf("%d segments while one reads", n)
	}
	var out bytes.Buffer
	if err := r.copyTo(&out, 0, 3, &buffers{}); err != nil || out.String() != "old" {
		t.Errorf("the reader got %q, %v", &out, err)
	}
	again := openStore(t, dir)
	if text := contentOf(t, again, key); text != "new" || waiting(t, again, key) != "" || len(files(t, dir)) != 1 {
		t.Errorf("after an end it holds %q, waiting %q, on disk %v", text, waiting(t, again, key), files(t, dir))
	}

	putBlocks(t, again, key, "e=more")
	r, err = again.Open(key)
	if err != nil {
		t.Fatal(err)
	}
	if err := again.remove(key, anything); err != nil {
		t.Fatal(err)
	}
	if len(files(t, dir)) != 2 {
		t.Errorf("on disk while one reads: %v", files(t, dir))
	}
	putBlocks(t, again, key, "f=after the deletion")
	third := openStore(t, dir)
	if text := waiting(t, third, key); text != "f:18" || len(files(t, dir)) != 1 {
		t.Errorf("after the deletion wait %q, on disk %v", text, files(t, dir))
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestReadersEndBeforeTheirSegments(t *testing.T) {
	both(t, func(w *world) {
		key := Key{"c", "b"}
		putBlocks(w.T, w.store, key, "a=old")
		commitBlocks(w.T, w.store, key, "a")
		r, err := w.store.Open(key)
		if err != nil {
			w.Fatal(err)
		}
		if err := w.store.remove(key, anything); err != nil {
			w.Fatal(err)
		}
		var out bytes.Buffer
		if err := r.copyTo(&out, 1, 2, &buffers{}); err != nil || out.String() != "ld" {
			w.Errorf("the reader of a deleted blob got %q, %v", &out, err)
		}
		_, _ = r.Close(), r.Close()
		if len(w.store.entries) != 0 {
			w.Errorf("the index holds %v", w.store.entries)
		}
	})
}

func TestBlocksThatNobodyCommitsGoAfterAWeek(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := openStore(t, "")
		old, kept := Key{"c", "old"}, Key{"c", "kept"}
		putBlocks(t, s, old, "a=x")
		putBlocks(t, s, kept, "a=x")
		commitBlocks(t, s, kept, "a")
		putBlocks(t, s, kept, "b=x")
		time.Sleep(uncommittedLife - time.Minute)
		putBlocks(t, s, kept, "c=x") // the week begins again
		time.Sleep(2 * sweepInterval)
		putBlocks(t, s, Key{"c", "any"}, "a=x")
		if waiting(t, s, old) != "BlobNotFound" || waiting(t, s, kept) != "b:1 c:1" || contentOf(t, s, kept) != "x" {
			t.Errorf("after a week wait %q and %q", waiting(t, s, old), waiting(t, s, kept))
		}
	})
	dir, key := t.TempDir(), Key{"c", "b"}
	s := openStore(t, dir)
	putBlocks(t, s, key, "a=x", "b=y")
	age := func(d time.Duration) {
		for _, name := range files(t, dir) {
			if err := os.Chtimes(name, time.Now().Add(-d), time.Now().Add(-d)); err != nil {
				t.Fatal(err)
			}
		}
	}
	age(uncommittedLife - time.Hour)
	if text := waiting(t, openStore(t, dir), key); text != "a:1 b:1" {
		t.Errorf("before a week wait %q", text)
	}
	age(uncommittedLife + time.Hour)
	if text := waiting(t, openStore(t, dir), key); text != "BlobNotFound" || len(files(t, dir)) != 0 {
		t.Errorf("after a week wait %q, on disk %v", text, files(t, dir))
	}
}

func TestAnotherVersionAndOthersFiles(t *testing.T) {
	dir, key := t.TempDir(), Key{"c", "b"}
	s := openStore(t, dir)
	putBlocks(t, s, key, "a=x")
	commitBlocks(t, s, key, "a")
	stray := filepath.Join(dir, "blobs", key.dir(), "notes.txt")
	if err := os.WriteFile(stray, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	if text := contentOf(t, openStore(t, dir), key); text != "x" {
		t.Errorf("it holds %q", text)
	}
	if _, err := os.Stat(stray); err != nil {
		t.Errorf("a file that is not the hub's: %v", err)
	}
	meta := filepath.Join(dir, "blobs", key.dir(), metaFile)
	text, err := os.ReadFile(meta)
	if err != nil {
		t.Fatal(err)
	}
	for replacement, want := range map[string]error{`"version":2`: ErrNewer, `"version":"`: nil} {
		if err := os.WriteFile(meta, bytes.Replace(text, []byte(`"version":1`), []byte(replacement), 1), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := Open(dir, slog.New(slog.DiscardHandler))
		if err == nil || want != nil && !errors.Is(err, want) || !strings.Contains(err.Error(), key.dir()) {
			t.Errorf("meta with %s: %v", replacement, err)
		}
	}
}

func TestMemoryHasALimitAndGivesBack(t *testing.T) {
	m := newMemory(10)
	s := &Store{medium: m, log: slog.New(slog.DiscardHandler), entries: map[string]*entry{}}
	key := Key{"c", "b"}
	receive := func(text string) error {
		in, err := s.receive(strings.NewReader(text), int64(len(text)), false, &buffers{})
		if err != nil {
			return err
		}
		defer in.end()
		return s.putBlock(key, "a", in)
	}
	for range 3 {
		if err := receive("12345"); err != nil {
			t.Fatal(err)
		}
		if err := receive("123456"); !errors.Is(err, errFull) { // the other block of 5 is there
			t.Errorf("more than the limit: %v", err)
		}
	}
	if err := s.putBlock(key, "aa", &received{segment: &memorySegment{memory: m}}); err == nil {
		t.Error("an id of another length was taken")
	}
	commitBlocks(t, s, key)
	if err := s.remove(key, anything); err != nil || m.used != 0 {
		t.Errorf("%d bytes in use after all is gone, %v", m.used, err)
	}
}

// A body that breaks off, or is longer than announced, becomes nothing.
func TestTornBodiesLeaveNothing(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir)
	for _, length := range []int64{3, 5} {
		if _, err := s.receive(strings.NewReader("1234"), length, false, &buffers{}); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("4 bytes of %d: %v", length, err)
		}
	}
	if len(files(t, dir)) != 0 {
		t.Errorf("on disk: %v", files(t, dir))
	}
}

// zeros are bytes without an end, and watch how much memory is in use.
type zeros struct {
	once sync.Once
	peak *uint64
	left int64
}

func (z *zeros) Read(p []byte) (int, error) {
	if z.left == 0 {
		return 0, io.EOF
	}
	n := min(int64(len(p)), z.left)
	z.left -= n
	if z.left < 1<<20 {
		z.once.Do(func() {
			var m runtime.MemStats
			runtime.ReadMemStats(&m)
			*z.peak = max(*z.peak, m.HeapInuse)
		})
	}
	return int(n), nil
}

func TestALargeBlobDoesNotGrowTheHeap(t *testing.T) {
	s := openStore(t, t.TempDir())
	key := Key{"c", "b"}
	const size = 16 << 20
	var before runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	var peak uint64
	for i := range 4 {
		in, err := s.receive(&zeros{left: size, peak: &peak}, size, true, &buffers{})
		if err != nil {
			t.Fatal(err)
		}
		if err := s.putBlock(key, fmt.Sprint(i), in); err != nil {
			t.Fatal(err)
		}
	}
	commitBlocks(t, s, key, "0", "1", "2", "3")
	r, err := s.Open(key)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if err := r.copyTo(io.Discard, 0, 4*size, &buffers{}); err != nil {
		t.Fatal(err)
	}
	if grown := int64(peak) - int64(before.HeapInuse); grown > 8<<20 {
		t.Errorf("the heap grew by %d bytes while %d bytes went through", grown, 4*size)
	}
}
