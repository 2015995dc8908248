package doccheck_test

import (
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// build takes a minute where the tests have not been built.
var build = flag.Bool("build", false, "build the tests that docs/parity.md names and ask them for their names, in place of reading their source")

// buildTags are those of the packages whose tests stand behind one.
var buildTags = map[string]string{"internal/faults": "faults", "internal/interop": "interop", "internal/live": "live"}

// tables returns the rows of a document's tables, heads aside, by the heading above them.
func tables(text string) map[string][][]string {
	out := map[string][][]string{}
	title, isHead := "", true
	for line := range strings.SplitSeq(text, "\n") {
		if t, ok := strings.CutPrefix(line, "## "); ok {
			title = t
		}
		if !strings.HasPrefix(line, "|") {
			isHead = true
			continue
		}
		if strings.HasPrefix(line, "|---") {
			isHead = false
			continue
		}
		if isHead {
			continue
		}
		var row []string
		for cell := range strings.SplitSeq(strings.Trim(line, "|"), " | ") {
			row = append(row, strings.TrimSpace(cell))
		}
		out[title] = append(out[title], row)
	}
	return out
}

// checkRows returns a line for each row of the list that the page lacks, or that says neither which test holds it nor that
// it is open.
func checkRows(list, page string) []string {
	var wrong []string
	rows := tables(page)
	for section := range strings.SplitSeq(list, "\n\n") {
		title, names, _ := strings.Cut(section, "\n")
		if strings.HasPrefix(title, "#") {
			continue
		}
		for name := range strings.FieldsFuncSeq(names, func(r rune) bool { return r == '\n' }) {
			i := slices.IndexFunc(rows[title], func(row []string) bool { return strings.ReplaceAll(row[0], "`", "") == name })
			if i < 0 {
				wrong = append(wrong, fmt.Sprintf("docs/parity.md has no row %q under %q", name, title))
				continue
			}
			last := rows[title][i][len(rows[title][i])-1]
			if !strings.Contains(last, "**open**") && !testName.MatchString(last) {
				wrong = append(wrong, fmt.Sprintf("docs/parity.md: row %q under %q is held by no test, and not marked open", name, title))
			}
		}
	}
	return wrong
}

// testName is how the page names a test.
var testName = regexp.MustCompile("`([a-z0-9/]+)\\.((?:Test|Fuzz|Example)[A-Za-z0-9_]*)(?:/([a-z0-9_]+))?`")

// declaredTests returns the names of the tests that packages declare in the files that are built with the tag.
func declaredTests(t *testing.T, tag string, packages []string) map[string]bool {
	t.Helper()
	args := []string{"list", "-tags", tag, "-f", "{{.Dir}}{{range .TestGoFiles}} {{.}}{{end}}{{range .XTestGoFiles}} {{.}}{{end}}"}
	for _, p := range packages {
		args = append(args, "./"+p)
	}
	base, err := filepath.Abs(root)
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]bool{}
	for line := range strings.Lines(string(goCommand(t, args))) {
		fields := strings.Fields(line)
		rel, err := filepath.Rel(base, fields[0])
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range fields[1:] {
			f, err := parser.ParseFile(token.NewFileSet(), filepath.Join(fields[0], file), nil, parser.SkipObjectResolution)
			if err != nil {
				t.Fatal(err)
			}
			for _, d := range f.Decls {
				if fn, ok := d.(*ast.FuncDecl); ok && fn.Recv == nil {
					names[filepath.ToSlash(rel)+"."+fn.Name.Name] = true
				}
			}
		}
	}
	return names
}

// listTests returns the names of the tests of packages, asked of the built tests themselves.
func listTests(t *testing.T, tag string, packages []string) map[string]bool {
	t.Helper()
	args := []string{"test", "-json", "-tags", tag, "-list", "."}
	for _, p := range packages {
		args = append(args, "./"+p)
	}
	names := map[string]bool{}
	for _, m := range listed.FindAllStringSubmatch(string(goCommand(t, args)), -1) {
		names[m[1]+"."+m[2]] = true
	}
	return names
}

// listed is a line of go test -json -list.
var listed = regexp.MustCompile(`"Package":"[^"]*?/fairlead/([^"]+)","Output":"((?:Test|Fuzz|Example)\w*)\\n"`)

func goCommand(t *testing.T, args []string) []byte {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", args...)
	cmd.Dir = root
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("go %s: %v\n%s", strings.Join(args, " "), err, out[max(0, len(out)-2000):])
	}
	return out
}

func TestParityNamesEveryRow(t *testing.T) {
	list, err := os.ReadFile(filepath.Join("testdata", "seed.txt"))
	if err != nil {
		t.Fatal(err)
	}
	page := read(t, "docs/parity.md")
	for _, line := range checkRows(string(list), page) {
		t.Error(line)
	}
	for _, spoilt := range []string{
		strings.Replace(page, "| `get_twin` |", "| `got_twin` |", 1),
		strings.Replace(page, "`device.TestOptionsTakeEffect` `core.TestTranscripts/ensure_desired_properties_off`", "by hand", 1),
		strings.Replace(page, "## Exceptions", "## Others", 1),
	} {
		if len(checkRows(string(list), spoilt)) == 0 {
			t.Error("a row that is missing, or held by nothing, is not found")
		}
	}
}

func TestParityNamesTestsThatThereAre(t *testing.T) {
	page := read(t, "docs/parity.md")
	packages := map[string]map[string]bool{} // by build tag
	named := testName.FindAllStringSubmatch(page, -1)
	if len(named) < 50 {
		t.Fatalf("the page names %d tests: the check sees too little", len(named))
	}
	for _, m := range named {
		tag := buildTags[m[1]]
		if packages[tag] == nil {
			packages[tag] = map[string]bool{}
		}
		packages[tag][m[1]] = true
	}
	find := declaredTests
	if *build {
		find = listTests
	}
	have := map[string]bool{}
	for tag, of := range packages {
		maps.Copy(have, find(t, tag, slices.Sorted(maps.Keys(of))))
	}
	for _, m := range named {
		if !have[m[1]+"."+m[2]] {
			t.Errorf("docs/parity.md names %s.%s, which is not there", m[1], m[2])
		}
		if m[3] == "" {
			continue
		}
		if m[2] != "TestTranscripts" {
			t.Errorf("docs/parity.md names %s/%s: only the stories of TestTranscripts can be looked up", m[2], m[3])
		}
		if _, err := os.Stat(filepath.Join(root, m[1], "testdata", m[3]+".txt")); err != nil {
			t.Errorf("docs/parity.md names a story that is not there: %v", err)
		}
	}
	if have["device.TestThatNobodyWrote"] {
		t.Error("a test that nobody wrote is found")
	}
}
