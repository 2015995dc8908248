package main

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fairlead-iot/fairlead/config"
	"github.com/fairlead-iot/fairlead/core"
	"github.com/fairlead-iot/fairlead/credentials"
)

func putFile(t *testing.T, name, text string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestAReplacedKeyCountsFromTheNextConnectionOn(t *testing.T) {
	const first, second = "AAECAwQFBgcICQoLDA0ODw==", "Dw4NDAsKCQgHBgUEAwIBAA=="
	file := filepath.Join(t.TempDir(), "device.cs")
	text := func(device, key string) string {
		return "HostName=hub.test;DeviceId=" + device + ";SharedAccessKey=" + key + "\n"
	}
	putFile(t, file, text("dev1", first))
	var log bytes.Buffer
	noon := func() time.Time { return time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC) }
	c := &config.Config{Device: config.Device{ConnectionString: config.Source{File: file}, SASTokenTTL: time.Hour}}
	identity, source, err := credential(c, noon, slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil || identity.DeviceID != "dev1" {
		t.Fatalf("identity %+v, %v", identity, err)
	}
	want := func(why, key string) {
		t.Helper()
		signed, err := credentials.NewSharedKey(identity, core.Secret(key), time.Hour, noon)
		if err != nil {
			t.Fatal(err)
		}
		expected, err := signed.Credential(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		got, err := source.Credential(t.Context())
		if err != nil || got.Token != expected.Token {
			t.Errorf("%s: the token is not signed by the key that counts, %v", why, err)
		}
	}
	said := func(text string, times int) {
		t.Helper()
		if n := strings.Count(log.String(), text); n != times {
			t.Errorf("the log says %q %d times, want %d: %s", text, n, times, log.String())
		}
	}
	want("at the start", first)
	putFile(t, file, text("dev1", second))
	want("after it was replaced", second)
	said("the device's key was replaced", 1)
	putFile(t, file, text("dev2", first))
	want("another device's", second)
	want("another device's, still", second)
	said("another device's or hub's now", 1)
	putFile(t, file, text("dev1", "cut"))
	want("a key that was cut", second)
	said("the key is not base64", 1)
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	want("no file", second)
	putFile(t, file, text("dev1", first))
	want("the first key again", first)
	for _, key := range []string{first, second} {
		if strings.Contains(log.String(), key) {
			t.Error("the log shows a key")
		}
	}
}

func TestTheFilesOfAProofAreNewsWhenTheyChange(t *testing.T) {
	dir := t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	all := filesOf(&config.Device{
		ConnectionString: config.Source{File: path("cs")}, SymmetricKey: &config.SymmetricKey{Key: config.Source{File: path("key")}},
		X509: &config.X509{CertFile: path("cert"), KeyFile: path("ckey"), PassPhrase: config.Source{File: path("phrase")}},
		Provisioning: &config.Provisioning{
			SymmetricKey: config.Source{File: path("ekey")}, GroupSymmetricKey: config.Source{Env: "KEY"},
			X509: &config.CertificateFile{CertFile: path("ecert"), KeyFile: path("eckey"), PassPhrase: config.Source{Text: "x"}},
		},
	})
	if len(all.paths) != 8 {
		t.Fatalf("paths: %q", all.paths)
	}
	if all.note(); all.changed() {
		t.Error("nothing has changed")
	}
	for _, p := range all.paths {
		for _, do := range []struct {
			what string
			f    func() error
		}{
			{"appears", func() error { return os.WriteFile(p, []byte("1"), 0o600) }},
			{"is written", func() error { return os.WriteFile(p, []byte("2"), 0o600) }},
			{"is replaced", func() error {
				putFile(t, p+".new", "3")
				return os.Rename(p+".new", p)
			}},
			{"goes", func() error { return os.Remove(p) }},
		} {
			if err := do.f(); err != nil {
				t.Fatal(err)
			}
			if !all.changed() {
				t.Errorf("%s %s, and nobody notices", p, do.what)
			}
			if all.changed() {
				t.Errorf("%s %s, and is news twice", p, do.what)
			}
		}
	}
	putFile(t, all.paths[0], "4")
	if all.note(); all.changed() {
		t.Error("what has been read is no news")
	}
}
