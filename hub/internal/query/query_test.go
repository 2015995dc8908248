package query

import (
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const twinText = `{"deviceId":"dev1","status":"enabled","capabilities":{"iotEdge":false},"etag":"AAAAAAAAAAE=",
	"tags":{"site":"north","floor":3,"x":null},"properties":{"reported":{"firmware":"1.2.0","on":true},"desired":{"$version":4}}}`

func document(t *testing.T) map[string]any {
	t.Helper()
	var doc map[string]any
	if err := json.Unmarshal([]byte(twinText), &doc); err != nil {
		t.Fatal(err)
	}
	return doc
}

func TestMatch(t *testing.T) {
	tests := map[string]bool{
		"":                                             true,
		"deviceId = 'dev1'":                            true,
		"deviceId = 'dev2'":                            false,
		"deviceId != 'dev2'":                           true,
		"deviceId <> 'dev1'":                           false,
		"tags.floor >= 3 AND tags.floor < 4":           true,
		"tags.floor > 3 OR status='enabled'":           true,
		"tags.floor > 3":                               false,
		"tags.floor < 3":                               false,
		"tags.floor>2":                                 true,
		"NOT tags.floor = 4":                           true,
		"NOT (tags.floor = 3)":                         false,
		"tags.none = 3":                                false,
		"NOT tags.none = 3":                            false,
		"tags.none != 3":                               false,
		"is_defined(tags.none)":                        false,
		"NOT is_defined(tags.none)":                    true,
		"IS_DEFINED(properties.reported.firmware)":     true,
		"STARTSWITH(properties.reported.firmware,'1')": true,
		"endswith(deviceId, '2')":                      false,
		"tags.site IN ['south', 'north']":              true,
		"tags.site NIN ['south', 'north']":             false,
		"tags.floor in [1,-2,3.0]":                     true,
		"properties.reported.on":                       true,
		"capabilities.iotEdge = false":                 true,
		"tags.floor = '3'":                             false,
		"tags.x = null":                                true,
		"properties.desired.$version > 3.5e0":          true,
		"tags.site = 'it''s' or tags.site = \"north\"": true,
	}
	for where, want := range tests {
		text := "select * from devices"
		if where != "" {
			text += " WHERE " + where
		}
		q, err := Parse(text)
		if err != nil {
			t.Errorf("%s: %v", where, err)
			continue
		}
		if got := q.Match(document(t)); got != want {
			t.Errorf("%s is %v, want %v", where, got, want)
		}
	}
}

func TestResults(t *testing.T) {
	tests := map[string]struct {
		want any
		raw  bool
	}{
		"SELECT deviceId, tags.site AS place, tags.none FROM devices":                     {[]map[string]any{{"deviceId": "dev1", "place": "north"}}, true},
		"SELECT COUNT() AS n FROM devices":                                                {[]map[string]any{{"n": 1}}, true},
		"SELECT COUNT(), MAX(tags.floor) AS top, AVG(tags.none) FROM devices":             {[]map[string]any{{"$1": 1, "top": 3.0}}, true},
		"SELECT TOP 5 tags.site, COUNT() AS n FROM devices GROUP BY tags.site, tags.none": {[]map[string]any{{"site": "north", "n": 1}}, true},
		"SELECT * FROM devices.modules":                                                   {[]map[string]any{document(t)}, false},
	}
	for text, tt := range tests {
		q, err := Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(tt.want, any(q.Results([]map[string]any{document(t)}))); diff != "" || q.IsRaw() != tt.raw {
			t.Errorf("%s (-want +got):\n%s", text, diff)
		}
	}
}

func TestGroups(t *testing.T) {
	var docs []map[string]any
	for _, text := range []string{`{"s":"a","n":1}`, `{"s":"b","n":2.5}`, `{"s":"a","n":3}`, `{"n":"text"}`, `{"s":null,"n":4}`} {
		var doc map[string]any
		if err := json.Unmarshal([]byte(text), &doc); err != nil {
			t.Fatal(err)
		}
		docs = append(docs, doc)
	}
	q, err := Parse("SELECT s, COUNT() AS n, SUM(n) AS sum, AVG(n) AS avg, MIN(n) AS min, MAX(n) AS max FROM devices GROUP BY s")
	if err != nil {
		t.Fatal(err)
	}
	want := []map[string]any{
		{"s": "a", "n": 2, "sum": 4.0, "avg": 2.0, "min": 1.0, "max": 3.0},
		{"s": "b", "n": 1, "sum": 2.5, "avg": 2.5, "min": 2.5, "max": 2.5},
		{"n": 2, "sum": 4.0, "avg": 4.0, "min": 4.0, "max": 4.0},
	}
	if diff := cmp.Diff(want, q.Results(docs)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if q, err = Parse("SELECT COUNT() AS n FROM devices"); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]map[string]any{{"n": 0}}, q.Results(nil)); diff != "" {
		t.Errorf("of nothing (-want +got):\n%s", diff)
	}
}

func TestParseErrors(t *testing.T) {
	for _, text := range []string{
		"", "SELECT", "DELETE FROM devices", "SELECT * FROM devices.jobs", "SELECT * FROM devices WHERE", "SELECT * FROM devices WHERE a =",
		"SELECT * FROM devices WHERE (a = 1", "SELECT * FROM devices WHERE a = 'x", "SELECT * FROM devices WHERE a ! 1",
		"SELECT * FROM devices GROUP BY a", "SELECT AVG() FROM devices", "SELECT MEDIAN(a) FROM devices", "SELECT SUM(a FROM devices",
		"SELECT a FROM devices GROUP BY b", "SELECT a FROM devices GROUP a", "SELECT a FROM devices GROUP BY", "SELECT TOP a FROM devices", "SELECT TOP 0 a FROM devices", "SELECT COUNT(), a FROM devices", "SELECT * FROM devices WHERE sqrt(a) = 1",
		"SELECT * FROM devices WHERE a IN (1)", "SELECT * FROM devices WHERE a IN [1 2]", "SELECT * FROM devices WHERE is_defined(a, b)",
	} {
		if q, err := Parse(text); err == nil {
			t.Errorf("Parse(%q) = %+v", text, q)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("SELECT a.b AS c FROM devices WHERE NOT (a >= -1.5 AND b IN ['x']) OR STARTSWITH(c, 'd')")
	f.Fuzz(func(_ *testing.T, text string) {
		if q, err := Parse(text); err == nil {
			q.Match(map[string]any{"a": map[string]any{"b": "c"}})
		}
	})
}
