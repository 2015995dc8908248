//go:build faults && unix

package faults

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

var keep = flag.Bool("keep", false, "leave the directories of the tests in place")

// programs are the built files.
var programs struct{ fairlead, numbers string }

func TestMain(m *testing.M) {
	flag.Parse()
	code, err := buildAndRun(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func buildAndRun(m *testing.M) (int, error) {
	dir, err := os.MkdirTemp("", "faults-bin-")
	if err != nil {
		return 0, fmt.Errorf("make directory: %w", err)
	}
	defer os.RemoveAll(dir)                      //nolint:errcheck // it is temporary
	if err := os.Chmod(dir, 0o755); err != nil { //nolint:gosec // one test runs it as another user
		return 0, fmt.Errorf("open directory: %w", err)
	}
	programs.fairlead, programs.numbers = filepath.Join(dir, "fairlead"), filepath.Join(dir, "numbers")
	for file, pkg := range map[string]string{programs.fairlead: "../../cmd/runtime", programs.numbers: "./numbers"} {
		if out, err := exec.Command("go", "build", "-o", file, pkg).CombinedOutput(); err != nil {
			return 0, fmt.Errorf("build %s: %w\n%s", pkg, err, out)
		}
	}
	return m.Run(), nil
}
