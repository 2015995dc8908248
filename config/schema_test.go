package config

import (
	"encoding/json"
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestEveryKeyIsExplained(t *testing.T) {
	schema().walk("", func(key string, f *field) {
		if len(f.doc) < 10 || !strings.HasSuffix(f.doc, ".") && !strings.HasSuffix(f.doc, ")") {
			t.Errorf("%s: its text is not a sentence: %q", key, f.doc)
		}
		text, err := Explain(key)
		if err != nil || !strings.HasPrefix(text, key+": ") {
			t.Errorf("Explain(%q) = %q, %v", key, text, err)
		}
		if f.kind == sourceKind && f.env {
			t.Errorf("%s: a secret must not come by the environment", key)
		}
		if f.def != "" && f.kind != proxyKind && defaultValue(f) == nil {
			t.Errorf("%s: its default %q is not a value that it takes", key, f.def)
		}
		if (f.kind == durationKind || f.kind == sizeKind) && f.max == 0 {
			t.Errorf("%s: it has no upper limit", key)
		}
	})
}

// The table and the struct name the same keys, so that nothing can be written that nobody reads.
func TestTableAndStructAgree(t *testing.T) {
	var want []string
	schema().walk("", func(key string, _ *field) {
		if !strings.Contains(key, ".proxy_options.") { // read by hand
			want = append(want, key)
		}
	})
	var got []string
	var walk func(prefix string, typ reflect.Type)
	walk = func(prefix string, typ reflect.Type) {
		for f := range typ.Fields() {
			name := f.Tag.Get("koanf")
			if f.Name == "Plugins" {
				got = append(got, "plugins")
				walk("plugins.NAME", reflect.TypeFor[Plugin]())
				continue
			}
			if name == "" || name == "-" {
				continue
			}
			key := joinKey(prefix, name)
			got = append(got, key)
			switch typ := f.Type; {
			case typ == reflect.TypeFor[Source](), typ == reflect.TypeFor[PEM](), typ == reflect.TypeFor[Proxy]():
			case typ.Kind() == reflect.Struct:
				walk(key, typ)
			case typ.Kind() == reflect.Pointer:
				walk(key, typ.Elem())
			case typ.Kind() == reflect.Slice && typ.Elem().Kind() == reflect.Struct:
				walk(key+"[]", typ.Elem())
			}
		}
	}
	walk("", reflect.TypeFor[Config]())
	slices.Sort(want)
	slices.Sort(got)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("keys of the table and of Config (-table +struct):\n%s", diff)
	}
}

func TestExplainTakesWhatPeopleWrite(t *testing.T) {
	for _, key := range []string{"transports[0].port", "transports.port", "plugins.press.methods", "device.x509"} {
		if _, err := Explain(key); err != nil {
			t.Errorf("Explain(%q): %v", key, err)
		}
	}
	_, err := Explain("keep_alive")
	if err == nil || err.Error() != `explain "keep_alive": unknown key (did you mean "connection.keep_alive"?)` {
		t.Errorf("got error %v", err)
	}
}

func TestJSONSchemaDescribesEveryKey(t *testing.T) {
	var s map[string]any
	if err := json.Unmarshal(JSONSchema(), &s); err != nil {
		t.Fatal(err)
	}
	if s["$schema"] != "https://json-schema.org/draft/2020-12/schema" {
		t.Errorf("$schema is %v", s["$schema"])
	}
	var described int
	var walk func(v any)
	walk = func(v any) {
		switch v := v.(type) {
		case map[string]any:
			if _, ok := v["description"].(string); ok {
				described++
			}
			for _, sub := range v {
				walk(sub)
			}
		case []any:
			for _, sub := range v {
				walk(sub)
			}
		}
	}
	walk(s)
	if keys := len(Keys()) + 1; described != keys {
		t.Errorf("%d descriptions for %d keys and the whole", described, keys)
	}
}

func TestDurations(t *testing.T) {
	bad := errors.New("bad")
	tests := []struct {
		text string
		want time.Duration
		err  error
	}{
		{"60s", time.Minute, nil},
		{"14d", 14 * 24 * time.Hour, nil},
		{"1d12h", 36 * time.Hour, nil},
		{"0.5d", 12 * time.Hour, nil},
		{"1h30m", 90 * time.Minute, nil},
		{"0", 0, nil},
		{"60", 0, bad},
		{"", 0, bad},
		{"d", 0, bad},
		{"1dd", 0, bad},
		{"1d-1h", 0, bad},
		{"-1s", 0, bad},
		{"-1d", 0, bad},
		{"NaNd", 0, bad},
		{"1e9d", 0, bad},
		{"99999999d", 0, bad},
		{"14 d", 0, bad},
	}
	for _, tt := range tests {
		got, err := parseDuration(tt.text)
		if got != tt.want || (err == nil) != (tt.err == nil) {
			t.Errorf("parseDuration(%q) = %v, %v, want %v, %v", tt.text, got, err, tt.want, tt.err)
		}
		if err != nil {
			continue
		}
		if again, err := parseDuration(formatDuration(got)); err != nil || again != got {
			t.Errorf("%v is written %q, which reads as %v, %v", got, formatDuration(got), again, err)
		}
	}
}

func TestSizes(t *testing.T) {
	tests := []struct {
		text string
		want int64 // -1: refused
	}{
		{"64MiB", 64 << 20},
		{"64 MiB", 64 << 20},
		{"1.5GB", 1_500_000_000},
		{"1048576", 1 << 20},
		{"512B", 512},
		{"64M", -1},
		{"64mib", -1},
		{"-1MiB", -1},
		{"99999999TiB", -1},
		{"999999999999999999TiB", -1},
		{"", -1},
	}
	for _, tt := range tests {
		got, err := parseSize(tt.text)
		if err != nil {
			got = -1
		}
		if got != tt.want {
			t.Errorf("parseSize(%q) = %d, %v, want %d", tt.text, got, err, tt.want)
		}
	}
}

func TestNearest(t *testing.T) {
	names := []string{"keep_alive", "auto_connect", "connection_retry", "connection_retry_max"}
	tests := []struct{ word, want string }{
		{"keepalive", "keep_alive"},
		{"keep-alive", "keep_alive"},
		{"KeepAlive", "keep_alive"},
		{"atuo_connect", "auto_connect"},
		{"connection_retries", "connection_retry"},
		{"wholly_different", ""},
		{"x", ""},
		{"", ""},
	}
	for _, tt := range tests {
		if got := nearest(tt.word, names); got != tt.want {
			t.Errorf("nearest(%q) = %q, want %q", tt.word, got, tt.want)
		}
	}
}
