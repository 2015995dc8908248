package netdial

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"
	"time"

	"github.com/fairlead-iot/fairlead/core"
)

// Classify chooses the kind of an error of the network or of TLS, and adds what to do where somebody must do something.
// host is the name that the certificate had to bear, now the wall clock by which it was judged.
func Classify(phase string, err error, host string, now time.Time) (core.Kind, error) {
	if phase == PhaseDNS {
		return core.Transient, err
	}
	if phase == PhaseTLS {
		if advised := adviseCertificate(err, host, now); advised != nil {
			return core.Fatal, advised
		}
		if kind, advised := adviseTLS(err); advised != nil {
			return kind, advised
		}
	}
	timeout, isNet := errors.AsType[net.Error](err)
	switch {
	case isNet && timeout.Timeout(),
		errors.Is(err, context.DeadlineExceeded),
		errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, syscall.EPIPE),
		errors.Is(err, syscall.ETIMEDOUT),
		errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, io.ErrClosedPipe):
		return core.Blocked, err
	}
	if _, ok := errors.AsType[*phaseTimeoutError](err); ok {
		return core.Blocked, err
	}
	return core.Transient, err
}

// adviseCertificate recognises a failed check of the server's certificate, and returns nil for anything else.
func adviseCertificate(err error, host string, now time.Time) error {
	if e, ok := errors.AsType[x509.HostnameError](err); ok {
		return fmt.Errorf("the certificate is not for %s (%w): is the host name right, and does an address override point to the hub?", host, e)
	}
	if e, ok := errors.AsType[x509.CertificateInvalidError](err); ok {
		if e.Reason == x509.Expired {
			return fmt.Errorf("the certificate is valid from %s to %s, and this device's clock says %s: set the clock, or renew the certificate of %s: %w",
				e.Cert.NotBefore.UTC().Format(time.RFC3339), e.Cert.NotAfter.UTC().Format(time.RFC3339), now.UTC().Format(time.RFC3339), host, e)
		}
		return fmt.Errorf("the certificate of %s cannot be trusted: %w", host, e)
	}
	if e, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		issuer := "somebody unknown"
		if e.Cert != nil {
			issuer = fmt.Sprintf("%q", e.Cert.Issuer.String())
		}
		return fmt.Errorf("the certificate of %s was issued by %s, which is not trusted: if that is your company's proxy, add its CA as tls.extra_ca; "+
			"if it is your gateway's, set tls.server_verification_cert; otherwise somebody is listening in: %w", host, issuer, e)
	}
	if e, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return fmt.Errorf("the certificate of %s cannot be verified: %w", host, e)
	}
	return nil
}

// Alerts by which a server refuses. https://www.rfc-editor.org/rfc/rfc8446#section-6.2
const (
	alertHandshakeFailure     = 40
	alertProtocolVersion      = 70
	alertInsufficientSecurity = 71
)

// clientCertificateAlerts say that the server did not like the certificate that it was shown, or missed one.
var clientCertificateAlerts = map[tls.AlertError]bool{
	42: true, 43: true, 44: true, 45: true, 46: true, 48: true, 49: true, 116: true,
}

// adviseTLS recognises the ways in which a handshake is refused, and returns nil for anything else.
func adviseTLS(err error) (core.Kind, error) {
	if e, ok := errors.AsType[tls.RecordHeaderError](err); ok {
		return core.Blocked, fmt.Errorf("something that does not speak TLS answers on this port (a captive portal, a proxy, or another port is meant): %w", e)
	}
	alert, ok := RemoteAlert(err)
	switch {
	case !ok:
		return 0, nil
	case clientCertificateAlerts[alert]:
		return core.Unauthorized, fmt.Errorf("the server refused the device's certificate: is it the one that the hub knows, and is it valid? %w", err)
	case alert == alertHandshakeFailure, alert == alertProtocolVersion, alert == alertInsufficientSecurity:
		return core.Fatal, fmt.Errorf("the server and this device have no version or cipher of TLS in common (TLS 1.2 and newer are spoken here; see tls.cipher): %w", err)
	}
	return 0, nil
}

// RemoteAlert returns the TLS alert by which the other side ended the connection, if err is that.
func RemoteAlert(err error) (tls.AlertError, bool) {
	e, ok := errors.AsType[*net.OpError](err)
	if !ok || e.Op != "remote error" {
		return 0, false
	}
	// crypto/tls has an unexported type here, with the texts of the exported one.
	text := e.Err.Error()
	for alert := range tls.AlertError(255) {
		if alert.Error() == text {
			return alert, true
		}
	}
	return 0, false
}
