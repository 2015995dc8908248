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
	written int64 // bytes in the file
	live    int64 // bytes that a compacted file would have, about
	failed  error // the first write error; nothing is written after it
}

// Open reads the journal in dir, or makes one. dir "" means memory only. The
// caller makes sure that one process at a time has the directory.
func Open(dir string) (*Journal, error) {
	j := &Journal{dir: dir, values: map[string]json.RawMessage{}}
	if dir == "" {
		return j, nil
	}
	name := filepath.Join(dir, fileName)
	data, err := os.ReadFile(name) //nolint:gosec // the directory is the user's own
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("read journal: %w", err)
	}
	if err := j.load(data); err != nil {
		return nil, fmt.Errorf("load journal %s: %w", name, err)
	}
	if err := j.compact(); err != nil {
		return nil, fmt.Errorf("write journal %s: %w", name, err)
	}
	return j, nil
}

func (j *Journal) load(data []byte) error {
	if len(data) == 0 {
		return nil
	}
	first, rest, _ := bytes.Cut(data, []byte("\n"))
	var h header
	if err := json.Unmarshal(first, &h); err != nil || h.Format != formatName {
		return errors.New("not a journal of the hub")
	}
	if h.Version > Version {
		return fmt.Errorf("%w: version %d, this program knows %d; use the newer program, or another directory", ErrNewer, h.Version, Version)
	}
	for number := 2; len(rest) > 0; number++ {
		text, next, whole := bytes.Cut(rest, []byte("\n"))
		if !whole {
			return nil // torn by the end of the process
		}
		l, err := parseLine(text)
		if err != nil {
			if len(next) == 0 {
				return nil // the same, its end happened to be there
			}
			return fmt.Errorf("line %d: %w", number, err)
		}
		if l.Value == nil {
			delete(j.values, l.Key)
		} else {
			j.values[l.Key] = l.Value
		}
		rest = next
	}
	return nil
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

// compact writes what is live to a new file and puts it in the place of the old.
func (j *Journal) compact() error {
	var out bytes.Buffer
	h, err := json.Marshal(header{formatName, Version})
	if err != nil {
		return fmt.Errorf("encode header: %w", err)
	}
	out.Write(append(h, '\n'))
	for _, key := range j.keys("") {
		text, err := formatLine(line{key, j.values[key]})
		if err != nil {
			return err
		}
		out.Write(text)
	}
	name := filepath.Join(j.dir, fileName)
	tmp := name + ".tmp"
	if err := os.WriteFile(tmp, out.Bytes(), 0o600); err != nil {
		return err
	}
	if err := os.Rename(tmp, name); err != nil {
		return err
	}
	file, err := os.OpenFile(name, os.O_WRONLY|os.O_APPEND, 0o600) //nolint:gosec // as above
	if err != nil {
		return err
	}
	if j.file != nil {
		_ = j.file.Close() // the replaced file; nothing of it is needed
	}
	j.file, j.written, j.live = file, int64(out.Len()), int64(out.Len())
	return nil
}

// Put stores value under key. It returns when the change survives the process.
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
	old, known := j.values[l.Key]
	if l.Value == nil && !known {
		return nil
	}
	if j.dir != "" {
		if j.failed != nil {
			return j.failed
		}
		text, err := formatLine(l)
		if err != nil {
			return err
		}
		if _, err := j.file.Write(text); err != nil {
			// Half a line may stand there now; a further one would be glued to it.
			j.failed = fmt.Errorf("write journal: %w", err)
			return j.failed
		}
		j.written += int64(len(text))
		j.live += int64(len(l.Value)) - int64(len(old))
	}
	if l.Value == nil {
		delete(j.values, l.Key)
	} else {
		j.values[l.Key] = l.Value
	}
	if j.dir != "" && j.written > compactFloor && j.written > 4*j.live {
		if err := j.compact(); err != nil {
			return fmt.Errorf("compact journal: %w", err)
		}
	}
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
