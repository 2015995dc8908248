package config

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/go-viper/mapstructure/v2"
	"github.com/knadh/koanf/providers/confmap"
	"github.com/knadh/koanf/providers/env/v2"
	"github.com/knadh/koanf/v2"
)

// EnvPrefix begins the variables that override keys: FAIRLEAD__CONNECTION__KEEP_ALIVE is connection.keep_alive.
const EnvPrefix = "FAIRLEAD__"

// koanfDelim parts keys within koanf. It stands in no key of ours and cannot be typed by accident, unlike a dot, so that
// koanf never takes one key for two.
const koanfDelim = "\x1f"

// Options are the layers above the files.
type Options struct {
	// Environ holds "NAME=value" as os.Environ does; nil means os.Environ itself.
	Environ []string
	// Set holds "key=value" from flags; the last word on each key.
	Set []string
}

func (o Options) environ() []string {
	if o.Environ == nil {
		return os.Environ()
	}
	return o.Environ
}

func (o Options) getenv(name string) string {
	for _, e := range slices.Backward(o.environ()) {
		if k, v, ok := strings.Cut(e, "="); ok && k == name {
			return v
		}
	}
	return ""
}

// Load reads the file at path, the files of its conf.d, the environment and o.Set, each overriding the one before, on
// top of the defaults. An error of type *Error holds every problem found in them. Load reads no secret, no certificate
// file and no network: Config.CheckFiles and Source.Resolve do.
func Load(path string, o Options) (*Config, error) {
	l := loader{
		root: schema(), options: o, at: map[string]Pos{},
		ko: koanf.NewWithConf(koanf.Conf{Delim: koanfDelim, StrictMerge: true}),
	}
	if err := l.merge(defaults(l.root)); err != nil {
		return nil, err
	}
	l.files = append([]string{path}, confd(path)...)
	for _, f := range l.files {
		if err := l.loadFile(f); err != nil {
			return nil, err
		}
	}
	if err := l.loadEnv(); err != nil {
		return nil, err
	}
	if err := l.loadSet(); err != nil {
		return nil, err
	}
	c, err := l.unmarshal()
	if err != nil {
		return nil, err
	}
	l.fill(c)
	c.resolveCommands()
	c.resolveUploads()
	if !l.broken {
		read := l.problems
		for _, p := range c.validate(l.root) {
			if !slices.ContainsFunc(read, p.followsFrom) {
				l.problems = append(l.problems, p)
			}
		}
	}
	if len(l.problems) > 0 {
		return nil, &Error{Problems: sortProblems(l.problems, l.files)}
	}
	return c, nil
}

// Default returns the configuration without a file: every default, and no identity.
func Default() *Config {
	l := loader{root: schema(), at: map[string]Pos{}, ko: koanf.NewWithConf(koanf.Conf{Delim: koanfDelim, StrictMerge: true})}
	err := l.merge(defaults(l.root))
	var c *Config
	if err == nil {
		c, err = l.unmarshal()
	}
	if err != nil {
		panic(err) // only our own table can cause it; a test looks
	}
	l.fill(c)
	return c
}

// confd returns the files of the directory of additions, in the order of their names. For a file called fairlead.yaml
// that is conf.d beside it; for any other, its own name with .d in place of the extension. Neither need exist.
func confd(path string) []string {
	base := strings.TrimSuffix(filepath.Base(path), filepath.Ext(path))
	dir := filepath.Join(filepath.Dir(path), base+".d")
	if base == "fairlead" {
		dir = filepath.Join(filepath.Dir(path), "conf.d")
	}
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return []string{dir} // reading it fails again, and says so
	}
	var names []string
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") || e.IsDir() {
			continue
		}
		switch filepath.Ext(e.Name()) {
		case ".yaml", ".yml", ".toml", ".json":
			names = append(names, filepath.Join(dir, e.Name()))
		}
	}
	slices.Sort(names)
	return names
}

type loader struct {
	root     *field
	options  Options
	ko       *koanf.Koanf
	files    []string
	at       map[string]Pos
	plugins  []string
	problems []Problem
	broken   bool // a file could not be read at all: what seems to be missing may stand there
}

func (l *loader) merge(m map[string]any) error {
	if err := l.ko.Load(confmap.Provider(m, ""), nil); err != nil {
		return fmt.Errorf("merge configuration: %w", err)
	}
	return nil
}

func (l *loader) loadFile(name string) error {
	data, err := readFile(name, maxFileSize, false)
	if err != nil {
		text := err.Error()
		if errors.Is(err, fs.ErrNotExist) {
			text = "no such file: name the configuration with -c FILE"
		}
		l.problems = append(l.problems, Problem{Pos: Pos{File: name}, Text: strings.TrimPrefix(text, "read "+name+": ")})
		l.broken = true
		return nil
	}
	root, problems := parse(name, data)
	l.problems = append(l.problems, problems...)
	if root == nil || len(problems) > 0 || root.kind != mapNode && root.kind != nullNode {
		l.broken = true
	}
	if root == nil {
		return nil
	}
	r := newReader(l.root, filepath.Dir(name))
	values := r.section(l.root, root, "")
	l.adopt(r)
	return l.merge(values)
}

// adopt takes over what a layer's reader learned besides the values.
func (l *loader) adopt(r *reader) {
	for _, key := range r.replaced {
		maps.DeleteFunc(l.at, func(k string, _ Pos) bool {
			return strings.HasPrefix(k, key+".") || strings.HasPrefix(k, key+"[")
		})
	}
	maps.Copy(l.at, r.at)
	for _, name := range r.plugins {
		if !slices.Contains(l.plugins, name) {
			l.plugins = append(l.plugins, name)
		}
	}
	l.problems = append(l.problems, r.problems...)
}

func (l *loader) loadEnv() error {
	p := env.Provider(koanfDelim, env.Opt{
		Prefix:      EnvPrefix,
		EnvironFunc: l.options.environ,
		TransformFunc: func(name, value string) (string, any) {
			key := strings.ReplaceAll(strings.ToLower(strings.TrimPrefix(name, EnvPrefix)), "__", ".")
			v := l.override(key, value, Pos{File: name})
			if v == nil {
				return "", nil
			}
			return strings.ReplaceAll(key, ".", koanfDelim), v
		},
	})
	if err := l.ko.Load(p, nil); err != nil {
		return fmt.Errorf("merge environment: %w", err)
	}
	return nil
}

func (l *loader) loadSet() error {
	for _, s := range l.options.Set {
		key, value, ok := strings.Cut(s, "=")
		at := Pos{File: "--set"}
		if !ok {
			// The text is not shown: it may be a secret in the wrong place.
			l.problems = append(l.problems, Problem{Pos: at, Text: "write key=value, as in connection.keep_alive=30s"})
			continue
		}
		v := l.override(key, value, at)
		if v == nil {
			continue
		}
		if err := l.ko.Load(confmap.Provider(map[string]any{strings.ReplaceAll(key, ".", koanfDelim): v}, koanfDelim), nil); err != nil {
			return fmt.Errorf("merge --set: %w", err)
		}
	}
	return nil
}

// override reads a key that the environment or a flag gives; nil means that it may not, or that the value is wrong.
func (l *loader) override(key, value string, at Pos) any {
	f := l.root
	for part := range strings.SplitSeq(key, ".") {
		if f = f.child(part); f == nil {
			break
		}
	}
	problem := func(format string, args ...any) any {
		l.problems = append(l.problems, Problem{Pos: at, Key: displayKey(key), Text: fmt.Sprintf(format, args...)})
		return nil
	}
	switch {
	case f == nil:
		var allowed []string
		l.root.walk("", func(k string, f *field) {
			if f.env {
				allowed = append(allowed, k)
			}
		})
		near := nearest(key, allowed)
		if near != "" && at.File != "--set" {
			near = EnvPrefix + strings.ToUpper(strings.ReplaceAll(near, ".", "__"))
		}
		return problem(unknownKey+"%s", didYouMean(near))
	case f.kind == sourceKind:
		return problem("a secret never comes this way: write %s: {env: NAME} in the file and set NAME", key)
	case !f.env:
		return problem("can be set in the file only")
	}
	r := newReader(l.root, "")
	v := r.value(f, scalar(f, value, at), key)
	r.at[key] = at
	l.adopt(r)
	return v
}

// scalar turns a text from outside the files into the node that a file would hold.
func scalar(f *field, s string, at Pos) *node {
	n := &node{kind: stringNode, pos: at, text: s}
	switch f.kind {
	case boolKind:
		if s == "true" || s == "false" {
			n.kind, n.flag = boolNode, s == "true"
		}
	case intKind, durationKind, sizeKind:
		if i, err := strconv.ParseInt(s, 10, 64); err == nil {
			n.kind, n.integer = intNode, i
		}
	default:
	}
	return n
}

func (l *loader) unmarshal() (*Config, error) {
	var raw struct {
		Config  `koanf:",squash"`
		Plugins map[string]Plugin `koanf:"plugins"`
	}
	err := l.ko.UnmarshalWithConf("", &raw, koanf.UnmarshalConf{DecoderConfig: &mapstructure.DecoderConfig{
		TagName: "koanf", ErrorUnused: true,
	}})
	if err != nil {
		return nil, fmt.Errorf("decode configuration: %w", err)
	}
	c := raw.Config
	for _, name := range l.plugins {
		if p, ok := raw.Plugins[name]; ok {
			p.Name = name
			c.Plugins = append(c.Plugins, p)
		}
	}
	c.files, c.at = l.files, l.at
	return &c, nil
}

// defaults returns the defaults of the keys that stand at fixed places.
func defaults(f *field) map[string]any {
	m := map[string]any{}
	for i := range f.fields {
		c := &f.fields[i]
		switch {
		case c.kind == sectionKind:
			if sub := defaults(c); len(sub) > 0 {
				m[c.name] = sub
			}
		case c.def != "" && c.kind != proxyKind:
			m[c.name] = defaultValue(c)
		}
	}
	return m
}

func defaultValue(f *field) any {
	r := newReader(f, "")
	return r.value(f, scalar(f, f.def, Pos{}), f.name)
}

// fill adds the defaults that depend on something else, and those within lists.
func (l *loader) fill(c *Config) {
	if len(c.Transports) == 0 && !c.IsSet("transports") {
		c.Transports = []Transport{{Use: UseMQTT}}
	}
	for i := range c.Transports {
		t := &c.Transports[i]
		if t.Port == 0 && t.Use == UseWebSocket {
			t.Port = 443
		} else if t.Port == 0 {
			t.Port = 8883
		}
		if t.Proxy.Mode == "" {
			t.Proxy.Mode = ProxyNone
		}
	}
	if c.Uploads.Proxy.Mode == "" {
		c.Uploads.Proxy.Mode = ProxyNone
	}
	if c.Outbox.OnFull == "" {
		if c.Outbox.OnFull = "block"; c.Outbox.Mode == "disk" {
			c.Outbox.OnFull = "drop_oldest"
		}
	}
	if p := c.Device.Provisioning; p != nil {
		p.Host = cmp.Or(p.Host, "global.azure-devices-provisioning.net")
		p.Reprovision = cmp.Or(p.Reprovision, ReprovisionRefused)
	}
	for i := range c.Plugins {
		if p := &c.Plugins[i]; p.MethodTimeout == 0 {
			p.MethodTimeout = defaultMethodTimeout
		}
	}
	if c.StateDir == "" && !c.IsSet("state_dir") {
		l.fillStateDir(c)
	}
}

func (l *loader) fillStateDir(c *Config) {
	// systemd names several directories with colons between; the first is the main one.
	if dir, _, _ := strings.Cut(l.options.getenv("STATE_DIRECTORY"), ":"); dir != "" {
		c.StateDir = dir
		return
	}
	if home := l.options.getenv("HOME"); home != "" {
		c.StateDir = filepath.Join(home, ".local", "state", "fairlead")
		return
	}
	l.problems = append(l.problems, c.Problem("state_dir", "is missing: neither $STATE_DIRECTORY nor $HOME says where it could be"))
}
