package credentials_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fairlead-iot/fairlead/core"
	"github.com/fairlead-iot/fairlead/credentials"
)

// key is the base64 of the bytes 0..31, as computed by Python's base64 module.
const key = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="

func at(seconds int64) func() time.Time {
	return func() time.Time { return time.Unix(seconds, 0) }
}

func TestParseConnectionString(t *testing.T) {
	device := core.Identity{Hostname: "h.net", DeviceID: "d"}
	for _, c := range []struct {
		name, text string
		want       credentials.ConnectionString
	}{
		{"device", "HostName=h.net;DeviceId=d;SharedAccessKey=" + key, credentials.ConnectionString{Identity: device, Key: key}},
		{
			"any order", "SharedAccessKey=" + key + ";DeviceId=d;HostName=h.net",
			credentials.ConnectionString{Identity: device, Key: key},
		},
		{
			"a file's last newline", "\n HostName=h.net;DeviceId=d;SharedAccessKey=" + key + "\r\n",
			credentials.ConnectionString{Identity: device, Key: key},
		},
		{
			"a byte order mark", "\ufeffHostName=h.net;DeviceId=d;SharedAccessKey=" + key + "\r\n",
			credentials.ConnectionString{Identity: device, Key: key},
		},
		{
			"a trailing semicolon", "HostName=h.net;DeviceId=d;SharedAccessKey=" + key + ";",
			credentials.ConnectionString{Identity: device, Key: key},
		},
		{
			"module behind a gateway", "HostName=h.net;DeviceId=d;ModuleId=m;GatewayHostName=gw.lan;SharedAccessKey=" + key,
			credentials.ConnectionString{Identity: core.Identity{Hostname: "h.net", DeviceID: "d", ModuleID: "m", Gateway: "gw.lan"}, Key: key},
		},
		{"x509", "HostName=h.net;DeviceId=d;x509=true", credentials.ConnectionString{Identity: device, X509: true}},
		{
			"a port, and an id of odd characters", "HostName=localhost:18884;DeviceId=-:.%_*?!(),@$';x509=true",
			credentials.ConnectionString{Identity: core.Identity{Hostname: "localhost:18884", DeviceID: "-:.%_*?!(),@$'"}, X509: true},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := credentials.ParseConnectionString(c.text)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestParseConnectionStringSaysWhatIsWrong(t *testing.T) {
	const canary = "Q0FOQVJZ" // base64 that must appear in no error
	for _, c := range []struct{ name, text, want string }{
		{"empty", "", "it is empty"},
		{"only a newline", "\n", "it is empty"},
		{"no equals sign", "HostName=h;" + canary, "part 2 of it is not of the form name=value"},
		{"two trailing semicolons", "HostName=h;DeviceId=d;SharedAccessKey=" + key + ";;", "part 4 of it is empty: a semicolon too many; remove it"},
		{"two semicolons within", "HostName=h;;DeviceId=d;SharedAccessKey=" + canary, "part 2 of it is empty: a semicolon too many; remove it"},
		{"quotes", `"HostName=h;DeviceId=d;SharedAccessKey=` + canary + `"`, "remove the quotes"},
		{"a shell's quotes", "'HostName=h;DeviceId=d;SharedAccessKey=" + canary + ";'\n", "remove the quotes"},
		{"a last quote", "HostName=h;DeviceId=d;SharedAccessKey=" + canary + `"`, "remove the quotes"},
		{"unknown name", "HostName=h;DeviceId=d;" + canary + "=1", "unknown name; known are"},
		{"wrong case", "hostname=h;DeviceId=d;SharedAccessKey=" + canary, "did you mean HostName?"},
		{"twice", "HostName=h;HostName=" + canary, "HostName stands twice"},
		{"no host", "DeviceId=d;SharedAccessKey=" + canary, "HostName is missing"},
		{"no key", "HostName=h;DeviceId=d", "SharedAccessKey is missing"},
		{"empty key", "HostName=h;DeviceId=d;SharedAccessKey=", "SharedAccessKey is empty"},
		{"key and x509", "HostName=h;DeviceId=d;x509=true;SharedAccessKey=" + canary, "exclude each other"},
		{"x509=false", "HostName=h;DeviceId=d;x509=" + canary, "x509 must be true"},
		{"a service's", "HostName=h;SharedAccessKeyName=iothubowner;SharedAccessKey=" + canary, "a service's connection string"},
		{"a policy on a device", "HostName=h;DeviceId=d;SharedAccessKeyName=device;SharedAccessKey=" + canary, "must not hold a policy's key"},
		{"a signature", "HostName=h;DeviceId=d;SharedAccessSignature=" + canary, "give the token as a SAS token"},
		{"a key cut short", "HostName=h;DeviceId=d;SharedAccessKey=" + canary + "A", "9 characters, not a multiple of 4"},
		{"a key of the URL alphabet", "HostName=h;DeviceId=d;SharedAccessKey=" + canary + "-_-_", "the URL alphabet"},
		{"a key with a stray character", "HostName=h;DeviceId=d;SharedAccessKey=" + canary + "!AAA", "a character that does not belong"},
		{"a key with stray bits", "HostName=h;DeviceId=d;SharedAccessKey=" + canary + "AB==", "a character that does not belong"},
		{"a line break in the key", "HostName=h;DeviceId=d;SharedAccessKey=" + canary + "\n" + canary, "a line break|not base64"},
		{"white space", "HostName=h;DeviceId= d;SharedAccessKey=" + canary, "white space"},
		{"a URL", "HostName=https://h/;DeviceId=d;SharedAccessKey=" + canary, "the bare name"},
		{"a slash in the id", "HostName=h;DeviceId=a/b;SharedAccessKey=" + canary, "DeviceId contains a character"},
		{"a wildcard in the id", "HostName=h;DeviceId=a+b;SharedAccessKey=" + canary, "wildcards"},
		{"a long id", "HostName=h;DeviceId=" + strings.Repeat("a", 129) + ";SharedAccessKey=" + canary, "1 to 128"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := credentials.ParseConnectionString(c.text)
			if err == nil || !containsAny(err.Error(), c.want) {
				t.Fatalf("err = %v, want text with %q", err, c.want)
			}
			if !errors.Is(err, core.ErrInvalid) {
				t.Errorf("%v does not wrap ErrInvalid", err)
			}
			if strings.Contains(err.Error(), canary) {
				t.Errorf("the error gives a value away: %v", err)
			}
		})
	}
}

func containsAny(text, alternatives string) bool {
	for alternative := range strings.SplitSeq(alternatives, "|") {
		if strings.Contains(text, alternative) {
			return true
		}
	}
	return false
}

// The tokens were computed by Python's hmac, hashlib and urllib.parse.
func TestSharedKeySignsAsTheHubChecks(t *testing.T) {
	for _, c := range []struct {
		name string
		id   core.Identity
		want string
	}{
		{
			"device",
			core.Identity{Hostname: "myhub.azure-devices.net", DeviceID: "dev1"},
			"SharedAccessSignature sr=myhub.azure-devices.net%2Fdevices%2Fdev1&sig=2ylB6nEi79Klft8tf1Kvo0b6LMQ48k36e6OQLeqX2ZI%3D&se=1700003600",
		},
		{
			"module behind a gateway: the token names the hub",
			core.Identity{Hostname: "myhub.azure-devices.net", DeviceID: "d:1@x", ModuleID: "m=1", Gateway: "gw.lan"},
			"SharedAccessSignature sr=myhub.azure-devices.net%2Fdevices%2Fd%3A1%40x%2Fmodules%2Fm%3D1&" +
				"sig=PDOK27VpscgZhFZ0jEd4AF31TJfioCT3B%2BhJm7p3NpI%3D&se=1700003600",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			source, err := credentials.NewSharedKey(c.id, key, time.Hour, at(1_700_000_000))
			if err != nil {
				t.Fatal(err)
			}
			got, err := source.Credential(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if got.Token.Reveal() != c.want {
				t.Errorf("token\n%s, want\n%s", got.Token.Reveal(), c.want)
			}
			if got.Life != time.Hour {
				t.Errorf("life %v, want 1h", got.Life)
			}
			if text := fmt.Sprintf("%v %+v %#v %s", got, got, got, source); strings.Contains(text, "sig=") || strings.Contains(text, key) {
				t.Errorf("printing a credential gives it away: %s", text)
			}
		})
	}
}

func TestTokenLife(t *testing.T) {
	id := core.Identity{Hostname: "h", DeviceID: "d"}
	for _, c := range []struct {
		ttl  time.Duration
		want string // "" is accepted
	}{
		{time.Minute, ""},
		{time.Hour, ""},
		{credentials.MaxTTL, ""},
		{0, "must live"},
		{-time.Hour, "must live"},
		{time.Second, "outlives the dial"},
		{credentials.MaxTTL + 1, "cannot be withdrawn"},
	} {
		t.Run(c.ttl.String(), func(t *testing.T) {
			source, err := credentials.NewSharedKey(id, key, c.ttl, at(1_700_000_000))
			if c.want != "" {
				if err == nil || !strings.Contains(err.Error(), c.want) || !errors.Is(err, core.ErrInvalid) {
					t.Fatalf("err = %v, want ErrInvalid with %q", err, c.want)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			got, err := source.Credential(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			token, err := credentials.ParseToken(got.Token.Reveal(), time.Unix(1_700_000_000, 0))
			if err != nil {
				t.Fatal(err)
			}
			if want := time.Unix(1_700_000_000, 0).Add(c.ttl); !token.Expiry.Equal(want) {
				t.Errorf("expires at %v, want %v", token.Expiry, want)
			}
		})
	}
}

func TestNewSharedKeyRefusesABadKeyWithoutShowingIt(t *testing.T) {
	_, err := credentials.NewSharedKey(core.Identity{Hostname: "h", DeviceID: "d"}, "CANARY-not-base64", time.Hour, time.Now)
	if !errors.Is(err, core.ErrInvalid) || strings.Contains(err.Error(), "CANARY") {
		t.Errorf("err = %v, want ErrInvalid without the key", err)
	}
}

func TestParseToken(t *testing.T) {
	const ok = "SharedAccessSignature sr=h.net%2Fdevices%2Fd%2Fmodules%2Fm&sig=c2ln&se=1700003600"
	now := time.Unix(1_700_000_000, 0)
	got, err := credentials.ParseToken(ok+"&skn=x%20y\n", now)
	if err != nil {
		t.Fatal(err)
	}
	want := credentials.Token{
		Identity: core.Identity{Hostname: "h.net", DeviceID: "d", ModuleID: "m"},
		Expiry:   time.Unix(1_700_003_600, 0).UTC(), KeyName: "x y", Text: ok + "&skn=x%20y",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	for name, text := range map[string]string{"a byte order mark": "\ufeff" + ok + "\n", "a trailing &": ok + "&\n"} {
		if got, err := credentials.ParseToken(text, now); err != nil || got.Text != ok {
			t.Errorf("%s: %q, %v", name, got.Text.Reveal(), err)
		}
	}
	for _, c := range []struct{ name, text, want string }{
		{"empty", "", "must begin"},
		{"quotes", `"` + ok + `"`, "remove the quotes"},
		{"two trailing &", ok + "&&", "field 4 of it is not of the form"},
		{"sr twice", ok + "&sr=CANARY", "sr stands twice in it"},
		{"se twice", ok + "&se=1700003600", "se stands twice in it"},
		{"sig twice", ok + "&sig=CANARY", "sig stands twice in it"},
		{"skn twice", ok + "&skn=&skn=CANARY", "skn stands twice in it"},
		{"a signature cut short", strings.Replace(ok, "c2ln", "CANARY", 1), "sig is not base64: copy the token again, whole"},
		{"a signature encoded twice", strings.Replace(ok, "c2ln", "c2k%253D", 1), "sig is not base64"},
		{"a signature badly encoded", strings.Replace(ok, "c2ln", "c2k%3", 1), "sig is not base64"},
		{"a signature with stray bits", strings.Replace(ok, "c2ln", "c2l%3D", 1), "sig is not base64"},
		{"a line break in the signature", strings.Replace(ok, "c2ln", "c2%0Aln", 1), "sig is not base64"},
		{"milliseconds", strings.Replace(ok, "1700003600", "1700003600000", 1), "se is too far in the future"},
		{"a time before all", strings.Replace(ok, "1700003600", "-9223372036854775809", 1), "not a number"},
		{"no prefix", strings.TrimPrefix(ok, "SharedAccessSignature "), "must begin"},
		{"twice", ok + ok, "must begin"},
		{"a hub's", "SharedAccessSignature sr=h.net&sig=CANARY&se=1700003600", "not a device's"},
		{"no signature", "SharedAccessSignature sr=h.net%2Fdevices%2Fd&se=1700003600", "sig is missing"},
		{"unknown field", ok + "&CANARY=1", "unknown name"},
		{"not a field", ok + "&CANARY", "not of the form"},
		{"expired", strings.Replace(ok, "1700003600", "1699999999", 1), "it expired at 2023-11-14T22:13:19Z, and this device's clock says 2023-11-14T22:13:20Z"},
		{"no number", strings.Replace(ok, "1700003600", "CANARY", 1), "not a number"},
		{"overflow", strings.Replace(ok, "1700003600", "9223372036854775807", 1), "se is too far in the future"},
		{"beyond any number", strings.Replace(ok, "1700003600", strings.Repeat("9", 30), 1), "se is too far in the future"},
		{"bad encoding", strings.Replace(ok, "%2F", "%zz", 1), "not percent-encoded"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := credentials.ParseToken(c.text, now)
			if err == nil || !strings.Contains(err.Error(), c.want) || !errors.Is(err, core.ErrInvalid) {
				t.Fatalf("err = %v, want ErrInvalid with %q", err, c.want)
			}
			if strings.Contains(err.Error(), "CANARY") {
				t.Errorf("the error gives a value away: %v", err)
			}
		})
	}
}

func FuzzParseConnectionString(f *testing.F) {
	f.Add("HostName=h.net;DeviceId=d;SharedAccessKey=" + key)
	f.Add("HostName=h;DeviceId=d;ModuleId=m;GatewayHostName=g;x509=true;")
	f.Fuzz(func(t *testing.T, text string) {
		cs, err := credentials.ParseConnectionString(text)
		if err != nil {
			return
		}
		if cs.X509 == (cs.Key != "") {
			t.Fatalf("%q: accepted with both or neither of key and x509", text)
		}
		if cs.X509 {
			return
		}
		source, err := credentials.NewSharedKey(cs.Identity, cs.Key, time.Hour, at(1_700_000_000))
		if err != nil {
			t.Fatalf("%q: accepted, but unusable: %v", text, err)
		}
		c, err := source.Credential(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		token, err := credentials.ParseToken(c.Token.Reveal(), time.Unix(1_700_000_000, 0))
		if err != nil {
			t.Fatalf("own token refused: %v", err)
		}
		want := cs.Identity
		want.Gateway = ""
		if token.Identity != want {
			t.Fatalf("token is for %v, want %v", token.Identity, want)
		}
	})
}

func FuzzParseToken(f *testing.F) {
	f.Add("SharedAccessSignature sr=h.net%2Fdevices%2Fd%2Fmodules%2Fm&sig=c2ln&se=1700003600&skn=")
	f.Fuzz(func(t *testing.T, text string) {
		token, err := credentials.ParseToken(text, time.Unix(0, 0))
		if err == nil && credentials.CheckIdentity(token.Identity) != nil {
			t.Fatalf("%q: accepted with identity %v", text, token.Identity)
		}
	})
}
