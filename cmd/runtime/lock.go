package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// errLocked is returned by lockFile when another process has the lock.
var errLocked = errors.New("locked by another process")

// lockStateDir takes the state directory, which is there, for this process. Another one that has it makes for exit code 3.
func lockStateDir(dir string) (unlock func(), err error) {
	f, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the state directory's lock: %w", err)
	}
	if err := lockFile(f); errors.Is(err, errLocked) {
		return nil, &exitError{exitInUse, errors.Join(fmt.Errorf(
			"the state directory %s is in use by another fairlead: stop that one, or give each device a state_dir of its own", dir), f.Close())}
	} else if err != nil {
		return nil, errors.Join(fmt.Errorf("lock the state directory: %w", err), f.Close())
	}
	return func() { _ = f.Close() }, nil // closing unlocks
}
