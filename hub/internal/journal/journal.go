package journal

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
)

// Version of the file format that this package writes.
const Version = 1

// ErrNewer is a file of a later version than this program knows.
var ErrNewer = errors.New("journal: written by a newer version")

const (
	fileName     = "state.journal"
	formatName   = "fairlead-hub-state"
	compactFloor = 4 << 20 // bytes; a smaller file is not worth a rewrite
)

var table = crc32.MakeTable(crc32.Castagnoli)

type header struct {
	Format  string `json:"format"`
	Version int    `json:"version"`
}

type line struct {
	Key   string          `json:"k"`
	Value json.RawMessage `json:"v,omitempty"`
}

// Journal is a set of named JSON values. With an empty directory it is in memory
// only.
type Journal struct {
	mu      sync.Mutex
	dir     string
	file    *os.File
	values  map[string]json.RawMessage
	written int64 // bytes in the file, all of them whole lines
	live    int64 // bytes that a compacted file would have, about
	tidyAt  int64 // size at which compaction is tried, at least compactFloor
	failed  error // closed, or what stands in the file is not known: nothing is written any more
}

// Open reads the journal in dir, or makes one. dir "" means memory only. The
// caller makes sure that one process at a time has the directory.
func Open(dir string) (*Journal, error) {
	j := &Journal{dir: dir, values: map[string]json.RawMessage{}, tidyAt: compactFloor}
	if dir == "" {
		return j, nil
	}
	name := filepath.Join(dir, fileName)
	data, err := os.ReadFile(name) //nolint:gosec // the directory is the user's own
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("read journal: %w", err)
	}
	good, err := j.load(data)
	if err != nil {
		return nil, fmt.Errorf("load journal %s: %w", name, err)
	}
	if good == 0 {
		err = j.compact()
	} else {
		err = j.reopen(int64(good))
	}
	if err != nil {
		return nil, fmt.Errorf("write journal %s: %w", name, err)
	}
	j.tidy()
	return j, nil
}

// reopen goes on with the file that is there. It needs no space, so that a hub
// on a full disk still starts.
func (j *Journal) reopen(good int64) error {
	file, err := os.OpenFile(filepath.Join(j.dir, fileName), os.O_WRONLY|os.O_APPEND, 0o600) //nolint:gosec // the directory is the user's own
	if err != nil {
		return err
	}
	if err := file.Truncate(good); err != nil {
		_ = file.Close() // it is not used
		return err
	}
	j.file, j.written = file, good
	return nil
}

// load takes over what data holds and returns the length of its whole lines,
// header included: 0 when not even that is whole.
func (j *Journal) load(data []byte) (good int, err error) {
	first, rest, whole := bytes.Cut(data, []byte("\n"))
	if begin, err := headerLine(Version); err != nil || !whole && bytes.HasPrefix(begin, first) {
		return 0, err
	}
	var h header
	if err := json.Unmarshal(first, &h); err != nil || h.Format != formatName {
		return 0, errors.New("not a journal of the hub")
	}
	if h.Version > Version {
		return 0, fmt.Errorf("%w: version %d, this program knows %d; use the newer program, or another directory", ErrNewer, h.Version, Version)
	}
	good = len(data) - len(rest)
	j.live = int64(good)
	for number := 2; len(rest) > 0; number++ {
		text, next, whole := bytes.Cut(rest, []byte("\n"))
		if !whole {
			return good, nil // torn by the end of the process
		}
		l, err := parseLine(text)
		if err != nil {
			if len(next) == 0 {
				return good, nil // the same, its end happened to be there
			}
			return 0, fmt.Errorf("line %d: %w", number, err)
		}
		j.set(l)
		rest = next
		good = len(data) - len(rest)
	}
	return good, nil
}

// set changes the value in memory.
func (j *Journal) set(l line) {
	if old, known := j.values[l.Key]; known {
		j.live -= lineSize(l.Key, old)
	}
	if l.Value == nil {
		delete(j.values, l.Key)
		return
	}
	j.values[l.Key] = l.Value
	j.live += lineSize(l.Key, l.Value)
}

// lineSize is about what formatLine gives; keys are never escaped.
func lineSize(key string, value json.RawMessage) int64 {
	return int64(len(`00000000 {"k":"","v":}`+"\n") + len(key) + len(value))
}

func headerLine(version int) ([]byte, error) {
	h, err := json.Marshal(header{formatName, version})
	if err != nil {
		return nil, fmt.Errorf("encode header: %w", err)
	}
	return append(h, '\n'), nil
}

func parseLine(text []byte) (line, error) {
	var l line
	sum, body, ok := bytes.Cut(text, []byte(" "))
	if !ok || string(sum) != fmt.Sprintf("%08x", crc32.Checksum(body, table)) {
		return l, errors.New("checksum does not match")
	}
	if err := json.Unmarshal(body, &l); err != nil {
		return l, fmt.Errorf("parse: %w", err)
	}
	return l, nil
}

func formatLine(l line) ([]byte, error) {
	body, err := json.Marshal(l)
	if err != nil {
		return nil, fmt.Errorf("encode %q: %w", l.Key, err)
	}
	return fmt.Appendf(nil, "%08x %s\n", crc32.Checksum(body, table), body), nil
}

// tidy compacts the file when most of it is history. A failure, as on a full
// disk, loses nothing: the file is good as it is, and later is soon enough.
func (j *Journal) tidy() {
	if j.written <= j.tidyAt || j.written <= 4*j.live {
		return
	}
	j.tidyAt = compactFloor
	if err := j.compact(); err != nil {
		j.tidyAt = 2 * j.written
	}
}

// compact writes what is live to a new file and puts it in the place of the old.
// On an error the old one stays, or the journal has failed.
func (j *Journal) compact() error {
	out, err := headerLine(Version)
	if err != nil {
		return err
	}
	for _, key := range j.keys("") {
		text, err := formatLine(line{key, j.values[key]})
		if err != nil {
			return err
		}
		out = append(out, text...)
	}
	name := filepath.Join(j.dir, fileName)
	tmp := name + ".tmp"
	if err := writeSynced(tmp, out); err != nil {
		return errors.Join(err, os.Remove(tmp)) // the space may be needed
	}
	if j.file != nil {
		_ = j.file.Close() // nothing of it is needed but its name, which some systems give up only then
	}
	renameErr := os.Rename(tmp, name)
	file, err := os.OpenFile(name, os.O_WRONLY|os.O_APPEND, 0o600) //nolint:gosec // as above
	if err != nil {
		j.failed = fmt.Errorf("open journal again: %w", errors.Join(renameErr, err))
		return j.failed
	}
	j.file = file
	if renameErr != nil {
		return renameErr
	}
	j.written, j.live = int64(len(out)), int64(len(out))
	return nil
}

// writeSynced writes a file that is about to replace another: a power cut must
// not leave an empty one in its place.
func writeSynced(name string, data []byte) error {
	file, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600) //nolint:gosec // as above
	if err != nil {
		return err
	}
	_, err = file.Write(data)
	if err == nil {
		err = file.Sync()
	}
	return errors.Join(err, file.Close())
}

// Put stores value under key. It returns when the change survives the process.
// On an error the old value stays, and a later Put may succeed: disks fill and
// empty.
func (j *Journal) Put(key string, value any) error {
	raw, err := json.Marshal(value)
	if err != nil {
		return fmt.Errorf("encode %q: %w", key, err)
	}
	return j.write(line{key, raw})
}

// Delete forgets key; a key that is not there is fine.
func (j *Journal) Delete(key string) error {
	return j.write(line{Key: key})
}

func (j *Journal) write(l line) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if _, known := j.values[l.Key]; l.Value == nil && !known {
		return nil
	}
	if j.dir == "" {
		j.set(l)
		return nil
	}
	if j.failed != nil {
		return j.failed
	}
	text, err := formatLine(l)
	if err != nil {
		return err
	}
	if _, err := j.file.Write(text); err != nil {
		err = fmt.Errorf("write journal: %w", err)
		// Half a line may stand there now, as on a full disk; a further one would be
		// glued to it.
		if cutErr := j.file.Truncate(j.written); cutErr != nil {
			j.failed = errors.Join(err, cutErr)
		}
		return err
	}
	j.written += int64(len(text))
	j.set(l)
	j.tidy()
	return nil
}

// Each calls f for every key with the prefix, in the order of the keys, until f
// returns an error. f must not call the journal.
func (j *Journal) Each(prefix string, f func(key string, value json.RawMessage) error) error {
	j.mu.Lock()
	defer j.mu.Unlock()
	for _, key := range j.keys(prefix) {
		if err := f(key, j.values[key]); err != nil {
			return fmt.Errorf("load %q: %w", key, err)
		}
	}
	return nil
}

func (j *Journal) keys(prefix string) []string {
	var keys []string
	for key := range j.values {
		if strings.HasPrefix(key, prefix) {
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	return keys
}

// Close closes the file. Later writes fail.
func (j *Journal) Close() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.file == nil {
		return nil
	}
	j.failed = errors.New("journal: closed")
	return j.file.Close()
}
