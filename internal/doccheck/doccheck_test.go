package doccheck_test

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/fairlead-iot/fairlead/config"
	"github.com/fairlead-iot/fairlead/core"
	"github.com/fairlead-iot/fairlead/hub/api"
)

const root = "../.."

// documents returns the texts by their paths below root.
func documents(t *testing.T) map[string]string {
	t.Helper()
	out := map[string]string{"README.md": read(t, "README.md")}
	err := filepath.WalkDir(filepath.Join(root, "docs"), func(path string, _ fs.DirEntry, err error) error {
		if err == nil && strings.HasSuffix(path, ".md") {
			rel := strings.TrimPrefix(filepath.ToSlash(path), root+"/")
			out[rel] = read(t, rel)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(out) < 5 {
		t.Fatalf("found %d documents: the test sees too little", len(out))
	}
	return out
}

func read(t *testing.T, rel string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, rel))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

var (
	fence   = regexp.MustCompile("(?ms)^```(\\w*)\n(.*?)^```$")
	link    = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	heading = regexp.MustCompile(`(?m)^#+ (.+)$`)
)

// brokenLinks returns a line for each relative link of a document that leads nowhere.
func brokenLinks(name, text string) []string {
	var broken []string
	for _, m := range link.FindAllStringSubmatch(fence.ReplaceAllString(text, ""), -1) {
		if strings.Contains(m[1], "://") {
			continue
		}
		path, fragment, _ := strings.Cut(m[1], "#")
		target := filepath.Join(root, name)
		if path != "" {
			target = filepath.Join(root, filepath.Dir(name), path)
		}
		info, err := os.Stat(target)
		if err != nil {
			broken = append(broken, fmt.Sprintf("%s links to %s, which is not there", name, m[1]))
			continue
		}
		if fragment == "" || info.IsDir() {
			continue
		}
		if text, err := os.ReadFile(target); err != nil || !hasHeading(string(text), fragment) { //nolint:gosec // a link of ours
			broken = append(broken, fmt.Sprintf("%s links to %s, which has no such heading", name, m[1]))
		}
	}
	return broken
}

func hasHeading(text, fragment string) bool {
	for _, m := range heading.FindAllStringSubmatch(text, -1) {
		words := regexp.MustCompile(`[^a-z0-9 -]`).ReplaceAllString(strings.ToLower(m[1]), "")
		if strings.ReplaceAll(words, " ", "-") == fragment {
			return true
		}
	}
	return false
}

func TestLinksLeadSomewhere(t *testing.T) {
	for name, text := range documents(t) {
		for _, line := range brokenLinks(name, text) {
			t.Error(line)
		}
	}
	for _, bad := range []string{"[x](nowhere.md)", "[x](README.md#no-such-heading)", "[x](#no-such-heading)"} {
		if len(brokenLinks("README.md", bad)) != 1 {
			t.Errorf("%s is not found to be broken", bad)
		}
	}
}

// missing returns the first line of the quotation that the source does not have after those before it.
func missing(quotation, source string) string {
	lines := strings.Split(source, "\n")
	for want := range strings.SplitSeq(quotation, "\n") {
		if strings.TrimSpace(want) == "" {
			continue
		}
		at := 0
		for at < len(lines) && strings.TrimSpace(lines[at]) != strings.TrimSpace(want) {
			at++
		}
		if at == len(lines) {
			return want
		}
		lines = lines[at+1:]
	}
	return ""
}

func TestQuotationsAreTrue(t *testing.T) {
	// What a quotation leaves out may be left out; what it says must be there, in the same order.
	quotes := []struct{ document, language, begins, source string }{
		{"README.md", "go", "// Package plugin is a thermostat", "examples/thermostat/plugin/plugin.go"},
		{"docs/architecture.md", "", "# One that has left already", "core/testdata/seed_05_a_failed_message_is_not_sent_later.txt"},
	}
	for _, q := range quotes {
		found := false
		for _, m := range fence.FindAllStringSubmatch(read(t, q.document), -1) {
			if m[1] != q.language || !strings.HasPrefix(m[2], q.begins) {
				continue
			}
			found = true
			if line := missing(m[2], read(t, q.source)); line != "" {
				t.Errorf("%s quotes %s, which does not say: %s", q.document, q.source, line)
			}
		}
		if !found {
			t.Errorf("%s has no quotation that begins with %q", q.document, q.begins)
		}
	}
	if whole := read(t, "examples/thermostat/plugin/plugin.go"); !strings.Contains(read(t, "README.md"), "```go\n"+whole+"```\n") {
		t.Error("README.md says that it has the whole of examples/thermostat/plugin/plugin.go, and has not")
	}
	if missing("a\nb", "b\na") != "b" {
		t.Error("lines in another order pass for a quotation")
	}
}

// loadText reads a configuration that a document shows.
func loadText(t *testing.T, document, text string) *config.Config {
	t.Helper()
	file := filepath.Join(t.TempDir(), "fairlead.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := config.Load(file, config.Options{})
	if err != nil {
		t.Fatalf("the configuration in %s: %v", document, err)
	}
	if problems := c.Unsupported(); len(problems) > 0 {
		t.Errorf("run would refuse the configuration in %s: %v", document, problems)
	}
	return c
}

func TestTheConfigurationInTheReadmeIsRight(t *testing.T) {
	_, text, _ := strings.Cut(read(t, "README.md"), "<<'END'\n")
	text, _, found := strings.Cut(text, "\nEND\n")
	if !found {
		t.Fatal("README.md has no configuration between <<'END' and END")
	}
	if c := loadText(t, "README.md", text); len(c.Plugins) != 2 {
		t.Errorf("it has %d plugins, and is to show two", len(c.Plugins))
	}
}

func TestTheConfigurationForAzureIsRight(t *testing.T) {
	_, text, _ := strings.Cut(read(t, "docs/azure.md"), "```yaml\n")
	text, _, found := strings.Cut(text, "\n```\n")
	if !found {
		t.Fatal("docs/azure.md has no configuration")
	}
	if c := loadText(t, "docs/azure.md", text); len(c.Plugins) != 1 {
		t.Errorf("it has %d plugins, and is to show one", len(c.Plugins))
	}
}

func TestListsAreComplete(t *testing.T) {
	architecture, hub := read(t, "docs/architecture.md"), read(t, "docs/hub.md")
	for f := range reflect.TypeFor[core.Limits]().Fields() {
		if !strings.Contains(architecture, "`"+f.Name+"`") {
			t.Errorf("docs/architecture.md does not list the limit %s", f.Name)
		}
	}
	for _, name := range api.FaultNames() {
		if !strings.Contains(hub, "| `"+name) {
			t.Errorf("docs/hub.md does not list the fault %s", name)
		}
	}
}
