package doctor

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
)

const (
	// trialSize is what is written, synced and removed, in bytes: enough to need a block.
	trialSize = 64 << 10
	// leastSpace is what the rest of the state wants, in bytes.
	leastSpace = 16 << 20
	// maxListed is how many files a finding lists.
	maxListed = 3
)

// storage looks at the state directory by using it.
func (d *doctor) storage() []Check {
	dir := d.cfg.StateDir
	if dir == "" {
		return nil
	}
	f := facts{dir: dir}
	info, err := os.Stat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENOTDIR):
		return []Check{missing(dir, f)}
	case err == nil && !info.IsDir():
		return []Check{find("", "state-dir-missing", dir+" is no directory", f)}
	case err == nil:
		err = tryWriting(dir)
	}
	if err != nil {
		return []Check{find("", diagnoseStorage(err), err.Error(), f)}
	}
	var out []Check
	if open := openFiles(dir, info); len(open) > 0 && runtime.GOOS != "windows" {
		c := find("", "state-dir-open", "others may use "+strings.Join(open, ", "), f)
		c.Severity = Warning
		out = append(out, c)
	}
	if c, low := d.space(dir, f); low || len(out) == 0 {
		out = append(out, c)
	}
	return out
}

// missing judges a directory that the runtime's start would have to make.
func missing(dir string, f facts) Check {
	parent := filepath.Dir(dir)
	info, err := os.Stat(parent)
	for err != nil && filepath.Dir(parent) != parent {
		parent = filepath.Dir(parent)
		info, err = os.Stat(parent)
	}
	switch {
	case err != nil:
		return find("", "state-dir-missing", dir+" is not there, and cannot be made: "+err.Error(), f)
	case !info.IsDir():
		return find("", "state-dir-missing", dir+" cannot be made: "+parent+" is no directory", f)
	case isReadOnly(parent):
		return find("", "state-dir-read-only", parent+", where "+dir+" would be made, is read-only", f)
	case !mayWrite(parent):
		return find("", "state-dir-missing", dir+" cannot be made: this user may not write to "+parent, f)
	}
	return Check{Layer: LayerStorage, Severity: OK, Detail: dir + " is made at the first start"}
}

// tryWriting writes a file, as the runtime does, and removes it.
func tryWriting(dir string) (err error) {
	file, err := os.CreateTemp(dir, ".doctor-*")
	if err != nil {
		return err
	}
	_, err = file.Write(make([]byte, trialSize))
	return errors.Join(err, file.Sync(), file.Close(), os.Remove(file.Name()))
}

func diagnoseStorage(err error) string {
	switch {
	case errors.Is(err, syscall.ENOSPC), isQuota(err):
		return "disk-full"
	case errors.Is(err, syscall.EROFS):
		return "state-dir-read-only"
	case errors.Is(err, fs.ErrPermission):
		return "state-dir-not-writable"
	default:
		return "state-dir-failing"
	}
}

// space compares what is free with what may be needed.
func (d *doctor) space(dir string, f facts) (c Check, low bool) {
	free, err := freeSpace(dir)
	if err != nil {
		return Check{Layer: LayerStorage, Severity: OK, Detail: dir + " can be written"}, false
	}
	need := uint64(leastSpace + max(d.cfg.OutboxBytes, 0))
	if free < need {
		c = find("", "disk-low", fmt.Sprintf("%s has %s free, and %s may be needed", dir, size(free), size(need)), f)
		c.Severity = Warning
		return c, true
	}
	return Check{Layer: LayerStorage, Severity: OK, Detail: dir + " can be written, " + size(free) + " free"}, false
}

func size(bytes uint64) string {
	switch {
	case bytes >= 10<<30:
		return fmt.Sprintf("%d GiB", bytes>>30)
	case bytes >= 10<<20:
		return fmt.Sprintf("%d MiB", bytes>>20)
	default:
		return fmt.Sprintf("%d KiB", bytes>>10)
	}
}

// openFiles lists what others may use: the directory, or, where they may enter it, files in it.
func openFiles(dir string, info fs.FileInfo) []string {
	const others = 0o077
	if info.Mode().Perm()&others == 0 {
		return nil // nobody else gets in
	}
	out := []string{fmt.Sprintf("%s (mode %04o)", dir, info.Mode().Perm())}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return out
	}
	for _, e := range entries {
		if i, err := e.Info(); err == nil && i.Mode().IsRegular() && i.Mode().Perm()&others != 0 {
			out = append(out, fmt.Sprintf("%s (mode %04o)", e.Name(), i.Mode().Perm()))
		}
	}
	if more := len(out) - maxListed; more > 0 {
		out = append(slices.Clip(out[:maxListed]), fmt.Sprintf("%d more", more))
	}
	return out
}
