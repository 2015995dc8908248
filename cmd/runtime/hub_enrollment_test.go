package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/fairlead-iot/fairlead/hub"
	"github.com/fairlead-iot/fairlead/hub/hubtest"
)

func TestHubEnrollmentCommands(t *testing.T) {
	dir, files := t.TempDir(), t.TempDir()
	r, stop := serveHub(t, dir)
	defer stop()
	file := func(name, text string) string {
		t.Helper()
		name = filepath.Join(files, name)
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	add := func(args ...string) enrolled {
		t.Helper()
		stdout, stderr, code := runHub(t.Context(), append([]string{"enrollment", "add", "--dir", dir}, args...)...)
		var e enrolled
		if code != 0 || json.Unmarshal([]byte(stdout), &e) != nil || !strings.HasPrefix(e.IDScope, "0ne") {
			t.Fatalf("%q: %d %q %s", args, code, stdout, stderr)
		}
		if !strings.Contains(stderr, r.MQTT) || !strings.Contains(stderr, r.HTTPS) || !strings.Contains(stderr, r.CAFile) {
			t.Errorf("%q: stderr %q does not say how to reach the service", args, stderr)
		}
		return e
	}
	one := add("press-7", "--device-id", "p7", "--twin", `{"tags":{"n":1.50}}`, "--payload", `{"a":1}`, "--reprovision", "never", "--edge")
	if one.RegistrationID != "press-7" || one.DeviceID != "p7" || one.Key == "" || one.Group != "" {
		t.Errorf("one %+v", one)
	}
	if replaced := add("press-7", "--replace", "--disabled"); replaced.Key != one.Key || replaced.IDScope != one.IDScope {
		t.Errorf("replaced %+v, was %+v", replaced, one)
	}
	cert := hubtest.SelfSigned(t, "c1")
	certText, _ := hubtest.CertificatePEM(t, cert)
	if c := add("c1", "--cert", file("c1.pem", string(certText))); c.Key != "" || c.RegistrationID != "c1" {
		t.Errorf("with a certificate %+v", c)
	}
	add("c2", "--x509-thumbprint", strings.Repeat("0a:", 19)+"0a")
	root := file("root.pem", string(hubtest.NewCA(t, "root").PEM()))
	if g := add("plant-ca", "--group", "--ca", root); g.Key != "" || g.Group != "plant-ca" || g.RegistrationID != "" {
		t.Errorf("group with an authority %+v", g)
	}

	// # secrets go to stdout, or to a file that nobody else reads
	out := filepath.Join(files, "plant.json")
	if stdout, stderr, code := runHub(t.Context(), "enrollment", "add", "plant", "--group", "--out", out, "--dir", dir); code != 0 || stdout != "" {
		t.Fatalf("add --out: %d %q %s", code, stdout, stderr)
	}
	var group enrolled
	if text, err := os.ReadFile(out); err != nil || json.Unmarshal(text, &group) != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(out); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	want, err := hub.DeriveDeviceKey(group.Key, "sn-1")
	if err != nil {
		t.Fatal(err)
	}
	if stdout, stderr, code := runHub(t.Context(), "enrollment", "key", "plant", "sn-1", "--dir", dir); code != 0 || stdout != want+"\n" {
		t.Errorf("key: %d %q %s, want %q", code, stdout, stderr, want)
	}
	keyFile := filepath.Join(files, "key")
	if stdout, _, code := runHub(t.Context(), "enrollment", "key", "plant", "sn-1", "--out", keyFile, "--dir", dir); code != 0 || stdout != "" {
		t.Errorf("key --out: %d %q", code, stdout)
	}
	if text, err := os.ReadFile(keyFile); err != nil || string(text) != want+"\n" {
		t.Errorf("key file: %v", err)
	}

	steps := []struct {
		args []string
		code int
		want string // part of stdout, or of stderr when the code is not 0
	}{
		{[]string{"list"}, 0, "press-7     device  symmetricKey  disabled  -             -"},
		{[]string{"list"}, 0, "plant-ca    group   x509          enabled"},
		{[]string{"list", "--json"}, 0, `"groups":[{"enrollmentGroupId":"plant"`},
		{[]string{"get", "c1"}, 0, `"subjectName": "CN=c1"`},
		{[]string{"get", "plant", "--group"}, 0, `"registrations": []`},
		{[]string{"get", "plant"}, 1, "404201"},
		{[]string{"key", "plant-ca", "x"}, 2, "have certificates"},
		{[]string{"key", "none", "x"}, 1, "404201"},
		{[]string{"add", "press-7"}, 1, "--replace"},
		{[]string{"add", "none", "--replace"}, 1, "404201"},
		{[]string{"add", "a b"}, 2, "letters, digits"},
		{[]string{"add", "x", "--reprovision", "always"}, 2, "migrate, reset or never"},
		{[]string{"add", "x", "--twin", "{"}, 2, "--twin"},
		{[]string{"add", "x", "--twin", `{"tag":{}}`}, 2, `unknown field "tag"`},
		{[]string{"add", "x", "--payload", "text"}, 2, "not JSON"},
		{[]string{"add", "x", "--ca", root}, 2, "--ca needs --group"},
		{[]string{"add", "x", "--group", "--cert", root}, 2, "by its authority"},
		{[]string{"add", "x", "--group", "--device-id", "y"}, 2, "--device-id"},
		{[]string{"add", "x", "--cert", root, "--x509-thumbprint", "00"}, 2, "one of"},
		{[]string{"add", "x", "--x509-thumbprint", "00"}, 2, "64 hex digits"},
		{[]string{"add", "x", "--cert", filepath.Join(files, "none")}, 2, "read certificate"},
		{[]string{"add", "x", "--cert", file("junk", "no PEM")}, 2, "neither PEM nor base64"},
		{[]string{"remove", "press-7"}, 0, ""},
		{[]string{"remove", "press-7"}, 1, "404201"},
		{[]string{"remove", "plant", "--group"}, 0, ""},
		{[]string{"list", "--connection-string", "HostName=h;SharedAccessKeyName=k;SharedAccessKey=c2VjcmV0"}, 2, "az iot dps enrollment list"},
	}
	for _, s := range steps {
		stdout, stderr, code := runHub(t.Context(), append(append([]string{"enrollment"}, s.args...), "--dir", dir)...)
		text := stdout
		if s.code != 0 {
			text = stderr
		}
		if code != s.code || !strings.Contains(text, s.want) {
			t.Errorf("%q: exit %d, stdout %q, stderr %q; want %d with %q", s.args, code, stdout, stderr, s.code, s.want)
		}
		for _, secret := range []string{one.Key, group.Key} {
			if strings.Contains(stdout+stderr, secret) {
				t.Errorf("%q shows a key", s.args)
			}
		}
	}
	for _, name := range []string{"provisioning-status", "slow-assignment"} {
		if _, stderr, code := runHub(t.Context(), "fault", "add", name, "--count", "1", "--device", "press-7", "--dir", dir); code != 0 {
			t.Errorf("fault add %s: %d %s", name, code, stderr)
		}
	}
}
