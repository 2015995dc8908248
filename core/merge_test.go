package core_test

import (
	"encoding/json"
	"testing"

	"pgregory.net/rapid"

	"github.com/fairlead-iot/fairlead/core"
)

// The examples of RFC 7396, appendix A, as far as both are objects (a twin always is), and the one of section 3.
func TestMergePatchDoesWhatTheRFCSays(t *testing.T) {
	for _, c := range []struct{ doc, patch, want string }{
		{`{"a":"b"}`, `{"a":"c"}`, `{"a":"c"}`},
		{`{"a":"b"}`, `{"b":"c"}`, `{"a":"b","b":"c"}`},
		{`{"a":"b"}`, `{"a":null}`, `{}`},
		{`{"a":"b","b":"c"}`, `{"a":null}`, `{"b":"c"}`},
		{`{"a":["b"]}`, `{"a":"c"}`, `{"a":"c"}`},
		{`{"a":"c"}`, `{"a":["b"]}`, `{"a":["b"]}`},
		{`{"a":{"b":"c"}}`, `{"a":{"b":"d","c":null}}`, `{"a":{"b":"d"}}`},
		{`{"a":[{"b":"c"}]}`, `{"a":[1]}`, `{"a":[1]}`},
		{`{"e":null}`, `{"a":1}`, `{"e":null,"a":1}`},
		{`{}`, `{"a":{"bb":{"ccc":null}}}`, `{"a":{"bb":{}}}`},
		{
			`{"title":"Goodbye!","author":{"givenName":"John","familyName":"Doe"},"tags":["example","sample"],"content":"This will be unchanged"}`,
			`{"title":"Hello!","phoneNumber":"+01-123-456-7890","author":{"familyName":null},"tags":["example"]}`,
			`{"title":"Hello!","author":{"givenName":"John"},"tags":["example"],"content":"This will be unchanged","phoneNumber":"+01-123-456-7890"}`,
		},
		{``, `{"a":1}`, `{"a":1}`},
		{`{"a":1}`, ``, `{"a":1}`},
		{`{"n":12345678901234567890,"x":1.50}`, `{}`, `{"n":12345678901234567890,"x":1.50}`},
	} {
		got, err := core.MergePatch([]byte(c.doc), []byte(c.patch))
		if err != nil || !core.SameJSON(got, []byte(c.want)) {
			t.Errorf("%s with %s: %s, %v, want %s", c.doc, c.patch, got, err, c.want)
		}
	}
}

func TestOnlyObjectsAreMerged(t *testing.T) {
	for _, bad := range []string{`[1]`, `"a"`, `{"a":`, `{} {}`, `{"a":1}x`} {
		if got, err := core.MergePatch([]byte(`{}`), []byte(bad)); err == nil {
			t.Errorf("patch %s: %s", bad, got)
		}
		if got, err := core.DiffPatch([]byte(bad), []byte(`{}`)); err == nil {
			t.Errorf("document %s: %s", bad, got)
		}
		if core.SameJSON([]byte(bad), []byte(bad)) {
			t.Errorf("%s is the same as something", bad)
		}
	}
}

func TestJoinPatchesIsOneAfterTheOther(t *testing.T) {
	for _, c := range []struct{ first, second, want string }{
		{`{"a":1}`, `{"b":2}`, `{"a":1,"b":2}`},
		{`{"a":1}`, `{"a":null}`, `{"a":null}`},
		{`{"a":null}`, `{"a":1}`, `{"a":1}`},
		{`{"a":{"x":1}}`, `{"a":{"x":null,"y":2}}`, `{"a":{"x":null,"y":2}}`},
		{`{"a":{"x":1}}`, `{"a":3}`, `{"a":3}`},
		{``, `{"a":null}`, `{"a":null}`},
	} {
		got, err := core.JoinPatches([]byte(c.first), []byte(c.second))
		if err != nil || !core.SameJSON(got, []byte(c.want)) {
			t.Errorf("%s then %s: %s, %v, want %s", c.first, c.second, got, err, c.want)
		}
	}
}

func TestSelectKeysLeavesTheHubsOut(t *testing.T) {
	doc := []byte(`{"a":1,"b":{"c":2},"$version":7,"$metadata":{}}`)
	for _, c := range []struct {
		keys []string
		want string
	}{
		{nil, `{"a":1,"b":{"c":2}}`}, {[]string{"b", "x"}, `{"b":{"c":2}}`}, {[]string{}, `{}`}, {[]string{"$version"}, `{}`},
	} {
		if got, err := core.SelectKeys(doc, c.keys); err != nil || !core.SameJSON(got, []byte(c.want)) {
			t.Errorf("%v: %s, %v, want %s", c.keys, got, err, c.want)
		}
	}
}

// object draws a document without nulls: over merge patches a null is the absence of a key.
func object(depth int) *rapid.Generator[map[string]any] {
	return rapid.Custom(func(t *rapid.T) map[string]any {
		out := map[string]any{}
		for _, k := range rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"a", "b", "c", "d", "é"}), 0, 4, rapid.ID).Draw(t, "keys") {
			kind := rapid.IntRange(0, 4).Draw(t, "kind")
			switch {
			case kind == 0 && depth > 0:
				out[k] = object(depth-1).Draw(t, "object")
			case kind == 1:
				out[k] = []any{rapid.Int().Draw(t, "item"), nil}
			case kind == 2:
				out[k] = rapid.Bool().Draw(t, "bool")
			case kind == 3:
				out[k] = rapid.SampledFrom([]string{"", "x", "y"}).Draw(t, "text")
			default:
				out[k] = rapid.IntRange(0, 3).Draw(t, "number")
			}
		}
		return out
	})
}

func TestADifferenceLeadsFromOneDocumentToTheOther(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, errA := json.Marshal(object(3).Draw(t, "a"))
		b, errB := json.Marshal(object(3).Draw(t, "b"))
		if errA != nil || errB != nil {
			t.Fatal(errA, errB)
		}
		patch, err := core.DiffPatch(a, b)
		if err != nil {
			t.Fatal(err)
		}
		got, err := core.MergePatch(a, patch)
		if err != nil || !core.SameJSON(got, b) {
			t.Fatalf("%s with %s is %s, %v, want %s", a, patch, got, err, b)
		}
		if core.SameJSON(a, b) != (string(patch) == "{}") {
			t.Fatalf("patch %s from %s to %s", patch, a, b)
		}
	})
}
