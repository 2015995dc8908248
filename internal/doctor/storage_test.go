package doctor_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/fairlead-iot/fairlead/internal/doctor"
)

func chmod(t *testing.T, name string, mode fs.FileMode) {
	t.Helper()
	if err := os.Chmod(name, mode); err != nil {
		t.Fatal(err)
	}
}

// Full and read-only disks are in internal/faults, where they can be had.
func TestTheStateDirectoryIsTried(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("modes of files say nothing there")
	}
	dir := t.TempDir()
	chmod(t, dir, 0o700)
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	in := func(state string, outbox int64) *doctor.Report {
		return run(t, doctor.Config{StateDir: state, OutboxBytes: outbox})
	}
	storage := []string{"state-dir-missing", "state-dir-open", "disk-low", "disk-full", "state-dir-failing"}
	wantNone(t, in(dir, 0), storage...)
	wantNone(t, in(filepath.Join(dir, "not", "yet"), 0), storage...)
	if left, err := filepath.Glob(filepath.Join(dir, "*")); err != nil || len(left) != 1 {
		t.Errorf("the doctor left %q (%v)", left, err)
	}
	wantFinding(t, in(file, 0), "state-dir-missing", doctor.Problem, "no directory")
	wantFinding(t, in(filepath.Join(file, "state"), 0), "state-dir-missing", doctor.Problem, file)
	wantFinding(t, in(dir, 1<<60), "disk-low", doctor.Warning, "outbox.max_bytes")
	chmod(t, dir, 0o755)
	wantFinding(t, in(dir, 0), "state-dir-open", doctor.Warning, "mode 0755", "file (mode 0644)", "chmod -R go= "+dir)
}
