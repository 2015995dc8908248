package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/fairlead-iot/fairlead/core"
)

// uploadVersion is the version of an upload's file.
const uploadVersion = 1

// Uploads keeps the queue of uploads in a directory, a file each. It implements core.UploadKeeper.
type Uploads struct {
	// Dir is made where it is missing.
	Dir string
	// Report, if set, is told by Load of each file that it leaves out.
	Report func(err error)
}

var _ core.UploadKeeper = Uploads{}

type uploadFile struct {
	Version int `json:"version"`
	core.UploadRecord
}

func (s Uploads) path(id string) string { return filepath.Join(s.Dir, id+".json") }

// Load returns all records. One must not keep the others from going on: a file that holds none is set aside, as
// NAME.damaged, and one that cannot be read stays where it is. The error wraps ErrNewer where the files must not be touched.
func (s Uploads) Load() ([]core.UploadRecord, error) {
	entries, err := os.ReadDir(s.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("load uploads: %w", err)
	}
	var records []core.UploadRecord
	for _, e := range entries {
		id, isRecord := strings.CutSuffix(e.Name(), ".json")
		if !isRecord {
			continue
		}
		text, err := os.ReadFile(s.path(id))
		if err != nil { // a sector is gone, or something else stands there
			s.report(fmt.Errorf("the record of an upload cannot be read, and the upload does not go on: %w", err))
			continue
		}
		var f uploadFile
		err = json.Unmarshal(text, &f)
		switch {
		case err == nil && f.Version > uploadVersion:
			return nil, fmt.Errorf("load uploads: %s has version %d, and this program knows %d: %w; run the newer program, or delete the file to forget the upload",
				s.path(id), f.Version, uploadVersion, ErrNewer)
		case err != nil, f.Version != uploadVersion, f.ID != id, f.Path == "", f.BlobName == "", f.Size < 0:
			// Written whole or not at all: this is the disk's doing.
			s.report(fmt.Errorf("the record of an upload is damaged, and the upload does not go on: %s is set aside", s.path(id)))
			if err := os.Rename(s.path(id), s.path(id)+".damaged"); err != nil {
				s.report(fmt.Errorf("set a damaged record aside: %w", err))
			}
			continue
		}
		records = append(records, f.UploadRecord)
	}
	return records, nil
}

func (s Uploads) report(err error) {
	if s.Report != nil {
		s.Report(err)
	}
}

// Save keeps a record. When it returns nil, the record outlives a crash of the system.
func (s Uploads) Save(r core.UploadRecord) error {
	if err := os.MkdirAll(s.Dir, 0o700); err != nil {
		return fmt.Errorf("save upload: %w", err)
	}
	text, err := json.MarshalIndent(uploadFile{uploadVersion, r}, "", "  ")
	if err != nil {
		return fmt.Errorf("save upload: %w", err)
	}
	if err := replace(s.path(r.ID), append(text, '\n')); err != nil {
		return fmt.Errorf("save upload: %w", err)
	}
	return nil
}

// Remove forgets a record.
func (s Uploads) Remove(id string) error {
	if err := os.Remove(s.path(id)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove upload: %w", err)
	}
	return syncDir(s.Dir)
}
