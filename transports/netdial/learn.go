package netdial

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
)

// learn tells Config.Learn how late it is at least, where a handshake failed for no other reason than that this device's
// clock is behind: at the moment from which on the server's certificate is valid, it bears the right name and leads to a
// root that is trusted. No authority vouches for what is to come, so that moment has passed.
func (d *Dialer) learn(err error) {
	if d.cfg.Learn == nil {
		return
	}
	e, ok := errors.AsType[*tls.CertificateVerificationError](err)
	if !ok || len(e.UnverifiedCertificates) == 0 {
		return
	}
	leaf := e.UnverifiedCertificates[0]
	if !d.now().Before(leaf.NotBefore) {
		return
	}
	above := x509.NewCertPool()
	for _, c := range e.UnverifiedCertificates[1:] {
		above.AddCert(c)
	}
	if _, err := leaf.Verify(x509.VerifyOptions{DNSName: d.cfg.Host, Roots: d.tls.roots(), Intermediates: above, CurrentTime: leaf.NotBefore}); err == nil {
		d.cfg.Learn(leaf.NotBefore)
	}
}
