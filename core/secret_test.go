package core_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/fairlead-iot/fairlead/core"
)

func TestASecretIsShownByNothingButReveal(t *testing.T) {
	const text = "c2VjcmV0"
	s := core.Secret(text)
	if s.Reveal() != text {
		t.Errorf("reveal: %q", s.Reveal())
	}
	holder := struct {
		Key     core.Secret
		Pointer *core.Secret
		List    []core.Secret
		Map     map[string]core.Secret
	}{s, &s, []core.Secret{s}, map[string]core.Secret{"k": s}}
	shown := map[string]string{}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "% x", "%d", "%t", "%T %v", "%10s", "%-3v", "%U"} {
		shown[verb] = fmt.Sprintf(verb, s)
		shown[verb+" of a struct"] = fmt.Sprintf(verb, holder)
	}
	shown["error"] = fmt.Errorf("sign with %w %v", fmt.Errorf("key %s", s), s).Error()
	shown["print"] = fmt.Sprint(s, &s, holder)
	asJSON, err := json.Marshal(holder)
	if err != nil {
		t.Fatal(err)
	}
	shown["json"] = string(asJSON)
	for name, handler := range map[string]func(*bytes.Buffer) slog.Handler{
		"slog text": func(b *bytes.Buffer) slog.Handler { return slog.NewTextHandler(b, nil) },
		"slog json": func(b *bytes.Buffer) slog.Handler { return slog.NewJSONHandler(b, nil) },
	} {
		var b bytes.Buffer
		log := slog.New(handler(&b))
		log.Info("x", "secret", s, "any", slog.AnyValue(s), "holder", holder, "group", slog.GroupValue(slog.Any("s", s)))
		log.With("s", s).WithGroup("g").Info("y", "t", []core.Secret{s})
		shown[name] = b.String()
		if !strings.Contains(b.String(), "[redacted]") {
			t.Errorf("%s: %s", name, b.String())
		}
	}
	hex := fmt.Sprintf("%x", text)
	for name, got := range shown {
		if strings.Contains(got, text) || strings.Contains(strings.ToLower(strings.ReplaceAll(got, " ", "")), hex) {
			t.Errorf("%s shows it: %s", name, got)
		}
	}
	for verb, want := range map[string]string{"%v": "[redacted]", "%x": "[redacted]", "%#v": "[redacted]"} {
		if shown[verb] != want {
			t.Errorf("%s: %q, want %q", verb, shown[verb], want)
		}
	}
}
