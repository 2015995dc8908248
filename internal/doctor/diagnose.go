package doctor

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"syscall"

	"github.com/fairlead-iot/fairlead/core"
	"github.com/fairlead-iot/fairlead/transports/netdial"
)

// diagnose chooses the code of an error of the dialer; issuer is that of a certificate that is not trusted.
func (w *walk) diagnose(err error) (code, issuer string) {
	e, ok := errors.AsType[*core.Error](err)
	if !ok {
		return "tcp-failed", ""
	}
	switch e.Phase {
	case netdial.PhaseDNS:
		return "dns-" + diagnoseDNS(err), ""
	case netdial.PhaseTCP:
		return "tcp-" + diagnoseTCP(err), ""
	case netdial.PhaseProxy:
		return diagnoseProxy(e), ""
	case netdial.PhaseTLS:
		return w.diagnoseTLS(err)
	default:
		return "tcp-failed", ""
	}
}

func isTimeout(err error) bool {
	var t interface{ Timeout() bool }
	return errors.Is(err, context.DeadlineExceeded) || errors.As(err, &t) && t.Timeout()
}

func isCut(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.ErrClosedPipe) ||
		errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

func diagnoseDNS(err error) string {
	e, ok := errors.AsType[*net.DNSError](err)
	switch {
	case ok && e.IsNotFound:
		return "not-found"
	case isTimeout(err):
		return "silent"
	default:
		return "failed"
	}
}

func diagnoseTCP(err error) string {
	switch {
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, syscall.ECONNRESET):
		return "refused"
	case errors.Is(err, syscall.ENETUNREACH), errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.ENETDOWN),
		errors.Is(err, syscall.EACCES), errors.Is(err, syscall.EPERM), errors.Is(err, syscall.EADDRNOTAVAIL):
		return "unreachable"
	case isTimeout(err):
		return "silent"
	default:
		return "failed"
	}
}

// diagnoseProxy goes by the status where the proxy speaks HTTP. One of SOCKS that refuses who asks has RetryAfter.
func diagnoseProxy(e *core.Error) string {
	to := netdial.ToProxy(e)
	switch {
	case netdial.UnspokenAuth(e):
		return "proxy-auth-unspoken"
	case e.Status == http.StatusProxyAuthRequired, e.Status == http.StatusUnauthorized, e.Status == 0 && e.RetryAfter > 0:
		return "proxy-auth-required"
	case e.Status == http.StatusTooManyRequests:
		return "proxy-busy"
	case e.Status == http.StatusBadGateway, e.Status == http.StatusServiceUnavailable, e.Status == http.StatusGatewayTimeout:
		return "proxy-hub-unreached"
	case e.Status == http.StatusForbidden:
		return "proxy-forbids"
	case e.Status != 0:
		return "proxy-failed"
	case to == netdial.PhaseDNS:
		return "proxy-not-found"
	case to == netdial.PhaseTLS && !isTimeout(e):
		return "proxy-tls-failed"
	case to == netdial.PhaseTCP && diagnoseTCP(e) == "refused":
		return "proxy-refused"
	case to == netdial.PhaseTCP, isTimeout(e):
		return "proxy-silent"
	default:
		return "proxy-failed"
	}
}

// Alerts by which a server says that no version or cipher suits it.
// https://www.rfc-editor.org/rfc/rfc8446#section-6.2
var noCommonAlerts = []tls.AlertError{40, 70, 71}

func (w *walk) diagnoseTLS(err error) (code, issuer string) {
	if e, ok := errors.AsType[x509.UnknownAuthorityError](err); ok {
		return w.diagnoseIssuer(e)
	}
	invalid, isInvalid := errors.AsType[x509.CertificateInvalidError](err)
	_, isName := errors.AsType[x509.HostnameError](err)
	_, isPlain := errors.AsType[tls.RecordHeaderError](err)
	e, _ := errors.AsType[*core.Error](err)
	alert, isAlert := netdial.RemoteAlert(err)
	switch {
	case isName:
		return "tls-wrong-name", ""
	case isInvalid && invalid.Reason == x509.Expired && invalid.Cert != nil && w.now().Before(invalid.Cert.NotBefore):
		return "tls-not-valid-yet", ""
	case isInvalid && invalid.Reason == x509.Expired:
		return "tls-expired", ""
	case isPlain:
		return "tls-not-tls", ""
	case isAlert && slices.Contains(noCommonAlerts, alert):
		return "tls-no-common", ""
	case isAlert && e.Kind == core.Unauthorized:
		return "tls-certificate-refused", ""
	case isTimeout(err):
		return "tls-silent", ""
	case isCut(err):
		return "tls-cut", ""
	default:
		return "tls-failed", ""
	}
}

// diagnoseIssuer says who opened the encryption, or which root is missing.
func (w *walk) diagnoseIssuer(e x509.UnknownAuthorityError) (code, issuer string) {
	issuer = "somebody unknown"
	var chain []*x509.Certificate
	if e.Cert != nil {
		issuer, chain = nameOf(e.Cert.Issuer.String()), []*x509.Certificate{e.Cert}
	}
	switch {
	case isAzure(w.facts.host) && isAzuresIssuer(chain):
		return "tls-roots-missing", issuer
	case isAzure(w.facts.host):
		return "tls-intercepted", issuer
	default:
		return "tls-untrusted", issuer
	}
}

// azureDomains end the names of hubs and provisioning services.
// https://learn.microsoft.com/azure/azure-government/compare-azure-government-global-azure
var azureDomains = []string{
	".azure-devices.net", ".azure-devices-provisioning.net", ".azure-devices.cn", ".azure-devices-provisioning.cn", ".azure-devices.us", ".azure-devices-provisioning.us",
}

func isAzure(host string) bool {
	return slices.ContainsFunc(azureDomains, func(domain string) bool { return strings.HasSuffix(strings.ToLower(host), domain) })
}

// azuresIssuers begin the organisations that issue the certificates of IoT Hub.
// https://learn.microsoft.com/azure/security/fundamentals/azure-ca-details
var azuresIssuers = []string{"Microsoft", "DigiCert", "Baltimore"}

// isAzuresIssuer reports whether one of those that issue Azure's certificates issued the first of the chain.
func isAzuresIssuer(chain []*x509.Certificate) bool {
	if len(chain) == 0 {
		return false
	}
	return slices.ContainsFunc(chain[0].Issuer.Organization, func(o string) bool {
		return slices.ContainsFunc(azuresIssuers, func(known string) bool { return strings.HasPrefix(o, known) })
	})
}

func issuerOf(chain []*x509.Certificate) string {
	if len(chain) == 0 {
		return "nobody"
	}
	return nameOf(chain[0].Issuer.String())
}

// nameOf bounds what a stranger's certificate may put into a line.
func nameOf(name string) string {
	name = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return -1
		}
		return r
	}, name)
	if r := []rune(name); len(r) > maxName {
		name = string(r[:maxName]) + "…"
	}
	return `"` + name + `"`
}

// maxName is how many characters of a certificate's names are shown.
const maxName = 120

func diagnoseWebSocket(e *core.Error) string {
	switch {
	case e.Status == http.StatusNotFound:
		return "ws-not-found"
	case e.Status == http.StatusTooManyRequests, e.Status == http.StatusServiceUnavailable:
		return "ws-busy"
	case e.Status == http.StatusProxyAuthRequired:
		return "proxy-auth-required"
	case e.Status >= 200:
		return "ws-refused"
	case isTimeout(e):
		return "ws-silent"
	default:
		return "ws-failed"
	}
}
