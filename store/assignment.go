package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// assignmentVersion is the version of the file's format.
const assignmentVersion = 1

// ErrNewer is wrapped by errors of files that a newer version has written.
var ErrNewer = errors.New("written by a newer version")

// Request is what a device asked for: an assignment holds for the same request only.
type Request struct {
	Host           string `json:"provisioning_host"`
	IDScope        string `json:"id_scope"`
	RegistrationID string `json:"registration_id"`
}

// Assignment is where the provisioning service sent the device.
type Assignment struct {
	Hostname string    `json:"hostname"` // of the hub
	DeviceID string    `json:"device_id"`
	At       time.Time `json:"at"` // by the wall clock, for the reader: nothing depends on it
}

// Assignments keeps the last assignment in a file.
type Assignments struct {
	Path string
	For  Request
}

type assignmentFile struct {
	Version int `json:"version"`
	Request
	Assignment
}

// Load returns the assignment that was saved last for the same request. Its error wraps fs.ErrNotExist where there is
// none, and ErrNewer where the file must not be touched; after any other the file is of no use.
func (s Assignments) Load() (Assignment, error) {
	text, err := os.ReadFile(s.Path)
	if err != nil {
		return Assignment{}, fmt.Errorf("load assignment: %w", err)
	}
	var f assignmentFile
	err = json.Unmarshal(text, &f)
	switch {
	case err == nil && f.Version > assignmentVersion:
		return Assignment{}, fmt.Errorf("load assignment: %s has version %d, and this program knows %d: %w; run the newer program, or delete the file to register anew",
			s.Path, f.Version, assignmentVersion, ErrNewer)
	case err != nil:
		return Assignment{}, fmt.Errorf("load assignment: %s: %w", s.Path, err)
	case f.Version != assignmentVersion, f.Hostname == "", f.DeviceID == "":
		return Assignment{}, fmt.Errorf("load assignment: %s: %w", s.Path, errIncomplete)
	case f.Request != s.For:
		return Assignment{}, fmt.Errorf("load assignment: %s is for another registration: %w", s.Path, fs.ErrNotExist)
	}
	return f.Assignment, nil
}

var errIncomplete = errors.New("it lacks its version, hostname or device_id")

// Save keeps an assignment. When it returns nil, the assignment outlives a crash of the system.
func (s Assignments) Save(a Assignment) error {
	text, err := json.MarshalIndent(assignmentFile{assignmentVersion, s.For, a}, "", "  ")
	if err != nil {
		return fmt.Errorf("save assignment: %w", err)
	}
	if err := replace(s.Path, append(text, '\n')); err != nil {
		return fmt.Errorf("save assignment: %w", err)
	}
	return nil
}

// replace puts a file in the place of another, whole or not at all.
func replace(path string, content []byte) (err error) {
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, filepath.Base(path)+".*.tmp") // mode 0600
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = f.Close() // closed already, perhaps
			_ = os.Remove(f.Name())
		}
	}()
	if _, err = f.Write(content); err != nil {
		return err
	}
	if err = f.Sync(); err != nil {
		return err
	}
	if err = f.Close(); err != nil {
		return err
	}
	if err = os.Rename(f.Name(), path); err != nil {
		return err
	}
	return syncDir(dir)
}
