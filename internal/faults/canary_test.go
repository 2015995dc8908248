//go:build faults && unix

package faults

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io/fs"
	"maps"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// canaries are what must be seen nowhere, by a name that says what it is and how it was written.
type canaries map[string][]byte

// add adds a secret in every way in which somebody may have written it: as it is, and in base64 of each alphabet, in hex, and
// percent-encoded.
func (c canaries) add(name string, secret []byte) {
	c[name] = secret
	for from := range 3 { // base64 depends on where in a longer text the secret begins
		if len(secret) < 12 {
			break
		}
		part := secret[from : from+(len(secret)-from)/3*3]
		c[fmt.Sprintf("%s in base64 from byte %d", name, from)] = []byte(base64.RawStdEncoding.EncodeToString(part))
		c[fmt.Sprintf("%s in base64url from byte %d", name, from)] = []byte(base64.RawURLEncoding.EncodeToString(part))
	}
	c[name+" in hex"] = []byte(hex.EncodeToString(secret))
	c[name+" in HEX"] = []byte(strings.ToUpper(hex.EncodeToString(secret)))
	c[name+" percent-encoded"] = []byte(url.QueryEscape(string(secret)))
	c[name+" quoted"] = []byte(strings.Trim(strconv.Quote(string(secret)), `"`))
}

// addKey adds a symmetric key, in base64 and as bytes.
func (c canaries) addKey(t *testing.T, name, key string) {
	t.Helper()
	raw, err := base64.StdEncoding.DecodeString(key)
	if err != nil || len(raw) < 16 {
		t.Fatalf("%s is no key", name)
	}
	c.add(name, []byte(key))
	c.add(name+"'s bytes", raw)
}

// tokens returns the marks of all tokens, which are made anew each time.
func tokens() canaries {
	c := canaries{}
	for _, mark := range []string{"SharedAccessSignature sr=", "&sig=", "?sig=", "sig%3D"} {
		c["a token ("+mark+")"] = []byte(mark)
	}
	return c
}

// canariesOf returns those of a device's connection string: its key, in base64 and as bytes, and whatever is a token.
func canariesOf(t *testing.T, connectionString string) canaries {
	t.Helper()
	_, key, ok := strings.Cut(strings.TrimSpace(connectionString), "SharedAccessKey=")
	if !ok {
		t.Fatal("the hub's connection string holds no key")
	}
	c := tokens()
	c.addKey(t, "the key", key)
	c.add("a connection string's key field", []byte("SharedAccessKey="+key))
	return c
}

// find returns a line for each place that holds a canary.
func (c canaries) find(places map[string][]byte) []string {
	var found []string
	for where, text := range places {
		for name, canary := range c {
			if bytes.Contains(text, canary) {
				found = append(found, where+" holds "+name)
			}
		}
	}
	slices.Sort(found)
	return found
}

// places returns all that the runtime has written and that others can see of it: every file but the secret itself and the
// hub's, what its socket answers, and what /proc says of it and of its plugins.
func (w *world) places() map[string][]byte {
	w.t.Helper()
	places := map[string][]byte{}
	err := filepath.WalkDir(w.dir, func(path string, d fs.DirEntry, err error) error {
		rel, _ := filepath.Rel(w.dir, path)
		switch {
		case err != nil:
			return nil //nolint:nilerr // it has just gone
		case rel == "hub":
			return fs.SkipDir
		case slices.Contains(w.secrets, rel), rel == "hub.log", !d.Type().IsRegular():
			return nil
		}
		text, err := os.ReadFile(path)
		if err == nil {
			places["file "+rel] = text
		}
		return nil
	})
	if err != nil {
		w.t.Fatal(err)
	}
	config := w.path("fairlead.yaml")
	for _, args := range [][]string{
		{"status"},
		{"status", "--json"},
		{"events"},
		{"events", "--json"},
		{"why"},
		{"why", "--json"},
		{"doctor"},
		{"doctor", "--json"},
		{"twin", "get"},
		{"check"},
		{"send", "x", "--timeout", "5s"},
	} {
		stdout, stderr, _ := w.cli(append(args, "-c", config)...)
		places["the answer of "+strings.Join(args, " ")] = []byte(stdout + stderr)
	}
	pids := map[string]int{"the runtime": w.runtime.cmd.Process.Pid}
	for _, p := range w.mustStatus().Plugins {
		pids["plugin "+p.Name] = p.PID
	}
	for name, pid := range pids {
		for _, file := range []string{"cmdline", "environ"} {
			text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), file))
			if err != nil {
				w.t.Logf("%s of %s cannot be looked at here: %v", file, name, err)
				continue
			}
			places[name+"'s "+file] = text
		}
		places[name+"'s fds"] = fdLinks(pid)
	}
	return places
}

// fdLinks returns what /proc says that the descriptors of a process are, a line each; nil where it says nothing.
func fdLinks(pid int) (text []byte) {
	dir := filepath.Join("/proc", strconv.Itoa(pid), "fd")
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil
	}
	for _, e := range entries {
		if to, err := os.Readlink(filepath.Join(dir, e.Name())); err == nil { // else it has just been closed
			text = append(text, e.Name()+" "+to+"\n"...)
		}
	}
	return text
}

// The secrets of a device that is in all kinds of trouble, and says at level debug what it does, are seen nowhere.
func TestSecretsAreSeenNowhere(t *testing.T) {
	t.Parallel()
	for _, k := range secretKinds {
		t.Run(k.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			device, secrets, trouble := k.prepare(w)
			w.configure(numbers("{rate: 20}")+"\n  hostmetrics: {builtin: hostmetrics, settings: {interval: 1s}}", "log: {level: debug}\n"+device)
			w.run()
			w.hubDo("twin", "patch", w.id, `{"properties":{"desired":{"mode":"eco"}}}`)
			w.method("echo", `{"a":1}`)
			w.hubDo("fault", "add", "connack", "5", "--device", w.id, "--count", "1")
			w.hubDo("fault", "add", "cut", "--device", w.id, "--count", "1")
			eventually(t, time.Minute, "a refusal, and a session after it", func() bool {
				s := w.mustStatus()
				return s.Counters.Losses > 0 && s.Connection.State == "connected" || strings.Contains(s.Connection.Reason, "proof of identity")
			})
			trouble()
			eventually(t, 2*time.Minute, "a renewal, or a session after the trouble", func() bool {
				s := w.mustStatus()
				return s.Counters.Renewals > 0 && s.Connection.State == "connected"
			})
			w.seeNothing(secrets())
		})
	}
}

// seeNothing looks for the secrets in all places.
func (w *world) seeNothing(secrets canaries) {
	t := w.t
	t.Helper()
	places := w.places()
	for _, want := range []string{
		"file runtime.log", "the answer of status --json", "the answer of why", "the answer of why --json", "the answer of doctor", "the answer of doctor --json",
		"the runtime's cmdline", "the runtime's fds", "plugin numbers's environ", "plugin numbers's fds", "plugin hostmetrics's cmdline",
	} {
		if len(places[want]) == 0 && (strings.HasPrefix(want, "file") || strings.HasPrefix(want, "the answer") || isLinux()) {
			t.Errorf("%s was not looked at", want)
		}
	}
	if log := string(places["file runtime.log"]); !strings.Contains(log, "level=DEBUG") || !strings.Contains(log, "credential-fetched") {
		t.Error("the log is not that of a device that tells all")
	}
	for _, line := range secrets.find(places) {
		t.Error(line)
	}
	t.Logf("looked for %d canaries in %d places", len(secrets), len(places))
}

func isLinux() bool {
	_, err := os.Stat("/proc/self/environ")
	return err == nil
}

// The positive control: what is planted is found, in every encoding, in files and in /proc.
func TestAPlantedSecretIsFound(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	text, err := os.ReadFile(w.path("device.cs"))
	if err != nil {
		t.Fatal(err)
	}
	secrets := canariesOf(t, string(text))
	for _, k := range secretKinds {
		_, more, _ := k.prepare(newWorld(t))
		for name, canary := range more() {
			secrets[k.name+": "+name] = canary
		}
	}
	_, key, _ := strings.Cut(strings.TrimSpace(string(text)), "SharedAccessKey=")
	w.configure("  numbers: {command: ["+strconv.Quote(programs.numbers)+", "+strconv.Quote("--key="+key)+"], settings: {rate: 0}, env: {PLANTED: "+strconv.Quote(url.QueryEscape(key))+"}}", "")
	w.run()
	for i, name := range slices.Sorted(maps.Keys(secrets)) {
		file := w.path("state", fmt.Sprintf("planted-%d", i))
		if err := os.WriteFile(file, append([]byte("before "), append(secrets[name], " after"...)...), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	found := secrets.find(w.places())
	want := []string{"file fairlead.yaml holds the key"}
	for i, name := range slices.Sorted(maps.Keys(secrets)) {
		want = append(want, fmt.Sprintf("file state/planted-%d holds %s", i, name))
	}
	if isLinux() {
		want = append(want, "plugin numbers's cmdline holds the key", "plugin numbers's environ holds the key percent-encoded")
	}
	for _, line := range want {
		if !slices.Contains(found, line) {
			t.Errorf("not found: %s", line)
		}
	}
	// Somebody encodes more than the key: a line of a dump.
	dump := base64.StdEncoding.EncodeToString([]byte("x" + string(text)))
	if len(secrets.find(map[string][]byte{"a dump": []byte(dump)})) == 0 {
		t.Error("a connection string in base64 is not found")
	}
}
