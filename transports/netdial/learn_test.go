package netdial_test

import (
	"crypto/tls"
	"crypto/x509"
	"testing"
	"time"

	"github.com/fairlead-iot/fairlead/core"
	"github.com/fairlead-iot/fairlead/transports/netdial"
	"github.com/fairlead-iot/fairlead/transports/transporttest"
)

func TestACertificateThatIsTooYoungSaysWhatTimeItIsAtLeast(t *testing.T) {
	good, stranger := transporttest.NewAuthority(t, "good"), transporttest.NewAuthority(t, "stranger")
	young := time.Now().Add(-time.Hour).UTC().Truncate(time.Second)
	issue := func(a *transporttest.Authority, adjust func(*x509.Certificate), name string) tls.Certificate {
		return a.Issue(t, func(c *x509.Certificate) {
			c.NotBefore = young
			if adjust != nil {
				adjust(c)
			}
		}, name)
	}
	for _, c := range []struct {
		name  string
		cert  tls.Certificate
		clock time.Time
		want  time.Time // zero learns nothing
	}{
		{"a clock that is behind", issue(good, nil, host), young.Add(-time.Hour), young},
		{"a clock that is right", issue(good, nil, host), young.Add(time.Hour), time.Time{}},
		{"a clock that is ahead", issue(good, func(c *x509.Certificate) { c.NotAfter = young.Add(time.Minute) }, host), young.Add(time.Hour), time.Time{}},
		{"another name", issue(good, nil, "other.example.net"), young.Add(-time.Hour), time.Time{}},
		{"an authority that is not trusted", issue(stranger, nil, host), young.Add(-time.Hour), time.Time{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			port, _ := serve(t, &tls.Config{Certificates: []tls.Certificate{c.cert}})
			var learned time.Time
			conn, err := dialer(t, netdial.Config{
				Port: port, TLS: netdial.TLSConfig{ServerVerificationCert: good.PEM},
				Now: func() time.Time { return c.clock }, Learn: func(passed time.Time) { learned = passed },
			}).Dial(t.Context(), core.Credential{})
			if err == nil {
				conn.Close()
			}
			if !learned.Equal(c.want) {
				t.Errorf("learned %v, want %v; %v", learned, c.want, err)
			}
		})
	}
}
