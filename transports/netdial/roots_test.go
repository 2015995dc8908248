package netdial

import (
	"crypto/x509"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// A system without roots verifies the hub all the same. The process reads the system's roots once, so a second one looks.
func TestASystemWithoutRootsHasTheEmbeddedOnes(t *testing.T) {
	const child = "NETDIAL_TEST_NO_ROOTS"
	if os.Getenv(child) == "" {
		none := filepath.Join(t.TempDir(), "none")
		cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
		cmd.Env = append(os.Environ(), child+"=1", "SSL_CERT_FILE="+none, "SSL_CERT_DIR="+none)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("without roots: %v\n%s", err, out)
		}
		return
	}
	pool, err := x509.SystemCertPool()
	if err == nil && !pool.Equal(x509.NewCertPool()) {
		t.Skip("this system's roots do not come from files")
	}
	if HasSystemRoots() {
		t.Error("the system is said to have roots")
	}
	cfg, err := TLSConfig{}.build()
	if err != nil {
		t.Fatal(err)
	}
	if !cfg.roots().Equal(embeddedRoots()) || cfg.roots().Equal(x509.NewCertPool()) {
		t.Error("the embedded roots are not used")
	}
	cfg.roots().AddCert(&x509.Certificate{Raw: []byte("extra")})
	if again := roots(); again.Equal(cfg.roots()) {
		t.Error("what one configuration adds, another trusts")
	}
}
