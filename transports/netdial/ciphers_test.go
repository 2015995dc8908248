package netdial_test

import (
	"crypto/tls"
	"errors"
	"reflect"
	"strings"
	"testing"

	"github.com/fairlead-iot/fairlead/core"
	"github.com/fairlead-iot/fairlead/transports/netdial"
	"github.com/fairlead-iot/fairlead/transports/transporttest"
)

func TestParseCiphers(t *testing.T) {
	both := []uint16{tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384, tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256}
	tests := []struct {
		list string
		want netdial.Ciphers
	}{
		{"", netdial.Ciphers{}},
		{"ECDHE-RSA-AES256-GCM-SHA384:ECDHE-RSA-AES128-GCM-SHA256", netdial.Ciphers{Suites: both}},
		{"ecdhe_rsa_aes256_gcm_sha384, ECDHE-RSA-AES128-GCM-SHA256:ECDHE-RSA-AES256-GCM-SHA384", netdial.Ciphers{Suites: both}},
		{"ECDHE-RSA-AES256-GCM-SHA384:ECDHE-RSA-AES128-GCM-SHA256:TLS_AES_128_GCM_SHA256", netdial.Ciphers{Suites: both}},
		{"ECDHE-RSA-AES256-GCM-SHA384:ECDHE-RSA-AES128-GCM-SHA256:!TLSv1.3", netdial.Ciphers{Suites: both, NoTLS13: true}},
		{"TLS_AES_256_GCM_SHA384", netdial.Ciphers{NoTLS12: true}},
	}
	for _, tt := range tests {
		if got, err := netdial.ParseCiphers(tt.list); err != nil || !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%q: %+v, %v; want %+v", tt.list, got, err, tt.want)
		}
	}
	for list, want := range map[string]string{
		"RC4-MD5":                         `cipher "RC4-MD5" is not known here: known are ECDHE-ECDSA-AES128-GCM-SHA256, `,
		"HIGH:!aNULL":                     `cipher "HIGH" is not known here`,
		"!aNULL":                          "words for classes of suites (HIGH, !aNULL) are not taken, name each suite",
		"TLS_AES_256_GCM_SHA384:!TLSv1.3": "a suite of TLS 1.3 is named, and !TLSv1.3 excludes it",
	} {
		if _, err := netdial.ParseCiphers(list); !errors.Is(err, core.ErrInvalid) || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want ErrInvalid with %q", list, err, want)
		}
	}
}

func TestCiphersDecideWhatIsNegotiated(t *testing.T) {
	authority := transporttest.NewAuthority(t, "hub")
	tests := []struct {
		name, list string
		server     *tls.Config
		version    uint16 // 0: refused
	}{
		{"1.3 stays allowed", "ECDHE-ECDSA-AES128-GCM-SHA256", &tls.Config{}, tls.VersionTLS13},
		{"unless excluded", "ECDHE-ECDSA-AES128-GCM-SHA256:!TLSv1.3", &tls.Config{}, tls.VersionTLS12},
		{"a suite in common", "ECDHE-ECDSA-AES256-GCM-SHA384", &tls.Config{MaxVersion: tls.VersionTLS12}, tls.VersionTLS12},
		{"none in common", "ECDHE-ECDSA-AES256-GCM-SHA384", &tls.Config{MaxVersion: tls.VersionTLS12, CipherSuites: []uint16{tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256}}, 0},
		{"1.3 alone", "TLS_AES_128_GCM_SHA256", &tls.Config{MaxVersion: tls.VersionTLS12}, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			ciphers, err := netdial.ParseCiphers(tt.list)
			if err != nil {
				t.Fatal(err)
			}
			tt.server.Certificates = []tls.Certificate{authority.Issue(t, nil, host)}
			port, _ := serve(t, tt.server)
			conn, err := dialer(t, netdial.Config{Port: port, TLS: netdial.TLSConfig{ServerVerificationCert: authority.PEM, Ciphers: ciphers}}).Dial(t.Context(), core.Credential{})
			if err == nil {
				defer conn.Close() //nolint:errcheck // it has served
			}
			switch {
			case tt.version == 0 && (core.KindOf(err) != core.Fatal || !strings.Contains(err.Error(), "tls.cipher")):
				t.Errorf("got %v, want a refusal that names tls.cipher", err)
			case tt.version != 0 && err != nil:
				t.Error(err)
			case tt.version != 0 && conn.ConnectionState().Version != tt.version:
				t.Errorf("version %x, want %x", conn.ConnectionState().Version, tt.version)
			}
		})
	}
}
