package sas

import (
	"encoding/base64"
	"net/url"
	"strings"
	"testing"
	"time"
)

var key = base64.StdEncoding.EncodeToString([]byte("a key of the tests"))

// signRaw signs sr exactly as given, as clients with other encodings do.
func signRaw(t *testing.T, sr, rest string) string {
	t.Helper()
	mac, err := sign(sr+"\n4102444800", key)
	if err != nil {
		t.Fatal(err)
	}
	return "SharedAccessSignature sr=" + sr + "&sig=" + url.QueryEscape(base64.StdEncoding.EncodeToString(mac)) + rest + "&se=4102444800"
}

func TestSignatureIsOverTheRawText(t *testing.T) {
	tests := map[string]struct {
		text   string
		policy string
	}{
		"encoded":                {signRaw(t, "myhub%2Fdevices%2Fdev1", ""), ""},
		"slashes not encoded":    {signRaw(t, "myhub/devices/dev1", ""), ""},
		"lower-case hex":         {signRaw(t, "myhub%2fdevices%2fdev1", ""), ""},
		"policy before expiry":   {signRaw(t, "myhub%2Fdevices%2Fdev1", "&skn=device"), "device"},
		"a port in the resource": {signRaw(t, "myhub%3A8883%2Fdevices%2Fdev1", ""), ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			token, err := Parse(tt.text)
			if err != nil {
				t.Fatal(err)
			}
			if !token.SignedBy(key) {
				t.Error("not signed by the key that signed it")
			}
			if token.SignedBy(base64.StdEncoding.EncodeToString([]byte("another"))) {
				t.Error("signed by another key")
			}
			if !token.Covers("MyHub", "/devices/dev1") || !token.Covers("myhub", "devices/dev1/modules/m") {
				t.Errorf("%q does not cover the device", token.Scope)
			}
			if token.Covers("myhub", "/devices/dev10") || token.Covers("other", "/devices/dev1") || token.Covers("myhub", "/devices") {
				t.Errorf("%q covers too much", token.Scope)
			}
			if token.Policy != tt.policy {
				t.Errorf("policy %q, want %q", token.Policy, tt.policy)
			}
		})
	}
}

func TestNewIsParsed(t *testing.T) {
	expiry := time.Unix(1900000000, 0)
	text, err := New("myhub", "service", key, expiry)
	if err != nil {
		t.Fatal(err)
	}
	token, err := Parse(text)
	if err != nil {
		t.Fatal(err)
	}
	if !token.SignedBy(key) || !token.HostOnly() || token.Policy != "service" || !token.Expiry.Equal(expiry) {
		t.Errorf("token = %+v", token)
	}
}

func TestParseErrorsSayNothingSecret(t *testing.T) {
	for _, text := range []string{
		"", "Bearer SECRET", "SharedAccessSignature sr=a&sig=SECRET", "SharedAccessSignature sr=a&sig=SECRET!&se=1",
		"SharedAccessSignature sr=%zz&sig=SECRET&se=1", "SharedAccessSignature sr=a&sig=SECRET%zz&se=1",
		"SharedAccessSignature sr=a&sig=AAAA&se=SECRET", "SharedAccessSignature sr=a&sr=b&sig=SECRET&se=1",
	} {
		_, err := Parse(text)
		if err == nil {
			t.Errorf("Parse(%q) succeeded", text)
		} else if strings.Contains(err.Error(), "SECRET") {
			t.Errorf("the error shows the token: %v", err)
		}
	}
}
