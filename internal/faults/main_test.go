//go:build faults && unix

package faults

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
)

var (
	keep = flag.Bool("keep", false, "leave the directories of the tests in place")
	race = flag.Bool("race-programs", false, "build the programs with the race detector")
)

// programs are the built files.
var programs struct{ fairlead, numbers string }

func TestMain(m *testing.M) {
	flag.Parse()
	if list := flag.Lookup("test.list"); list.Value.String() != "" {
		os.Exit(m.Run()) // nothing will run
	}
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
		args := []string{"build", "-o", file, pkg}
		if *race {
			args = slices.Insert(args, 1, "-race")
		}
		if out, err := exec.Command("go", args...).CombinedOutput(); err != nil {
			return 0, fmt.Errorf("build %s: %w\n%s", pkg, err, out)
		}
	}
	return m.Run(), nil
}
