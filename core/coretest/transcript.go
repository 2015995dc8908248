package coretest

import (
	"bufio"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fairlead-iot/fairlead/core"
)

var rewrite = flag.Bool("rewrite", false, "rewrite the transcripts with what the machine does now")

// RunTranscripts runs each file that matches the pattern as a subtest against a fresh machine. With -rewrite it writes
// down what the machine does instead; the difference is to be reviewed.
//
// A transcript is a story to be read aloud. Its lines are
//
//	# prose
//	config KEY=VALUE …        before the first event; see configure
//	plugin NAME [methods=a,b] [match=k:v,…] [timeout=D]   another plugin
//	+10s                      time passes; what falls due on the way happens on the way
//	connected epoch=1         an event, as its String gives it
//	  → subscribe epoch=1 …   the orders that follow, checked to the letter
//
// Jitter is left out, so that times can be read.
func RunTranscripts(t *testing.T, pattern string) {
	t.Helper()
	files, err := filepath.Glob(pattern)
	if err != nil || len(files) == 0 {
		t.Fatalf("no transcripts match %s: %v", pattern, err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got, err := Play(string(text))
			if err != nil {
				t.Fatal(err)
			}
			if *rewrite {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil { //nolint:gosec // a test's golden file
					t.Fatal(err)
				}
				return
			}
			if diff := cmp.Diff(strings.Split(string(text), "\n"), strings.Split(got, "\n")); diff != "" {
				t.Errorf("%s differs from what the machine does (-written +done):\n%s", file, diff)
			}
		})
	}
}

// Play runs one transcript and returns it with the orders that the machine gives.
func Play(text string) (string, error) {
	p := player{cfg: DefaultConfig()}
	scanner := bufio.NewScanner(strings.NewReader(text))
	for n := 1; scanner.Scan(); n++ {
		if err := p.line(scanner.Text()); err != nil {
			return "", fmt.Errorf("line %d: %w", n, err)
		}
	}
	return p.out.String(), scanner.Err()
}

// DefaultConfig is the configuration with which a transcript begins: the product's defaults.
func DefaultConfig() core.Config {
	return core.Config{
		AutoConnect: true, ConnectAtStart: true, ConnectionRetry: true, RetryInterval: 10 * time.Second, RetryMax: 10 * time.Minute,
		EnsureDesired: true, Routes: 1, Limits: core.DefaultLimits(),
	}
}

type player struct {
	cfg core.Config
	m   *core.Machine
	now core.Instant
	out strings.Builder
}

func (p *player) line(s string) error {
	if strings.HasPrefix(s, "  →") {
		return nil // written anew below
	}
	fmt.Fprintln(&p.out, s)
	switch {
	case s == "" || strings.HasPrefix(s, "#"):
		return nil
	case strings.HasPrefix(s, "config "), strings.HasPrefix(s, "plugin "):
		if p.m != nil {
			return fmt.Errorf("%q comes after the first event", s)
		}
		return p.configure(strings.Fields(s))
	case strings.HasPrefix(s, "+"):
		d, err := time.ParseDuration(s[1:])
		if err != nil {
			return err
		}
		return p.pass(d)
	}
	ev, err := ParseEvent(s)
	if err != nil {
		return err
	}
	p.step(ev, "")
	return nil
}

// pass lets time go by and ticks at each deadline on the way.
func (p *player) pass(d time.Duration) error {
	end := p.now.Add(d)
	for range 1000 {
		at, ok := p.machine().Deadline()
		if !ok || at > end {
			p.now = end
			return nil
		}
		p.now = max(p.now, at)
		p.step(core.Ticked{}, fmt.Sprintf("@%v ", time.Duration(p.now)))
	}
	return fmt.Errorf("1000 ticks within %v: the machine spins", d)
}

func (p *player) machine() *core.Machine {
	if p.m == nil {
		p.m = core.New(p.cfg, nil)
	}
	return p.m
}

func (p *player) step(ev core.Event, prefix string) {
	for _, e := range p.machine().Step(p.now, ev) {
		fmt.Fprintf(&p.out, "  → %s%s\n", prefix, e)
	}
}

func (p *player) configure(words []string) error {
	if words[0] == "plugin" {
		c := core.PluginConfig{Name: words[1]}
		for _, w := range words[2:] {
			key, value, _ := strings.Cut(w, "=")
			switch key {
			case "methods":
				c.Methods = strings.Split(value, ",")
			case "match":
				c.Match = parseMap(value)
			case "timeout":
				d, err := time.ParseDuration(value)
				if err != nil {
					return err
				}
				c.MethodTimeout = d
			default:
				return fmt.Errorf("unknown word %q", w)
			}
		}
		p.cfg.Plugins = append(p.cfg.Plugins, c)
		return nil
	}
	for _, w := range words[1:] {
		key, value, _ := strings.Cut(w, "=")
		target := reflect.ValueOf(&p.cfg).Elem()
		if name, ok := strings.CutPrefix(key, "limits."); ok {
			target, key = target.FieldByName("Limits"), name
		}
		if err := setField(target, key, value); err != nil {
			return err
		}
	}
	return nil
}

func parseMap(s string) map[string]string {
	out := map[string]string{}
	for pair := range strings.SplitSeq(s, ",") {
		k, v, _ := strings.Cut(pair, ":")
		out[k] = v
	}
	return out
}

// events lists every event by the first word of its line.
var events = func() map[string]reflect.Type {
	out := map[string]reflect.Type{}
	for _, ev := range []core.Event{
		core.Started{},
		core.Ticked{},
		core.CredentialFetched{},
		core.CredentialFailed{},
		core.Opened{},
		core.OpenFailed{},
		core.Connected{},
		core.ConnectFailed{},
		core.Lost{},
		core.Closed{},
		core.Subscribed{},
		core.SubscribeFailed{},
		core.CredentialChanged{},
		core.RouteRequested{},
		core.NetworkChanged{},
		core.Submitted{},
		core.Withdrawn{},
		core.Acked{},
		core.Requested{},
		core.Replied{},
		core.ConnectRequested{},
		core.DisconnectRequested{},
		core.OpCancelled{},
		core.ShutdownRequested{},
		core.MethodCalled{},
		core.MessageReceived{},
		core.DesiredChanged{},
		core.Responded{},
		core.PluginReady{},
		core.PluginExited{},
		core.Returned{},
	} {
		name, _, _ := strings.Cut(ev.String(), " ")
		out[name] = reflect.TypeOf(ev)
	}
	return out
}()

// ParseEvent reads an event from the line that its String writes.
func ParseEvent(s string) (core.Event, error) {
	words, err := split(s)
	if err != nil {
		return nil, err
	}
	typ, ok := events[words[0]]
	if !ok {
		return nil, fmt.Errorf("no event is called %q", words[0])
	}
	v := reflect.New(typ).Elem()
	for _, w := range words[1:] {
		key, value, hasValue := strings.Cut(w, "=")
		if !hasValue {
			value = "true"
		}
		target := v
		if f := v.FieldByName("Fault"); f.IsValid() && f.FieldByNameFunc(func(n string) bool { return same(n, key) }).IsValid() {
			target = f
		}
		if err := setField(target, key, value); err != nil {
			return nil, err
		}
	}
	return v.Interface().(core.Event), nil
}

// split cuts a line into words; a quoted value may hold spaces.
func split(s string) ([]string, error) {
	var words []string
	for s = strings.TrimSpace(s); s != ""; s = strings.TrimLeft(s, " ") {
		end := strings.IndexAny(s, " \"")
		if end < 0 {
			return append(words, s), nil
		}
		if s[end] == ' ' {
			words, s = append(words, s[:end]), s[end:]
			continue
		}
		quoted, err := strconv.QuotedPrefix(s[end:])
		if err != nil {
			return nil, fmt.Errorf("unquote %s: %w", s[end:], err)
		}
		text, err := strconv.Unquote(quoted)
		if err != nil {
			return nil, fmt.Errorf("unquote %s: %w", quoted, err)
		}
		words, s = append(words, s[:end]+text), s[end+len(quoted):]
	}
	return words, nil
}

func same(field, key string) bool {
	return strings.EqualFold(field, strings.NewReplacer("-", "", "_", "").Replace(key))
}

func setField(v reflect.Value, key, text string) error {
	f := v.FieldByNameFunc(func(n string) bool { return same(n, key) })
	if !f.IsValid() {
		return fmt.Errorf("%s has no %q", v.Type(), key)
	}
	if names, ok := named[f.Type()]; ok {
		for i, n := range names {
			if n == text {
				f.SetUint(uint64(i))
				return nil
			}
		}
		return fmt.Errorf("%q is no %s", text, f.Type())
	}
	switch f.Interface().(type) {
	case time.Duration:
		d, err := time.ParseDuration(text)
		if err != nil {
			return fmt.Errorf("parse %s: %w", key, err)
		}
		f.SetInt(int64(d))
		return nil
	case []string:
		f.Set(reflect.ValueOf(strings.Split(text, ",")))
		return nil
	case map[string]string:
		f.Set(reflect.ValueOf(parseMap(text)))
		return nil
	}
	switch f.Kind() { //nolint:exhaustive // the kinds that events have
	case reflect.String:
		f.SetString(text)
	case reflect.Bool:
		f.SetBool(text == "true")
	case reflect.Int, reflect.Int64:
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			return fmt.Errorf("parse %s: %w", key, err)
		}
		f.SetInt(n)
	case reflect.Uint8, reflect.Uint32, reflect.Uint64:
		n, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			return fmt.Errorf("parse %s: %w", key, err)
		}
		f.SetUint(n)
	default:
		return fmt.Errorf("cannot set %s", f.Type())
	}
	return nil
}

// named are the types that are written by name, in the order of their values.
var named = map[reflect.Type][]string{
	reflect.TypeFor[core.Kind]():    names(core.TakenOver),
	reflect.TypeFor[core.Feature](): names(core.FeatureDesired),
	reflect.TypeFor[core.Verdict](): names(core.Abandon),
}

func names[T interface {
	~uint8
	fmt.Stringer
}](last T) []string {
	var out []string
	for i := T(0); i <= last; i++ {
		out = append(out, i.String())
	}
	return out
}
