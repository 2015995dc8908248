package blobsas_test

import (
	"encoding/base64"
	"errors"
	"net/netip"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/fairlead-iot/fairlead/hub/internal/blobsas"
)

// key is the well-known one of Azure's emulators,
// https://learn.microsoft.com/azure/storage/common/storage-connect-azurite.
const key = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="

var (
	resource = blobsas.Resource{Account: "devstoreaccount1", Container: "uploads", Blob: "dev1/a b/ü.txt"}
	expiry   = time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)
)

func rawKey(t testing.TB) []byte {
	t.Helper()
	raw, err := base64.StdEncoding.DecodeString(key)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func parse(t *testing.T, text string) (blobsas.SAS, error) {
	t.Helper()
	q, err := url.ParseQuery(text)
	if err != nil {
		t.Fatal(err)
	}
	return blobsas.Parse(q)
}

// The signatures were made with @azure/storage-blob 12.34.0 and the key above.
func TestSignaturesOfAnotherImplementationFit(t *testing.T) {
	tests := map[string]string{
		"2018-03-28":       "sv=2018-03-28&se=2030-01-02T03%3A04%3A05Z&sr=b&sp=rcw&sig=wP8QZwTthj%2BLJrbrwymOqc9U%2BwHLYhFBBX0UJIrcHoM%3D",
		"2018-11-09":       "sv=2018-11-09&se=2030-01-02T03%3A04%3A05Z&sr=b&sp=rcw&sig=y4t1QkEsStnt1w51tHMmiLiB%2FokfXeJMUJ9LpEnBaNs%3D",
		"2020-12-06":       "sv=2020-12-06&se=2030-01-02T03%3A04%3A05Z&sr=b&sp=rcw&sig=xuTAlut0ObwzpNblk8Y66yHyia0iYYXU6fo2K6SnpdQ%3D",
		"newest":           "sv=2026-10-06&se=2030-01-02T03%3A04%3A05Z&sr=b&sp=rcw&sig=9JJ1i9QVQXzjZxoEzcu43yFN8Xa6SvQJ8hJ%2B0oKu6xo%3D",
		"every field":      "sv=2026-10-06&spr=https&st=2020-01-01T00%3A00%3A00Z&se=2030-01-02T03%3A04%3A05Z&sip=10.0.0.1-10.0.0.9&sr=b&sp=r&rscc=no-cache&rsct=text%2Fplain&sig=5uqz1WBJlpTM1uW6z7MNZ55Xkqd5XU82fH5AsXwXgt0%3D",
		"of the container": "sv=2026-10-06&se=2030-01-02T03%3A04%3A05Z&sr=c&sp=rl&sig=1OLy2PBleoIaYizaCLR53np1CWdWUJV9ofit%2FxxjBhI%3D",
	}
	for name, text := range tests {
		s, err := parse(t, text)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		r := resource
		if !s.SignedFor(r, rawKey(t)) || !s.Expiry.Equal(expiry) {
			t.Errorf("%s: the signature does not fit", name)
		}
		r.Container = "other"
		if s.SignedFor(r, rawKey(t)) {
			t.Errorf("%s: it fits another container", name)
		}
		if r = resource; s.SignedFor(blobsas.Resource{Account: r.Account, Container: r.Container, Blob: "other"}, rawKey(t)) != strings.Contains(text, "sr=c") {
			t.Errorf("%s: only a container's signature is good for every blob in it", name)
		}
	}
}

func TestSignedAddressesAreParsedAgain(t *testing.T) {
	start := expiry.Add(-time.Hour)
	text := blobsas.Sign(resource, blobsas.Grant{Permissions: "rw", Start: start, Expiry: expiry}, rawKey(t))
	s, err := parse(t, text)
	if err != nil {
		t.Fatal(err)
	}
	if !s.SignedFor(resource, rawKey(t)) || !s.Allows("w") || !s.Allows("cw") || s.Allows("d") || !s.Start.Equal(start) || !s.Expiry.Equal(expiry) {
		t.Errorf("parsed %+v of %s", s, text)
	}
	for _, change := range []string{"sp=rwd", "se=2031-01-02T03:04:05Z", "st=2001-01-01", "sv=2018-03-29", "sip=1.2.3.4", "rsct=text/html", "sig=AAAA"} {
		name, value, _ := strings.Cut(change, "=")
		q, err := url.ParseQuery(text)
		if err != nil {
			t.Fatal(err)
		}
		q.Set(name, value)
		if s, err := blobsas.Parse(q); err != nil || s.SignedFor(resource, rawKey(t)) {
			t.Errorf("with %s the signature still fits (%v)", change, err)
		}
	}
	if s.SignedFor(resource, []byte("another key")) {
		t.Error("it fits another key")
	}
}

func TestBadSignaturesAreRefused(t *testing.T) {
	const good = "sv=2018-03-28&sr=b&sp=rw&se=2030-01-02T03:04:05Z&sig=AAAA"
	tests := map[string]struct{ text, want string }{
		"none":              {"comp=block", "no signature"},
		"twice":             {good + "&sp=rwd", "sp stands there 2 times"},
		"no version":        {strings.Replace(good, "sv=2018-03-28&", "", 1), "sv must be"},
		"old version":       {strings.Replace(good, "2018-03-28", "2012-02-12", 1), "sv must be"},
		"no permission":     {strings.Replace(good, "sp=rw&", "", 1), "sp is missing"},
		"no end":            {strings.Replace(good, "se=2030-01-02T03:04:05Z&", "", 1), "se is not a time"},
		"account signature": {strings.Replace(good, "sr=b", "ss=b&srt=co", 1), "sr must be b or c"},
		"stored policy":     {good + "&si=mine", "si:"},
		"bad start":         {good + "&st=tomorrow", "st is not a time"},
		"bad protocol":      {good + "&spr=ftp", "spr must be"},
		"bad address":       {good + "&sip=1.2.3", "sip is not"},
		"bad range":         {good + "&sip=1.2.3.4-", "sip is not"},
		"not base64":        {strings.Replace(good, "AAAA", "A A", 1), "sig is not base64"},
	}
	for name, tt := range tests {
		_, err := parse(t, strings.ReplaceAll(tt.text, " ", "%20"))
		if err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: error %v, want %q", name, err, tt.want)
		}
		if (name == "none") != errors.Is(err, blobsas.ErrNone) {
			t.Errorf("%s: ErrNone is for no signature only: %v", name, err)
		}
	}
}

func TestTimesAndAddresses(t *testing.T) {
	for _, text := range []string{"2030-01-02", "2030-01-02T00:00Z", "2030-01-02T00:00:00Z", "2030-01-02T00:00:00.0000000Z"} {
		s, err := parse(t, "sv=2018-03-28&sr=b&sp=r&sig=AAAA&se="+text)
		if err != nil || !s.Expiry.Equal(time.Date(2030, 1, 2, 0, 0, 0, 0, time.UTC)) {
			t.Errorf("se=%s: %v, %v", text, s.Expiry, err)
		}
	}
	tests := map[string]bool{"": true, "127.0.0.1": true, "127.0.0.0-127.0.0.9": true, "127.0.0.2": false, "10.0.0.1-10.0.0.9": false, "::1": false}
	for sip, want := range tests {
		s, err := parse(t, "sv=2018-03-28&sr=b&sp=r&sig=AAAA&se=2030-01-02&sip="+sip)
		if err != nil {
			t.Fatal(err)
		}
		for _, from := range []string{"127.0.0.1", "::ffff:127.0.0.1"} {
			if s.AllowsFrom(netip.MustParseAddr(from)) != want {
				t.Errorf("sip=%q from %s is not %v", sip, from, want)
			}
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("sv=2018-03-28&sr=b&sp=rw&se=2030-01-02T03:04:05Z&sig=AAAA")
	f.Add("sv=2020-12-06&sr=c&sp=r&st=2020-01-01&se=2030-01-02&sip=1.2.3.4-1.2.3.9&spr=https&sig=%2B%2F8=&rsct=text/html")
	f.Fuzz(func(t *testing.T, text string) {
		q, err := url.ParseQuery(text)
		if err != nil {
			return
		}
		s, err := blobsas.Parse(q)
		if err != nil {
			return
		}
		if s.Expiry.IsZero() && q.Get("se") == "" || s.Version == "" || !s.Allows(q.Get("sp")) {
			t.Errorf("taken without an end, a version or a permission: %q", text)
		}
		if s.SignedFor(resource, []byte("a key that was used for nothing")) {
			t.Errorf("signed by nobody: %q", text)
		}
	})
}
