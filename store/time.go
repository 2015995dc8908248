package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"
)

// timeVersion is the version of the file's format.
const timeVersion = 1

// Time keeps, in a file, a moment at which the device lived: it implements clock.Keeper.
type Time struct{ Path string }

type timeFile struct {
	Version int       `json:"version"`
	Wall    time.Time `json:"wall"`
}

// Load returns the moment that was saved last. Its error wraps fs.ErrNotExist where there is none, and ErrNewer where the
// file is of a newer version; after any other the file is of no use.
func (t Time) Load() (time.Time, error) {
	text, err := os.ReadFile(t.Path)
	if err != nil {
		return time.Time{}, fmt.Errorf("load the kept time: %w", err)
	}
	var f timeFile
	err = json.Unmarshal(text, &f)
	switch {
	case err == nil && f.Version > timeVersion:
		return time.Time{}, fmt.Errorf("load the kept time: %s has version %d, and this program knows %d: %w", t.Path, f.Version, timeVersion, ErrNewer)
	case err != nil:
		return time.Time{}, fmt.Errorf("load the kept time: %s: %w", t.Path, err)
	case f.Version != timeVersion, f.Wall.IsZero():
		return time.Time{}, fmt.Errorf("load the kept time: %s: %w", t.Path, errNoTime)
	}
	return f.Wall, nil
}

var errNoTime = errors.New("it lacks its version or the time")

// Save keeps a moment. When it returns nil, the moment outlives a crash of the system.
func (t Time) Save(wall time.Time) error {
	text, err := json.Marshal(timeFile{timeVersion, wall.UTC().Round(0)})
	if err != nil {
		return fmt.Errorf("save the time: %w", err)
	}
	if err := replace(t.Path, append(text, '\n')); err != nil {
		return fmt.Errorf("save the time: %w", err)
	}
	return nil
}
