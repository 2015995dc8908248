package config_test

import (
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/fairlead-iot/fairlead/config"
)

var update = flag.Bool("update", false, "write the golden files anew")

// noEnv is an environment of its own, so that the tester's does not matter.
var noEnv = []string{"HOME=/home/dev"}

// load writes files, by name, into a directory, and loads the one called main.
func load(t *testing.T, main string, files map[string]string, o config.Options) (*config.Config, error) {
	t.Helper()
	t.Chdir(t.TempDir())
	for name, text := range files {
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if o.Environ == nil {
		o.Environ = noEnv
	}
	return config.Load(main, o)
}

func problems(err error) []string {
	if err == nil {
		return nil
	}
	return strings.Split(err.Error(), "\n")
}

const identity = "device: {connection_string: {file: device.cs}}\n"

func TestBrokenConfigurationsSayWhereAndWhat(t *testing.T) {
	t.Chdir(filepath.Join("testdata", "broken"))
	entries, err := os.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	cases := 0
	for _, e := range entries {
		name := e.Name()
		if filepath.Ext(name) == ".txt" {
			continue
		}
		cases++
		t.Run(name, func(t *testing.T) {
			_, err := config.Load(name, config.Options{Environ: noEnv})
			if err == nil {
				t.Fatal("loaded without a problem, though it is broken")
			}
			if _, ok := errors.AsType[*config.Error](err); !ok {
				t.Fatalf("error is %T, want *config.Error: %v", err, err)
			}
			got, golden := err.Error()+"\n", name+".txt"
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), got); diff != "" {
				t.Errorf("problems differ (-want +got); go test -update accepts them:\n%s", diff)
			}
			if strings.Contains(got, "c2VjcmV0") || strings.Contains(got, "12345678901234567890") {
				t.Error("the problems show a secret")
			}
		})
	}
	if cases < 30 {
		t.Errorf("only %d broken configurations were found", cases)
	}
}

func TestExampleIsRight(t *testing.T) {
	c, err := config.Load("example.yaml", config.Options{Environ: noEnv})
	if err != nil {
		t.Fatal(err)
	}
	proxy := config.Proxy{Mode: "fixed", Type: "HTTP", Addr: "proxy.plant.lan", Port: 3128, Username: "gw", Password: config.Source{File: "/etc/fairlead/proxy.pw"}}
	want := &config.Config{
		Version:    1,
		Device:     config.Device{ConnectionString: config.Source{File: "/etc/fairlead/device.cs"}, ProductInfo: "acme-gw/3.2", SASTokenTTL: time.Hour},
		Connection: config.Connection{AutoConnect: true, Retry: true, RetryInterval: 10 * time.Second, RetryMax: 10 * time.Minute, EnsureDesiredProperties: true, KeepAlive: time.Minute},
		Transports: []config.Transport{
			{Use: "mqtt", Port: 8883, Proxy: config.Proxy{Mode: "none"}},
			{Use: "mqttws", Port: 443, Proxy: proxy},
		},
		Uploads: config.Uploads{Proxy: proxy, Port: 443, Files: 2, Blocks: 4, MaxStreams: 1 << 30},
		Outbox:  config.Outbox{Mode: "disk", Linger: 2 * time.Second, MaxBytes: 64 << 20, MaxMessages: 100000, MaxAge: 14 * 24 * time.Hour, OnFull: "drop_oldest"},
		Plugins: []config.Plugin{
			{Name: "hostmetrics", Builtin: "hostmetrics", MethodTimeout: 25 * time.Second, Settings: config.Settings{"interval": "60s", "disks": []any{"/"}}},
			{
				Name: "press-control", Command: []string{"/usr/lib/acme/press-control", "--line=4"}, Methods: []string{"setPressure", "stop"},
				Messages: &config.Messages{Match: config.StringMap{"target": "press"}}, TwinKeys: []string{"press"},
				MethodTimeout: 25 * time.Second, Env: config.StringMap{"LANG": "C.UTF-8"},
			},
		},
		StateDir: "/var/lib/fairlead",
		Log:      config.Log{Level: "info", Format: "text"},
	}
	if diff := cmp.Diff(want, c, cmpopts.IgnoreUnexported(config.Config{})); diff != "" {
		t.Errorf("the example reads differently (-want +got):\n%s", diff)
	}
	var unsupported []string
	for _, p := range c.Unsupported() {
		unsupported = append(unsupported, p.String())
	}
	wantUnsupported := []string{
		"example.yaml:32:9: outbox.mode: an outbox on disk (write mode: memory meanwhile): this version cannot do that yet",
	}
	if diff := cmp.Diff(wantUnsupported, unsupported); diff != "" {
		t.Errorf("Unsupported (-want +got):\n%s", diff)
	}
}

// Each line that the example shows as an alternative is taken when its mark is removed.
func TestExampleAlternativesAreRight(t *testing.T) {
	b, err := os.ReadFile("example.yaml")
	if err != nil {
		t.Fatal(err)
	}
	text := string(b)
	const chosen = "  connection_string: {file: /etc/fairlead/device.cs}"
	tests := []struct{ key, unsupported string }{
		{"symmetric_key", ""},
		{"sastoken", ""},
		{"x509", ""},
		{"provisioning", ""},
		{"edge_environment", ""},
		{"gateway_hostname", ""},
		{"server_verification_cert", ""},
		{"extra_ca", ""},
		{"cipher", ""},
	}
	for _, tt := range tests {
		t.Run(tt.key, func(t *testing.T) {
			if !strings.Contains(text, "  # "+tt.key+":") {
				t.Fatalf("the example does not mention %s", tt.key)
			}
			changed := strings.Replace(text, "  # "+tt.key+":", "  "+tt.key+":", 1)
			switch tt.key {
			case "gateway_hostname", "server_verification_cert", "extra_ca", "cipher":
			default:
				changed = strings.Replace(changed, chosen, "", 1)
			}
			changed = strings.Replace(changed, "mode: disk", "mode: memory", 1)
			c, err := load(t, "c.yaml", map[string]string{"c.yaml": changed}, config.Options{})
			if err != nil {
				t.Fatal(err)
			}
			found := tt.unsupported == ""
			for _, p := range c.Unsupported() {
				found = found || p.Key == tt.unsupported
			}
			if !found {
				t.Errorf("Unsupported does not list %s: %v", tt.unsupported, c.Unsupported())
			}
		})
	}
}

func TestFormatsReadTheSame(t *testing.T) {
	files := map[string]string{
		"c.yaml": `
version: 1
device: {symmetric_key: {hostname: hub.azure-devices.net, device_id: gw-1, module_id: m, key: {env: KEY}}}
connection: {keep_alive: 90}
transports: [{use: mqtt, port: 8884, address: 127.0.0.1}]
plugins:
  b: {command: [/bin/b, -x], settings: {n: 3, f: 1.5, on: true, none: null, deep: {list: [a, 1]}}}
  a: {builtin: hostmetrics, methods: []}
`,
		"c.toml": `
version = 1
[device.symmetric_key]
hostname = "hub.azure-devices.net"
device_id = "gw-1"
module_id = "m"
key.env = "KEY"
[connection]
keep_alive = 90
[[transports]]
use = "mqtt"
port = 8884
address = "127.0.0.1"
[plugins.b]
command = ["/bin/b", "-x"]
settings = {n = 3, f = 1.5, on = true, deep = {list = ["a", 1]}}
[plugins.a]
builtin = "hostmetrics"
methods = []
`,
		"c.json": `{
	"version": 1,
	"device": {"symmetric_key": {"hostname": "hub.azure-devices.net", "device_id": "gw-1", "module_id": "m", "key": {"env": "KEY"}}},
	"connection": {"keep_alive": 90},
	"transports": [{"use": "mqtt", "port": 8884, "address": "127.0.0.1"}],
	"plugins": {
		"b": {"command": ["/bin/b", "-x"], "settings": {"n": 3, "f": 1.5, "on": true, "none": null, "deep": {"list": ["a", 1]}}},
		"a": {"builtin": "hostmetrics", "methods": []}
	}
}`,
	}
	want, err := load(t, "c.yaml", files, config.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if id := want.Device.SymmetricKey.ModuleID; id != "m" {
		t.Errorf("module %q", id)
	}
	if names := want.Plugins[0].Name + want.Plugins[1].Name; names != "ba" {
		t.Errorf("plugins are not in file order: %s", names)
	}
	if want.Plugins[1].Methods == nil || want.Plugins[0].Methods != nil {
		t.Error("methods: [] means none, and is not the same as leaving methods out")
	}
	for _, name := range []string{"c.toml", "c.json"} {
		got, err := config.Load(name, config.Options{Environ: noEnv})
		if err != nil {
			t.Fatal(err)
		}
		if name == "c.toml" { // TOML has no null
			got.Plugins[0].Settings["none"] = nil
		}
		if diff := cmp.Diff(want, got, cmpopts.IgnoreUnexported(config.Config{})); diff != "" {
			t.Errorf("%s differs from c.yaml (-yaml +%s):\n%s", name, name, diff)
		}
	}
}

func TestLayers(t *testing.T) {
	files := map[string]string{
		"gw.yaml": identity + `
connection: {keep_alive: 10s, connection_retry: false}
transports: [{use: mqtt, port: 1}, {use: mqtt, port: 2}]
plugins:
  a: {command: [./bin/a], settings: {x: 1, y: 2}, env: {A: "1"}}
log: {level: warn}
`,
		"gw.d/10-first.yaml": "connection: {keep_alive: 20s}\nlog:\ntransports: [{use: mqtt, port: 3}]\n",
		"gw.d/20-then.toml":  "[connection]\nkeep_alive = 30\n[device]\nconnection_string.env = \"CS\"\n[plugins.a.settings]\nz = 3\n[plugins.b]\nbuiltin = \"hostmetrics\"\n",
		"gw.d/.hidden.yaml":  "nonsense",
		"gw.d/old.yaml.bak":  "nonsense",
	}
	c, err := load(t, "gw.yaml", files, config.Options{
		Environ: append([]string{"FAIRLEAD__CONNECTION__AUTO_CONNECT=false", "FAIRLEAD__LOG__FORMAT=json", "FAIRLEAD_OTHER=x"}, noEnv...),
		Set:     []string{"log.format=text", "outbox.max_bytes=1MiB", "connection.connection_retry_interval=5"},
	})
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	checks := []struct {
		what      string
		got, want any
	}{
		{"the last file of conf.d counts", c.Connection.KeepAlive, 30 * time.Second},
		{"a key that conf.d leaves out stays", c.Connection.Retry, false},
		{"an empty section wipes nothing", c.Log.Level, "warn"},
		{"lists are replaced", len(c.Transports), 1},
		{"the environment overrides the files", c.Connection.AutoConnect, false},
		{"flags override the environment", c.Log.Format, "text"},
		{"flags take sizes", c.Outbox.MaxBytes, int64(1 << 20)},
		{"flags take seconds", c.Connection.RetryInterval, 5 * time.Second},
		{"a source is replaced as a whole", c.Device.ConnectionString, config.Source{Env: "CS"}},
		{"settings are replaced as a whole", c.Plugins[0].Settings, config.Settings{"z": int64(3)}},
		{"a plugin's other keys stay", c.Plugins[0].Env, config.StringMap{"A": "1"}},
		{"a command is relative to its file", c.Plugins[0].Command[0], filepath.Join(dir, "bin/a")},
		{"a plugin of conf.d comes after", c.Plugins[1].Name, "b"},
		{"the state directory's default", c.StateDir, "/home/dev/.local/state/fairlead"},
		{"files in order", c.Files(), []string{"gw.yaml", "gw.d/10-first.yaml", "gw.d/20-then.toml"}},
		{"places are those of the layer that counts", c.Where("connection.keep_alive").String(), "gw.d/20-then.toml:2:1"},
		{"places of the environment", c.Where("connection.auto_connect").String(), "FAIRLEAD__CONNECTION__AUTO_CONNECT"},
		{"places of what was not given", c.Where("connection.connection_retry_max").String(), "gw.d/20-then.toml:1:2"},
	}
	for _, tt := range checks {
		if diff := cmp.Diff(tt.want, tt.got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.what, diff)
		}
	}
}

func TestConfDBesideFairleadYAML(t *testing.T) {
	c, err := load(t, "etc/fairlead.yaml", map[string]string{
		"etc/fairlead.yaml":  "log: {level: debug}\n",
		"etc/conf.d/id.json": `{"device": {"connection_string": {"file": "device.cs"}}}`,
	}, config.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if got := filepath.Base(filepath.Dir(c.Device.ConnectionString.File)); got != "conf.d" {
		t.Errorf("the file is taken relative to %q, want the directory of the file that names it", got)
	}
}

func TestStateDirectory(t *testing.T) {
	tests := []struct {
		name    string
		environ []string
		file    string
		want    string
	}{
		{"systemd's comes first", []string{"STATE_DIRECTORY=/var/lib/a:/var/lib/b", "HOME=/root"}, "", "/var/lib/a"},
		{"home without systemd", []string{"HOME=/root"}, "", "/root/.local/state/fairlead"},
		{"the file wins", []string{"STATE_DIRECTORY=/var/lib/a"}, "state_dir: /srv/state\n", "/srv/state"},
		{"nothing says where", []string{"X=1"}, "", "c.yaml:1:1: state_dir: is missing: neither $STATE_DIRECTORY nor $HOME says where it could be"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c, err := load(t, "c.yaml", map[string]string{"c.yaml": identity + tt.file}, config.Options{Environ: tt.environ})
			got := ""
			if err != nil {
				got = err.Error()
			} else {
				got = c.StateDir
			}
			if got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestOverridesAreChecked(t *testing.T) {
	tests := []struct {
		name string
		env  string
		set  string
		want string
	}{
		{"unknown variable", "FAIRLEAD__CONNECTION__KEEPALIVE=1", "", `FAIRLEAD__CONNECTION__KEEPALIVE: connection.keepalive: unknown key (did you mean "FAIRLEAD__CONNECTION__KEEP_ALIVE"?)`},
		{"single underscore", "FAIRLEAD__CONNECTION_KEEP_ALIVE=1", "", `FAIRLEAD__CONNECTION_KEEP_ALIVE: connection_keep_alive: unknown key (did you mean "FAIRLEAD__CONNECTION__KEEP_ALIVE"?)`},
		{"secret", "FAIRLEAD__DEVICE__CONNECTION_STRING=c2VjcmV0", "", `FAIRLEAD__DEVICE__CONNECTION_STRING: device.connection_string: a secret never comes this way: write device.connection_string: {env: NAME} in the file and set NAME`},
		{"section", "FAIRLEAD__DEVICE=x", "", `FAIRLEAD__DEVICE: device: can be set in the file only`},
		{"plugin", "FAIRLEAD__PLUGINS__A__BUILTIN=x", "", `FAIRLEAD__PLUGINS__A__BUILTIN: plugins.a.builtin: unknown key`},
		{"bad value", "FAIRLEAD__CONNECTION__KEEP_ALIVE=1h", "", `FAIRLEAD__CONNECTION__KEEP_ALIVE: connection.keep_alive: 1h is too long: at most 29m`},
		{"bad bool", "FAIRLEAD__CONNECTION__AUTO_CONNECT=yes", "", `FAIRLEAD__CONNECTION__AUTO_CONNECT: connection.auto_connect: is a text: write true or false`},
		{"set without value", "", "connection.keep_alive", `--set: write key=value, as in connection.keep_alive=30s`},
		{"set unknown", "", "connection.keepalive=3", `--set: connection.keepalive: unknown key (did you mean "connection.keep_alive"?)`},
		{"set secret", "", "device.sastoken=c2VjcmV0", `--set: device.sastoken: a secret never comes this way: write device.sastoken: {env: NAME} in the file and set NAME`},
		{"set enum", "", "log.level=trace", `--set: log.level: "trace" is not known here: write debug, info, warn or error`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			o := config.Options{Environ: append([]string{tt.env}, noEnv...)}
			if tt.set != "" {
				o.Set = []string{tt.set}
			}
			_, err := load(t, "c.yaml", map[string]string{"c.yaml": identity}, o)
			if diff := cmp.Diff([]string{tt.want}, problems(err)); diff != "" {
				t.Errorf("problems (-want +got):\n%s", diff)
			}
		})
	}
}

func TestUnreadableFilesAreProblems(t *testing.T) {
	tests := []struct {
		name, file, want string
	}{
		{"missing", "nowhere.yaml", "nowhere.yaml: no such file: name the configuration with -c FILE"},
		{"directory", "dir.yaml", "dir.yaml: it is a directory, not a file"},
		{"too large", "large.yaml", "large.yaml: it is larger than 1048576 bytes"},
		{"alias bomb", "bomb.yaml", "bomb.yaml:1:1: more than 100000 values once the aliases are followed"},
		{"too deep", "deep.json", "deep.json:1:66: not JSON: nested more than 64 deep"},
	}
	bomb := "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n"
	for i := 1; i < 8; i++ {
		p, n := string(rune('0'+i-1)), string(rune('0'+i))
		bomb += "a" + n + ": &a" + n + " [" + strings.Repeat("*a"+p+",", 9) + "*a" + p + "]\n"
	}
	files := map[string]string{
		"dir.yaml/x": "",
		"large.yaml": strings.Repeat("# wide\n", 200_000),
		"bomb.yaml":  bomb,
		"deep.json":  strings.Repeat("[", 5000),
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := load(t, tt.file, files, config.Options{})
			got := problems(err)
			if len(got) == 0 {
				t.Fatal("no problem")
			}
			if tt.name == "alias bomb" { // where the limit is hit is nobody's concern
				for _, g := range got {
					if strings.HasSuffix(g, "more than 100000 values once the aliases are followed") {
						return
					}
				}
			}
			if got[0] != tt.want {
				t.Errorf("got %q, want %q", got[0], tt.want)
			}
		})
	}
}

func TestDefaultIsWhatAnEmptyFileGives(t *testing.T) {
	t.Setenv("HOME", "/home/dev")
	t.Setenv("STATE_DIRECTORY", "")
	want := config.Default()
	c, err := load(t, "c.yaml", map[string]string{"c.yaml": identity}, config.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if len(c.Unsupported()) > 0 {
		t.Errorf("the defaults cannot be run: %v", c.Unsupported())
	}
	c.Device.ConnectionString = config.Source{}
	if diff := cmp.Diff(want, c, cmpopts.IgnoreUnexported(config.Config{})); diff != "" {
		t.Errorf("(-Default +file):\n%s", diff)
	}
}

func TestUnsupportedSaysWhatIsMissingYet(t *testing.T) {
	tests := []struct {
		name, file string
		want       []string
	}{
		{"what runs", "transports: [{use: mqtt, proxy_options: environment}]\nuploads: {proxy_options: {proxy_type: HTTP, proxy_addr: p, proxy_port: 3128}}\noutbox: {mode: memory, on_full: block, max_bytes: 1MiB, max_messages: 10, linger: 1s}\nlog: {format: json}\nplugins: {a: {builtin: hostmetrics}}\n", nil},
		{"dropping", "outbox: {on_full: drop_newest}\n", []string{"c.yaml:2:19: outbox.on_full: drop_newest in memory (write block meanwhile): this version cannot do that yet"}},
		{"age", "outbox: {max_age: 1d}\n", []string{"c.yaml:2:19: outbox.max_age: a limit of age in memory: this version cannot do that yet"}},
		{"journald", "log: {format: journald}\n", []string{"c.yaml:2:15: log.format: a log to journald (write text meanwhile: systemd takes stderr): this version cannot do that yet"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c, err := load(t, "c.yaml", map[string]string{"c.yaml": identity + tt.file}, config.Options{})
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, p := range c.Unsupported() {
				got = append(got, p.String())
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("Unsupported (-want +got):\n%s", diff)
			}
		})
	}
}

func FuzzLoad(f *testing.F) {
	for _, dir := range []string{".", "testdata/broken"} {
		entries, err := os.ReadDir(dir)
		if err != nil {
			f.Fatal(err)
		}
		for _, e := range entries {
			format := strings.TrimPrefix(filepath.Ext(e.Name()), ".")
			if format != "yaml" && format != "toml" && format != "json" {
				continue
			}
			b, err := os.ReadFile(filepath.Join(dir, e.Name()))
			if err != nil {
				f.Fatal(err)
			}
			f.Add(format, b)
		}
	}
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, format string, data []byte) {
		if format != "yaml" && format != "toml" && format != "json" {
			return
		}
		name := filepath.Join(dir, "c."+format)
		if err := os.WriteFile(name, data, 0o600); err != nil {
			t.Fatal(err)
		}
		c, err := config.Load(name, config.Options{Environ: noEnv})
		switch e, ok := errors.AsType[*config.Error](err); {
		case err == nil:
			c.Unsupported()
		case !ok:
			t.Errorf("error is %T, want *config.Error: %v", err, err)
		default:
			for _, p := range e.Problems {
				if p.Pos.File == "" || strings.Contains(p.String(), "\n") {
					t.Errorf("problem without a place, or of several lines: %q", p)
				}
			}
		}
	})
}
