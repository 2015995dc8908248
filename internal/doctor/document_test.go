package doctor_test

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/fairlead-iot/fairlead/internal/doctor"
)

var rewrite = flag.Bool("rewrite", false, "write the table of codes into docs/doctor.md")

const (
	document = "../../docs/doctor.md"
	begin    = "<!-- codes: go test ./internal/doctor -run Document -rewrite -->\n"
	end      = "<!-- end of codes -->\n"
)

// table is the table of codes as the document has it.
func table() string {
	var b strings.Builder
	b.WriteString(begin + "\n| code | layer | cause | what to do |\n|---|---|---|---|\n")
	cell := strings.NewReplacer("|", `\|`, "{", "*", "}", "*")
	for _, c := range doctor.Codes() {
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", c.Name, c.Layer, cell.Replace(c.Cause), cell.Replace(c.Fix))
	}
	return b.String() + "\n" + end
}

func TestTheDocumentHasEveryCode(t *testing.T) {
	data, err := os.ReadFile(document)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(data), begin)
	_, after, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatalf("%s has no place for the table", document)
	}
	want := before + table() + after
	if want == string(data) {
		return
	}
	if !*rewrite {
		t.Fatalf("%s is not up to date: go test ./internal/doctor -run Document -rewrite", document)
	}
	if err := os.WriteFile(document, []byte(want), 0o644); err != nil {
		t.Fatal(err)
	}
}

// The form of the report is a promise: the document names each field.
func TestTheDocumentHasEveryField(t *testing.T) {
	data, err := os.ReadFile(document)
	if err != nil {
		t.Fatal(err)
	}
	var fields []string
	for _, v := range []any{doctor.Report{}, doctor.Way{}, doctor.Check{}} {
		for field := range reflect.TypeOf(v).Fields() {
			name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
			fields = append(fields, name)
		}
	}
	for _, name := range fields {
		if !strings.Contains(string(data), "| `"+name+"` |") {
			t.Errorf("%s does not name the field %s", document, name)
		}
	}
	example := regexp.MustCompile("(?s)```json\n(.*?)```").FindSubmatch(data)
	if example == nil {
		t.Fatal("there is no example")
	}
	dec := json.NewDecoder(strings.NewReader(string(example[1])))
	dec.DisallowUnknownFields()
	var r doctor.Report
	if err := dec.Decode(&r); err != nil {
		t.Fatalf("the example is no report: %v", err)
	}
	for _, c := range r.Checks {
		if c.Code != "" && !slices.ContainsFunc(doctor.Codes(), func(d doctor.Code) bool { return d.Name == c.Code && d.Layer == c.Layer }) {
			t.Errorf("the example has the code %s of layer %s, which there is not", c.Code, c.Layer)
		}
	}
	if r.Version != doctor.ReportVersion {
		t.Errorf("the example has version %d", r.Version)
	}
}

func TestCodesAreUniqueAndSaySomething(t *testing.T) {
	seen := map[string]bool{}
	for _, c := range doctor.Codes() {
		if seen[c.Name] || c.Layer == "" || c.Cause == "" || c.Fix == "" || !regexp.MustCompile(`^[a-z]+(-[a-z]+)*$`).MatchString(c.Name) {
			t.Errorf("%+v", c)
		}
		seen[c.Name] = true
	}
}
