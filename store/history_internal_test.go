package store

import (
	"io"
	"syscall"
	"testing"
	"time"
)

// fullDisk takes so many bytes, and no more.
type fullDisk struct {
	io.WriteCloser
	room int
}

func (d *fullDisk) Write(p []byte) (int, error) {
	if len(p) <= d.room {
		d.room -= len(p)
		return d.WriteCloser.Write(p)
	}
	n, err := d.WriteCloser.Write(p[:d.room])
	d.room = 0
	if err == nil {
		err = syscall.ENOSPC
	}
	return n, err
}

// TestALineThatAFullDiskCutsShortTakesNoOtherWithIt: the next one begins a line of its own.
func TestALineThatAFullDiskCutsShortTakesNoOtherWithIt(t *testing.T) {
	at := time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)
	for room, damaged := range map[int]int{0: 0, 10: 1} {
		dir := t.TempDir()
		h, err := OpenHistory(dir)
		if err != nil {
			t.Fatal(err)
		}
		disk := h.file
		h.file = &fullDisk{disk, room}
		for range 3 { // what is cut stays cut while nothing more fits
			if err := h.Add(Entry{At: at, What: Lost, Reason: "lost with the disk"}); err == nil {
				t.Fatal("a full disk took it all")
			}
		}
		h.file = disk // somebody has made room
		for _, what := range []string{Started, Connected} {
			if err := h.Add(Entry{At: at, What: what}); err != nil {
				t.Fatal(err)
			}
		}
		if err := h.Close(); err != nil {
			t.Fatal(err)
		}
		got, n, err := ReadHistory(dir)
		if err != nil || n != damaged || len(got) != 2 || got[0].What != Started || got[1].What != Connected {
			t.Errorf("with room for %d bytes: %+v, %d damaged (%v); want both entries, %d damaged", room, got, n, err, damaged)
		}
	}
}
