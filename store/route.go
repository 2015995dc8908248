package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
)

// routeVersion is the version of the file's format.
const routeVersion = 1

// Route keeps, in a file, the name of the route by which the hub was reached last.
type Route struct{ Path string }

type routeFile struct {
	Version int    `json:"version"`
	Route   string `json:"route"`
}

// Load returns the name that was saved last. Its error wraps fs.ErrNotExist where there is none, and ErrNewer where the
// file must not be touched; after any other the file is of no use.
func (r Route) Load() (string, error) {
	text, err := os.ReadFile(r.Path)
	if err != nil {
		return "", fmt.Errorf("load route: %w", err)
	}
	var f routeFile
	err = json.Unmarshal(text, &f)
	switch {
	case err == nil && f.Version > routeVersion:
		return "", fmt.Errorf("load route: %s has version %d, and this program knows %d: %w; run the newer program, or delete the file", r.Path, f.Version, routeVersion, ErrNewer)
	case err != nil:
		return "", fmt.Errorf("load route: %s: %w", r.Path, err)
	case f.Version != routeVersion, f.Route == "":
		return "", fmt.Errorf("load route: %s: %w", r.Path, errNoRoute)
	}
	return f.Route, nil
}

var errNoRoute = errors.New("it lacks its version or the route")

// Save keeps a name. When it returns nil, the name outlives a crash of the system.
func (r Route) Save(name string) error {
	text, err := json.Marshal(routeFile{routeVersion, name})
	if err != nil {
		return fmt.Errorf("save route: %w", err)
	}
	if err := replace(r.Path, append(text, '\n')); err != nil {
		return fmt.Errorf("save route: %w", err)
	}
	return nil
}
