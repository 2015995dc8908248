package pki

import (
	"crypto/x509"
	"os"
	"path/filepath"
	"testing"
	"time"
)

var now = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

func load(t *testing.T, dir string, at time.Time, names ...string) Identity {
	t.Helper()
	id, err := Load(dir, names, at)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func verify(t *testing.T, id Identity, name string, at time.Time) {
	t.Helper()
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(id.CA) {
		t.Fatal("the CA is no PEM certificate")
	}
	for _, cert := range id.Certificates {
		if _, err := cert.Leaf.Verify(x509.VerifyOptions{Roots: roots, DNSName: name, CurrentTime: at}); err != nil {
			t.Errorf("verify for %s: %v", name, err)
		}
	}
}

func TestCertificatesStayAndFollowTheNames(t *testing.T) {
	dir := t.TempDir()
	first := load(t, dir, now, "localhost", "127.0.0.1", "::1")
	for _, name := range []string{"localhost", "127.0.0.1", "::1"} {
		verify(t, first, name, now)
	}
	info, err := os.Stat(filepath.Join(dir, "ca.key"))
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode().Perm() != 0o600 {
		t.Errorf("the authority's key has mode %v", info.Mode())
	}
	again := load(t, dir, now, "localhost", "127.0.0.1", "::1")
	if !again.Certificates[0].Leaf.Equal(first.Certificates[0].Leaf) {
		t.Error("a restart made a new certificate for the same names")
	}
	other := load(t, dir, now, "myhub.azure-devices.net", "localhost")
	verify(t, other, "myhub.azure-devices.net", now)
	if string(other.CA) != string(first.CA) {
		t.Error("new names made a new authority")
	}
	later := now.Add(serverLifetime - time.Hour)
	verify(t, load(t, dir, later, "myhub.azure-devices.net", "localhost"), "localhost", later.Add(2*time.Hour))
}

func TestMemoryOnly(t *testing.T) {
	verify(t, load(t, "", now, "localhost"), "localhost", now)
}

// A machine without a battery begins in 1970 and jumps when it has asked for the
// time.
func TestCertificatesOfAnUnsetClockAreGoodLater(t *testing.T) {
	dir, later := t.TempDir(), era.AddDate(0, 6, 0)
	made := load(t, dir, time.Unix(60, 0), "localhost")
	verify(t, made, "localhost", time.Unix(120, 0))
	verify(t, made, "localhost", later)
	if again := load(t, dir, later, "localhost"); string(again.CA) != string(made.CA) {
		t.Error("the authority changed when the clock was set")
	}
}
