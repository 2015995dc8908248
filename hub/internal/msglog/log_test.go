package msglog

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var start = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

func open(t *testing.T, dir string, limits Limits) *Log {
	t.Helper()
	l, err := Open(dir, limits)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

func add(t *testing.T, l *Log, at time.Time, bodies ...string) {
	t.Helper()
	var records []Record
	for _, b := range bodies {
		records = append(records, Record{Time: at, Device: "dev1", Bag: []byte("a=1"), Body: []byte(b)})
	}
	if err := l.Append(records); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, l *Log, seq int64, since time.Time) []string {
	t.Helper()
	r := l.Read(seq, since)
	defer r.Close()
	var got []string
	for {
		rec, ok, err := r.TryNext()
		if err != nil {
			t.Fatal(err)
		}
		if !ok {
			return got
		}
		got = append(got, fmt.Sprintf("%d %s %s %s", rec.Seq, rec.Device, rec.Bag, rec.Body))
	}
}

func TestReadBackAfterTheProcessDied(t *testing.T) {
	for name, onDisk := range map[string]bool{"memory": false, "disk": true} {
		t.Run(name, func(t *testing.T) {
			dir := ""
			if onDisk {
				dir = t.TempDir()
			}
			l := open(t, dir, Limits{})
			add(t, l, start, "one", "two")
			add(t, l, start.Add(time.Minute), "three")
			if onDisk {
				l = open(t, dir, Limits{}) // the first one was never closed
				add(t, l, start.Add(time.Hour), "four")
			} else {
				add(t, l, start.Add(time.Hour), "four")
			}
			all := []string{"1 dev1 a=1 one", "2 dev1 a=1 two", "3 dev1 a=1 three", "4 dev1 a=1 four"}
			if diff := cmp.Diff(all, read(t, l, 0, time.Time{})); diff != "" {
				t.Errorf("all (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(all[1:], read(t, l, 2, time.Time{})); diff != "" {
				t.Errorf("from 2 (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(all[2:], read(t, l, 0, start.Add(time.Second))); diff != "" {
				t.Errorf("since (-want +got):\n%s", diff)
			}
		})
	}
}

func TestTornOrDamagedEndIsCutOff(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir, Limits{})
	add(t, l, start, "kept")
	kept := l.segments[0].size
	add(t, l, start, "torn away")
	name := l.segments[0].name
	whole, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	for cut := range len(whole) {
		if err := os.WriteFile(name, whole[:cut], 0o600); err != nil {
			t.Fatal(err)
		}
		again := open(t, dir, Limits{})
		add(t, again, start, "next")
		want := []string{"1 dev1 a=1 kept", "2 dev1 a=1 next"}
		if cut < int(kept) {
			want = []string{"1 dev1 a=1 next"}
		}
		if diff := cmp.Diff(want, read(t, again, 0, time.Time{})); diff != "" {
			t.Fatalf("cut at %d (-want +got):\n%s", cut, diff)
		}
	}
}

// The same where the torn record, or the torn header, is that of a new segment: the older one stays whole, and numbers go
// on from it.
func TestTornNewSegmentIsCutOff(t *testing.T) {
	dir := t.TempDir()
	limits := Limits{SegmentBytes: 60}
	l := open(t, dir, limits)
	add(t, l, start, "one", "two")
	add(t, l, start, "three", "torn away")
	if len(l.segments) != 2 {
		t.Fatalf("%d segments, want 2", len(l.segments))
	}
	name := l.segments[1].name
	whole, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	_, first, err := parseRecord(whole[fileHeader:])
	if err != nil {
		t.Fatal(err)
	}
	for cut := range len(whole) {
		if err := os.WriteFile(name, whole[:cut], 0o600); err != nil {
			t.Fatal(err)
		}
		again := open(t, dir, limits)
		add(t, again, start, "next")
		want := []string{"1 dev1 a=1 one", "2 dev1 a=1 two", "3 dev1 a=1 next"}
		if cut >= fileHeader+first {
			want = []string{"1 dev1 a=1 one", "2 dev1 a=1 two", "3 dev1 a=1 three", "4 dev1 a=1 next"}
		}
		if diff := cmp.Diff(want, read(t, again, 0, time.Time{})); diff != "" {
			t.Fatalf("cut at %d of %d (-want +got):\n%s", cut, len(whole), diff)
		}
	}
}

func TestOldSegmentsGo(t *testing.T) {
	for name, dir := range map[string]string{"memory": "", "disk": t.TempDir()} {
		t.Run(name, func(t *testing.T) {
			l := open(t, dir, Limits{Bytes: 2000, SegmentBytes: 500, Age: time.Hour})
			behind := l.Read(0, time.Time{})
			defer behind.Close()
			for i := range 200 {
				add(t, l, start, fmt.Sprint("message ", i))
				if i == 0 {
					if _, ok, err := behind.TryNext(); !ok || err != nil {
						t.Fatal(ok, err)
					}
				}
			}
			if l.total > 2500 {
				t.Errorf("the log has %d bytes, limit 2000", l.total)
			}
			got := read(t, l, 0, time.Time{})
			if len(got) == 0 || got[len(got)-1] != "200 dev1 a=1 message 199" {
				t.Errorf("the newest is not there: %v", got)
			}
			last := int64(0)
			for {
				rec, ok, err := behind.TryNext()
				if err != nil {
					t.Fatal(err)
				}
				if !ok {
					break
				}
				if rec.Seq <= last {
					t.Fatalf("record %d after %d", rec.Seq, last)
				}
				last = rec.Seq
			}
			if last != 200 {
				t.Errorf("the reader that fell behind ended at %d", last)
			}
			add(t, l, start.Add(2*time.Hour), "later")
			if n := len(l.segments); n != 1 {
				t.Errorf("%d segments left of an hour ago", n)
			}
			if dir != "" {
				names, err := filepath.Glob(filepath.Join(dir, "*.log"))
				if err != nil || len(names) != 1 {
					t.Errorf("files left: %v, %v", names, err)
				}
			}
		})
	}
}

func TestNextWaitsAndEnds(t *testing.T) {
	l := open(t, "", Limits{})
	got := make(chan string)
	go func() {
		r := l.Read(0, time.Time{})
		defer r.Close()
		for {
			rec, err := r.Next(context.Background())
			if err != nil {
				got <- err.Error()
				return
			}
			got <- string(rec.Body)
		}
	}()
	add(t, l, start, "first")
	if s := <-got; s != "first" {
		t.Fatal(s)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if s := <-got; s != ErrClosed.Error() {
		t.Fatal(s)
	}
}

func TestNewerVersionIsRefused(t *testing.T) {
	dir := t.TempDir()
	l := open(t, dir, Limits{})
	add(t, l, start, "x")
	name := l.segments[0].name
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	binary.LittleEndian.PutUint32(data[len(magic):], 99)
	if err := os.WriteFile(name, data, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir, Limits{}); !errors.Is(err, ErrNewer) {
		t.Errorf("Open: %v, want ErrNewer", err)
	}
}

func FuzzParseRecord(f *testing.F) {
	f.Add(appendRecord(nil, &Record{Seq: 1, Time: start, Device: "d", Bag: []byte("a=b"), Body: []byte("body")}))
	f.Fuzz(func(t *testing.T, in []byte) {
		if _, n, err := parseRecord(in); err == nil && n > len(in) {
			t.Errorf("took %d of %d bytes", n, len(in))
		}
	})
}
