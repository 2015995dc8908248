package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fairlead-iot/fairlead/hub/hubtest"
)

func TestHubCertificates(t *testing.T) {
	dir := t.TempDir()
	_, stop := serveHub(t, dir)
	defer stop()
	file, empty := filepath.Join(dir, "plant.pem"), filepath.Join(dir, "empty.pem")
	for name, text := range map[string][]byte{file: hubtest.NewCA(t, "plant CA").PEM(), empty: nil} {
		if err := os.WriteFile(name, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	thumbprint := "sha256 Fingerprint=" + strings.TrimSuffix(strings.Repeat("AB:", 32), ":")
	steps := []struct {
		args []string
		code int
		want string // part of stdout, or of stderr when the code is not 0
	}{
		{[]string{"ca", "add", file}, 0, "plant\n"},
		{[]string{"ca", "add", file, "--name", "other"}, 0, "other\n"},
		{[]string{"ca", "add", empty}, 2, "no certificate in PEM"},
		{[]string{"ca", "add", file + "x"}, 2, "read the CA"},
		{[]string{"ca", "list"}, 0, "CN=plant CA"},
		{[]string{"ca", "remove", "other"}, 0, ""},
		{[]string{"ca", "remove", "other"}, 1, "no CA has the name other"},
		{[]string{"device", "add", "dev1", "--ca-signed"}, 0, "HostName=localhost;DeviceId=dev1;x509=true"},
		{[]string{"device", "add", "dev2", "--x509-thumbprint", thumbprint}, 0, "DeviceId=dev2;x509=true"},
		{[]string{"device", "add", "dev3", "--x509-thumbprint", "AB:CD"}, 2, "40 (SHA-1) or 64 (SHA-256)"},
		{[]string{"device", "add", "dev3", "--x509-thumbprint", thumbprint, "--ca-signed"}, 2, "ca-signed"},
		{[]string{"device", "disable", "dev2"}, 0, ""},
		{[]string{"device", "list"}, 0, "dev2    disabled"},
		{[]string{"device", "enable", "dev2"}, 0, ""},
		{[]string{"device", "list", "--json"}, 0, strings.ReplaceAll(thumbprint[len("sha256 Fingerprint="):], ":", "")},
		{[]string{"device", "enable", "none"}, 1, "DeviceNotFound"},
	}
	for _, s := range steps {
		stdout, stderr, code := runHub(t.Context(), append(s.args, "--dir", dir)...)
		text := stdout
		if s.code != 0 {
			text = stderr
		}
		if code != s.code || !strings.Contains(text, s.want) {
			t.Errorf("%q: exit %d, stdout %q, stderr %q; want %d with %q", s.args, code, stdout, stderr, s.code, s.want)
		}
	}
	for _, args := range [][]string{{"--tls-max", "1.1"}, {"--disabled-code", "6"}, {"--query-page", "0"}, {"--methods-in-flight", "0"}, {"--events", "gossip"}} {
		if _, stderr, code := runHub(t.Context(), append([]string{"serve", "--dir", t.TempDir()}, args...)...); code != 2 {
			t.Errorf("serve %q: exit %d, %s", args, code, stderr)
		}
	}
	_, stderr, code := runHub(t.Context(), "ca", "list", "--connection-string", "HostName=h;SharedAccessKeyName=service;SharedAccessKey=c2VjcmV0")
	if code != 2 || !strings.Contains(stderr, "az iot hub certificate list") {
		t.Errorf("a real hub's CAs: %d %s", code, stderr)
	}
}
