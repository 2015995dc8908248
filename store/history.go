package store

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// historyVersion is the version of the files' format.
const historyVersion = 1

// Bounds of the history, in bytes. It has two files: one that is written to, and the one before.
const (
	// historyFileMax is the size at which the file that is written to becomes the one before.
	historyFileMax = 32 << 10
	// historyReasonMax is what is kept of a reason.
	historyReasonMax = 1000
)

// The names of the history's files, in its directory.
const (
	historyName = "history.jsonl"
	historyOld  = "history.old.jsonl"
)

// What an Entry may tell.
const (
	// Started and Stopped are the program's. A Started without a Stopped before it follows a crash, or a failure of the power.
	Started = "started"
	Stopped = "stopped"
	// Connected begins a session; Lost and Closed end it: the one by itself, the other by the device.
	Connected = "connected"
	Lost      = "lost"
	Closed    = "closed"
	// Failed is an attempt, or Count of them, that came to nothing.
	Failed = "failed"
)

// Entry is one thing that happened to the connection.
type Entry struct {
	At   time.Time `json:"at"` // by the wall clock
	What string    `json:"what"`
	// Epoch is the number of the attempt; Route the name of the way that it took.
	Epoch uint64 `json:"epoch,omitempty"`
	Route string `json:"route,omitempty"`
	// Lasted is how long the session was up, in seconds, over its Renewals.
	Lasted   float64 `json:"lasted_s,omitempty"`
	Renewals int     `json:"renewals,omitempty"`
	// Kind, Phase and Reason tell of what it failed: see core.Error. The reason is the newest one's.
	Kind   string `json:"kind,omitempty"`
	Phase  string `json:"phase,omitempty"`
	Reason string `json:"reason,omitempty"`
	// Count is how many attempts by the route failed in this phase and of this kind since First, without a session between.
	Count int        `json:"count,omitempty"`
	First *time.Time `json:"first,omitempty"`
	// Version and PID are the program's, of Started.
	Version string `json:"version,omitempty"`
	PID     int    `json:"pid,omitempty"`
}

type historyHeader struct {
	Version int `json:"version"`
}

// History keeps the last entries in files. It outlives a kill of the process at any moment; a failure of the power may
// take the last entries. Failures are counted, and written at the first, the second, the fourth and so on, so that a long
// outage does not push out what began it. Renewals belong to the session that they prolong.
type History struct {
	dir  string
	file io.WriteCloser
	size int64
	// isCut says that the last line has no end: the disk was full.
	isCut bool

	failures map[failureKey]*failure
	order    []failureKey
	// session is the one that lives, since began; renewed says that it was closed for a renewal that is not up yet.
	session  *Entry
	began    time.Time
	renewals int
	renewed  bool
}

type failureKey struct{ route, kind, phase string }

type failure struct {
	entry   Entry
	written int
}

// OpenHistory opens the history in a directory, or begins one. Its error wraps ErrNewer where the files must not be
// touched. One value at a time writes.
func OpenHistory(dir string) (*History, error) {
	h := &History{dir: dir, failures: map[failureKey]*failure{}}
	path := filepath.Join(dir, historyName)
	text, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("open history: %w", err)
	}
	if len(text) > 0 {
		if err := checkHeader(path, text); errors.Is(err, ErrNewer) {
			return nil, fmt.Errorf("open history: %w", err)
		} else if err != nil {
			return h, h.rotate() // what is left of it is still read
		}
	}
	if err := h.open(); err != nil {
		return nil, fmt.Errorf("open history: %w", err)
	}
	n := len(text)
	h.isCut = n > 0 && text[n-1] != '\n'
	return h, nil
}

func checkHeader(path string, text []byte) error {
	first, _, _ := bytes.Cut(text, []byte{'\n'})
	var header historyHeader
	if err := json.Unmarshal(first, &header); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if header.Version > historyVersion {
		return fmt.Errorf("%s has version %d, and this program knows %d: %w; run the newer program, or delete the file", path, header.Version, historyVersion, ErrNewer)
	}
	return nil
}

// open opens the file to write to, with a header if it is new.
func (h *History) open() error {
	f, err := os.OpenFile(filepath.Join(h.dir, historyName), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err != nil {
		_ = f.Close()
		return err
	}
	h.file, h.size = f, info.Size()
	if h.size > 0 {
		return nil
	}
	h.isCut = false
	text, err := json.Marshal(historyHeader{historyVersion})
	if err != nil {
		return err
	}
	return h.write(append(text, '\n'))
}

func (h *History) write(line []byte) error {
	if h.isCut {
		line = append([]byte{'\n'}, line...) // that one is lost, this one is not
	}
	n, err := h.file.Write(line)
	h.size += int64(n)
	if n > 0 {
		h.isCut = line[n-1] != '\n'
	}
	if err != nil {
		return fmt.Errorf("write history: %w", err)
	}
	return nil
}

// rotate makes the file that is written to the one before.
func (h *History) rotate() error {
	if h.file != nil {
		_ = h.file.Close() // a rename follows, and what was written is in the system's hands
		h.file = nil
	}
	if err := os.Rename(filepath.Join(h.dir, historyName), filepath.Join(h.dir, historyOld)); err != nil {
		return fmt.Errorf("rotate history: %w", err)
	}
	if err := h.open(); err != nil {
		return fmt.Errorf("rotate history: %w", err)
	}
	return nil
}

func (h *History) put(e Entry) error {
	if len(e.Reason) > historyReasonMax {
		e.Reason = strings.ToValidUTF8(e.Reason[:historyReasonMax], "") + "…"
	}
	line, err := json.Marshal(e)
	if err != nil {
		return fmt.Errorf("write history: %w", err)
	}
	if h.file == nil { // a disk that was full is perhaps not any more
		if err := h.open(); err != nil {
			return fmt.Errorf("write history: %w", err)
		}
	}
	if h.size+int64(len(line))+1 > historyFileMax {
		if err := h.rotate(); err != nil {
			return err
		}
	}
	return h.write(append(line, '\n'))
}

// renewal is the reason of a Closed that belongs to its session.
const renewal = "renewal"

// Add takes an entry. Its error says that the disk did not take it; the next one may be taken.
func (h *History) Add(e Entry) error {
	switch e.What {
	case Failed:
		var first error
		if h.renewed { // the session ends here after all
			h.renewed = false
			first = h.endSession(Entry{At: e.At, What: Lost, Route: h.session.Route, Epoch: h.session.Epoch, Reason: "the session was closed to be renewed, and the new connection failed"})
		}
		return errors.Join(first, h.fail(e))
	case Connected:
		if h.renewed {
			h.renewed = false
			h.renewals++
			return nil
		}
		first := h.flush()
		h.session, h.began, h.renewals = &e, e.At, 0
		return errors.Join(first, h.put(e))
	case Closed:
		if e.Reason == renewal {
			h.renewed = h.session != nil
			return nil
		}
		return h.endSession(e)
	case Lost:
		return h.endSession(e)
	default:
		return errors.Join(h.flush(), h.put(e))
	}
}

func (h *History) endSession(e Entry) error {
	if h.session != nil {
		e.Lasted = e.At.Sub(h.began).Round(time.Millisecond).Seconds()
		e.Renewals = h.renewals
	}
	h.session, h.renewed = nil, false
	return h.put(e)
}

func (h *History) fail(e Entry) error {
	key := failureKey{e.Route, e.Kind, e.Phase}
	f := h.failures[key]
	if f == nil {
		first := e.At
		e.First = &first
		f = &failure{}
		h.failures[key], h.order = f, append(h.order, key)
	} else {
		e.First = f.entry.First
	}
	e.Count = f.entry.Count + 1
	f.entry = e
	if e.Count&(e.Count-1) != 0 {
		return nil // not a power of two
	}
	f.written = e.Count
	return h.put(e)
}

// flush writes the counts that have not been written, and begins to count anew.
func (h *History) flush() error {
	var errs error
	for _, key := range h.order {
		if f := h.failures[key]; f.written < f.entry.Count {
			errs = errors.Join(errs, h.put(f.entry))
		}
	}
	clear(h.failures)
	h.order = h.order[:0]
	return errs
}

// Close writes what has been counted, and ends the writing.
func (h *History) Close() error {
	err := h.flush()
	if h.file != nil {
		err = errors.Join(err, h.file.Close())
		h.file = nil
	}
	return err
}

// ReadHistory returns the entries in a directory, oldest first, and how many lines could not be read: what a crash cut
// short, or a disk lost. Of failures that were counted the last count stands. It may be called while another process
// writes. Its error wraps ErrNewer where a newer program has written them; where there is no history there are no entries.
func ReadHistory(dir string) (entries []Entry, damaged int, err error) {
	counted := map[string]int{} // where the entry of a count stands
	for _, name := range []string{historyOld, historyName} {
		path := filepath.Join(dir, name)
		text, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, 0, fmt.Errorf("read history: %w", err)
		}
		if err := checkHeader(path, text); errors.Is(err, ErrNewer) {
			return nil, 0, fmt.Errorf("read history: %w", err)
		}
		scanner := bufio.NewScanner(bytes.NewReader(text))
		scanner.Buffer(nil, 2*historyFileMax)
		for n := 0; scanner.Scan(); n++ {
			var e Entry
			if json.Unmarshal(scanner.Bytes(), &e) != nil || e.What == "" {
				var header historyHeader
				if n > 0 || json.Unmarshal(scanner.Bytes(), &header) != nil || header.Version == 0 {
					damaged++
				}
				continue
			}
			if e.What == Failed && e.First != nil {
				key := e.Route + "\n" + e.Kind + "\n" + e.Phase + "\n" + e.First.String()
				if i, ok := counted[key]; ok {
					entries[i] = e
					continue
				}
				counted[key] = len(entries)
			}
			entries = append(entries, e)
		}
		if scanner.Err() != nil {
			damaged++
		}
	}
	return entries, damaged, nil
}
