package blob

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
)

const (
	metaFile = "meta.json"
	tempDir  = "tmp"
)

// disk keeps each blob as a directory of its segments and meta.json.
type disk struct {
	dir string
}

var _ medium = (*disk)(nil)

func newDisk(dir string) (*disk, error) {
	// What stands there was being received when the process ended.
	if err := os.RemoveAll(filepath.Join(dir, tempDir)); err != nil {
		return nil, fmt.Errorf("remove unfinished uploads: %w", err)
	}
	if err := os.MkdirAll(filepath.Join(dir, tempDir), 0o700); err != nil {
		return nil, fmt.Errorf("make blob directory: %w", err)
	}
	return &disk{dir}, nil
}

func (d *disk) path(key, name string) string { return filepath.Join(d.dir, key, name) }

func (d *disk) create() (segment, error) {
	f, err := os.CreateTemp(filepath.Join(d.dir, tempDir), "") // mode 0600
	if err != nil {
		return nil, fmt.Errorf("create segment: %w", err)
	}
	return &diskSegment{disk: d, file: f, name: f.Name()}, nil
}

func (d *disk) open(key, name string) (io.ReadSeekCloser, error) {
	f, err := os.Open(d.path(key, name))
	if err != nil {
		return nil, fmt.Errorf("open segment: %w", err)
	}
	return f, nil
}

func (d *disk) writeMeta(key string, text []byte) error {
	s, err := d.create()
	if err != nil {
		return err
	}
	_, err = s.Write(text)
	if err == nil {
		err = s.seal()
	}
	if err == nil {
		err = s.keep(key, metaFile)
	}
	if err != nil {
		s.discard()
		return fmt.Errorf("write %s: %w", metaFile, err)
	}
	if err := s.settle(); err != nil {
		return fmt.Errorf("%w: %w", errUnsettled, err)
	}
	return nil
}

func (d *disk) remove(key string, names ...string) error {
	var all error
	for _, name := range names {
		if err := os.Remove(d.path(key, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			all = errors.Join(all, err)
		}
	}
	return all
}

func (d *disk) removeAll(key string) error {
	entries, err := os.ReadDir(filepath.Join(d.dir, key))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	// The meta last: it says that the rest is garbage, whenever the process ends.
	for _, e := range entries {
		if e.Name() != metaFile {
			if err := d.remove(key, e.Name()); err != nil {
				return err
			}
		}
	}
	return os.RemoveAll(filepath.Join(d.dir, key))
}

func (d *disk) load(f func(key string, meta []byte, files []file) error) error {
	blobs, err := os.ReadDir(d.dir)
	if err != nil {
		return fmt.Errorf("read blob directory: %w", err)
	}
	for _, b := range blobs {
		if !b.IsDir() || b.Name() == tempDir {
			continue
		}
		entries, err := os.ReadDir(filepath.Join(d.dir, b.Name()))
		if err != nil {
			return fmt.Errorf("read blob directory: %w", err)
		}
		var meta []byte
		var files []file
		for _, e := range entries {
			if e.Name() == metaFile {
				if meta, err = os.ReadFile(d.path(b.Name(), metaFile)); err != nil {
					return fmt.Errorf("read blob: %w", err)
				}
				continue
			}
			info, err := e.Info()
			if err != nil {
				return fmt.Errorf("read blob directory: %w", err)
			}
			files = append(files, file{e.Name(), info.Size(), info.ModTime()})
		}
		if err := f(b.Name(), meta, files); err != nil {
			return fmt.Errorf("load blob %s: %w", filepath.Join(d.dir, b.Name()), err)
		}
	}
	return nil
}

type diskSegment struct {
	disk   *disk
	file   *os.File
	name   string // where it stands now
	dir    string // the blob's, once kept
	fresh  bool   // whether keep made dir
	closed bool
}

func (s *diskSegment) Write(p []byte) (int, error) { return s.file.Write(p) }

func (s *diskSegment) seal() error {
	s.closed = true
	return errors.Join(s.file.Sync(), s.file.Close())
}

func (s *diskSegment) keep(key, name string) error {
	s.dir = filepath.Join(s.disk.dir, key)
	err := os.Mkdir(s.dir, 0o700)
	s.fresh = err == nil
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return os.Rename(s.name, filepath.Join(s.dir, name))
}

func (s *diskSegment) settle() error {
	err := syncDir(s.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // removed in the meantime, by a commit or a deletion
	}
	if err == nil && s.fresh {
		err = syncDir(s.disk.dir)
	}
	return err
}

func (s *diskSegment) discard() {
	if !s.closed {
		_ = s.file.Close() // nothing of it is needed
	}
	_ = os.Remove(s.name) // the next start does it otherwise
}

const keyFile = "account.key"

func newKey() []byte {
	key := make([]byte, 64) // as long as Azure's
	_, _ = rand.Read(key)   // never fails, by its contract
	return key
}

// loadKey reads the account's key, or makes one: addresses of an earlier process
// are still good.
func loadKey(dir string) ([]byte, error) {
	name := filepath.Join(dir, keyFile)
	key, err := os.ReadFile(name) //nolint:gosec // the hub's own directory
	if err == nil && len(key) > 0 {
		return key, nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("read the account's key: %w", err)
	}
	key = newKey()
	f, err := os.CreateTemp(filepath.Join(dir, tempDir), "") // mode 0600
	if err != nil {
		return nil, fmt.Errorf("keep the account's key: %w", err)
	}
	_, err = f.Write(key)
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(f.Name(), name)
	}
	if err != nil {
		return nil, fmt.Errorf("keep the account's key: %w", err)
	}
	return key, syncDir(dir)
}

// syncDir makes the names in a directory safe. Windows has no such thing, and
// needs none: its file system keeps a journal of names.
func syncDir(dir string) error {
	if runtime.GOOS == "windows" {
		return nil
	}
	f, err := os.Open(dir) //nolint:gosec // the hub's own directory
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
