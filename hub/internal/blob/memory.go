package blob

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"sync"
)

// errFull is a memory that holds as much as it may.
var errFull = errors.New("blob: the blobs in memory have reached their limit")

// memory keeps blobs as long as the process lives, up to a limit.
type memory struct {
	limit int64

	mu    sync.Mutex
	used  int64
	blobs map[string]map[string][]byte
}

var _ medium = (*memory)(nil)

func newMemory(limit int64) *memory {
	return &memory{limit: limit, blobs: map[string]map[string][]byte{}}
}

func (m *memory) create() (segment, error) { return &memorySegment{memory: m}, nil }

func (m *memory) open(key, name string) (io.ReadSeekCloser, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	data, ok := m.blobs[key][name]
	if !ok {
		return nil, fmt.Errorf("open segment: %w", fs.ErrNotExist)
	}
	return nopCloser{bytes.NewReader(data)}, nil
}

type nopCloser struct{ *bytes.Reader }

func (nopCloser) Close() error { return nil }

// writeMeta does nothing: the Store has it in memory as well.
func (m *memory) writeMeta(string, []byte) error { return nil }

func (m *memory) remove(key string, names ...string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, name := range names {
		m.used -= int64(len(m.blobs[key][name]))
		delete(m.blobs[key], name)
	}
	return nil
}

func (m *memory) removeAll(key string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, data := range m.blobs[key] {
		m.used -= int64(len(data))
	}
	delete(m.blobs, key)
	return nil
}

func (m *memory) load(func(string, []byte, []file) error) error { return nil }

// reserve counts bytes that come; a segment that ends gives them back.
func (m *memory) reserve(n int) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.used+int64(n) > m.limit {
		return fmt.Errorf("%w of %d bytes", errFull, m.limit)
	}
	m.used += int64(n)
	return nil
}

type memorySegment struct {
	memory *memory
	data   []byte
	kept   bool
}

func (s *memorySegment) Write(p []byte) (int, error) {
	if err := s.memory.reserve(len(p)); err != nil {
		return 0, err
	}
	s.data = append(s.data, p...)
	return len(p), nil
}

func (s *memorySegment) seal() error { return nil }

func (s *memorySegment) keep(key, name string) error {
	s.memory.mu.Lock()
	defer s.memory.mu.Unlock()
	if s.memory.blobs[key] == nil {
		s.memory.blobs[key] = map[string][]byte{}
	}
	s.memory.blobs[key][name] = s.data
	s.kept = true
	return nil
}

func (s *memorySegment) settle() error { return nil }

func (s *memorySegment) discard() {
	if s.kept {
		return
	}
	s.memory.mu.Lock()
	defer s.memory.mu.Unlock()
	s.memory.used -= int64(len(s.data))
	s.data = nil
}
