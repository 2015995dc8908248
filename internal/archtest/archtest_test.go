package archtest_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fairlead-iot/fairlead/internal/archtest"
)

// list returns every package of the module with what it imports, tests aside.
func list(t *testing.T) []archtest.Package {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "list", "-json=ImportPath,Imports", archtest.Module+"/...")
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	var packages []archtest.Package
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p struct {
			ImportPath string
			Imports    []string
		}
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		packages = append(packages, archtest.Package{Path: p.ImportPath, Imports: p.Imports})
	}
	if len(packages) < 10 {
		t.Fatalf("go list found %d packages: the test sees nothing", len(packages))
	}
	return packages
}

func TestImportsKeepTheRules(t *testing.T) {
	for _, line := range archtest.Check(archtest.Rules, list(t)) {
		t.Error(line)
	}
}

// One static binary for every platform: nothing that it is made of may need a C compiler.
func TestTheProgramNeedsNoC(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), "go", "list", "-deps", "-f", "{{if and (not .Standard) .CgoFiles}}{{.ImportPath}}{{end}}", archtest.Module+"/cmd/runtime")
	cmd.Env = append(cmd.Environ(), "CGO_ENABLED=1") // else the files are not counted
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	if text := strings.TrimSpace(string(out)); text != "" {
		t.Errorf("these need cgo: %s", text)
	}
}

// The positive control: each of these must be caught, by a rule with this word in its reason.
func TestABreachIsCaught(t *testing.T) {
	const m = archtest.Module
	for _, c := range []struct{ from, imported, why string }{
		{m + "/core", m + "/hub", "core points at nothing"},
		{m + "/core", "github.com/google/go-cmp/cmp", "core points at nothing"},
		{m + "/core", "net", "no goroutine"},
		{m + "/core", "log/slog", "no goroutine"},
		{m + "/core", "os/exec", "no goroutine"},
		{m + "/core", "crypto/rand", "no goroutine"},
		{m + "/internal/control", m + "/transports/mqtt", "concrete thing"},
		{m + "/config", m + "/plugins/host", "concrete thing"},
		{m + "/core/engine", m + "/transports/mqtt", "ports"},
		{m + "/transports/mqtt", m + "/credentials", "siblings"},
		{m + "/transports/netdial", m + "/transports/mqtt", "sibling arrow"},
		{m + "/plugins/host", m + "/transports/mqtt", "siblings"},
		{m + "/plugins/sdk", m + "/plugins/host", "plugin's side"},
		{m + "/hub/internal/mqttfront", m + "/core", "other witness"},
		{m + "/hub", "github.com/eclipse/paho.mqtt.golang/packets", "codec"},
		{m + "/device", m + "/hub/hubtest", "embedded hub"},
		{m + "/examples/thermostat", m + "/core", "reader would"},
		{m + "/transports/mqtt", m + "/config", "one place"},
	} {
		broken := archtest.Check(archtest.Rules, []archtest.Package{{Path: c.from, Imports: []string{"fmt", c.imported}}})
		if !strings.Contains(strings.Join(broken, "\n"), c.why) {
			t.Errorf("%s importing %s is not caught (%q): %v", c.from, c.imported, c.why, broken)
		}
	}
}

// impure finds what a pure machine must not contain: goroutines, channel operations, the clock, global
// randomness and output. (Channels as types stand in its ports.)
func impure(fset *token.FileSet, f *ast.File) []string {
	var found []string
	report := func(n ast.Node, what string) {
		found = append(found, fmt.Sprintf("%s: %s", fset.Position(n.Pos()), what))
	}
	ast.Inspect(f, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.GoStmt:
			report(n, "a goroutine: core has one caller and no concurrency of its own")
		case *ast.SelectStmt, *ast.SendStmt:
			report(n, "a channel operation: core has no concurrency of its own")
		case *ast.UnaryExpr:
			if n.Op == token.ARROW {
				report(n, "a channel operation: core has no concurrency of its own")
			}
		case *ast.SelectorExpr:
			x, ok := n.X.(*ast.Ident)
			if !ok {
				break
			}
			switch x.Name + "." + n.Sel.Name {
			case "time.Now", "time.Since", "time.Until", "time.After", "time.AfterFunc", "time.NewTimer", "time.NewTicker", "time.Sleep", "time.Tick":
				report(n, "the clock: time is an argument")
			case "rand.Int", "rand.IntN", "rand.Int64N", "rand.Float64", "rand.Uint64", "rand.Perm":
				report(n, "global randomness: the random source is an argument")
			case "fmt.Print", "fmt.Println", "fmt.Printf":
				report(n, "output")
			}
		}
		return true
	})
	return found
}

func TestCoreIsPure(t *testing.T) {
	files, err := filepath.Glob("../../core/*.go")
	if err != nil || len(files) < 10 {
		t.Fatalf("found %d files of core: %v", len(files), err)
	}
	fset := token.NewFileSet()
	for _, name := range files {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(fset, name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, line := range impure(fset, f) {
			t.Error(line)
		}
	}
}

func TestImpurityIsCaught(t *testing.T) {
	for _, body := range []string{
		"go f()", "select {}", "c <- 1", "<-c", "_ = time.Now()", "time.Sleep(1)", "_ = time.NewTimer(1)", "_ = rand.IntN(3)", `fmt.Println("x")`,
	} {
		fset := token.NewFileSet()
		f, err := parser.ParseFile(fset, "x.go", "package core\nfunc g() { "+body+" }", 0)
		if err != nil {
			t.Fatal(err)
		}
		if len(impure(fset, f)) == 0 {
			t.Errorf("%q is not caught", body)
		}
	}
}
