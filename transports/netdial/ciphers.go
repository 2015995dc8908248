package netdial

import (
	"crypto/tls"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/fairlead-iot/fairlead/core"
)

// Ciphers says what may be negotiated. The zero value leaves it to Go.
type Ciphers struct {
	// Suites are those of TLS 1.2; nil is Go's choice. Their order does not matter: Go prefers by its own.
	Suites []uint16
	// NoTLS12 and NoTLS13 exclude a version. TLS 1.3's own suites cannot be chosen among: all three are sound.
	NoTLS12, NoTLS13 bool
}

func (c Ciphers) maxVersion() uint16 {
	if c.NoTLS13 {
		return tls.VersionTLS12
	}
	return 0 // the newest
}

// opensslNames are OpenSSL's names of the suites of TLS 1.2 that Go offers without being asked to be insecure.
// https://docs.openssl.org/master/man1/openssl-ciphers/
var opensslNames = map[string]uint16{
	"ECDHE-ECDSA-AES128-GCM-SHA256": tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
	"ECDHE-ECDSA-AES256-GCM-SHA384": tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
	"ECDHE-RSA-AES128-GCM-SHA256":   tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
	"ECDHE-RSA-AES256-GCM-SHA384":   tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
	"ECDHE-ECDSA-CHACHA20-POLY1305": tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
	"ECDHE-RSA-CHACHA20-POLY1305":   tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
	"ECDHE-ECDSA-AES128-SHA":        tls.TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA,
	"ECDHE-ECDSA-AES256-SHA":        tls.TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA,
	"ECDHE-RSA-AES128-SHA":          tls.TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA,
	"ECDHE-RSA-AES256-SHA":          tls.TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA,
}

// tls13Names are the names of TLS 1.3's suites, once _ is -.
var tls13Names = []string{"TLS-AES-128-GCM-SHA256", "TLS-AES-256-GCM-SHA384", "TLS-CHACHA20-POLY1305-SHA256"}

const noTLS13 = "!TLSV1.3"

// ParseCiphers reads a list of OpenSSL's names of suites, separated by colons, commas or spaces; case does not matter and
// _ stands for -. The names are of TLS 1.2; TLS 1.3 stays allowed beside them unless !TLSv1.3 is in the list. A list
// of TLS 1.3's names alone excludes TLS 1.2. "" gives the zero value. Its error wraps core.ErrInvalid and says what is known.
func ParseCiphers(list string) (Ciphers, error) {
	var c Ciphers
	var hasTLS13 bool
	for _, name := range strings.FieldsFunc(list, func(r rune) bool { return r == ':' || r == ',' || r == ' ' }) {
		plain := strings.ReplaceAll(strings.ToUpper(name), "_", "-")
		suite, ok := opensslNames[plain]
		switch {
		case ok && !slices.Contains(c.Suites, suite):
			c.Suites = append(c.Suites, suite)
		case ok: // named twice
		case slices.Contains(tls13Names, plain):
			hasTLS13 = true
		case plain == noTLS13:
			c.NoTLS13 = true
		default:
			return Ciphers{}, fmt.Errorf("cipher %q is not known here: known are %s; of TLS 1.3 TLS_AES_128_GCM_SHA256, TLS_AES_256_GCM_SHA384, TLS_CHACHA20_POLY1305_SHA256; and !TLSv1.3 to exclude that version; words for classes of suites (HIGH, !aNULL) are not taken, name each suite: %w",
				name, strings.Join(slices.Sorted(maps.Keys(opensslNames)), ", "), core.ErrInvalid)
		}
	}
	if hasTLS13 && c.NoTLS13 {
		return Ciphers{}, fmt.Errorf("the ciphers contradict each other: a suite of TLS 1.3 is named, and !TLSv1.3 excludes it: %w", core.ErrInvalid)
	}
	c.NoTLS12 = hasTLS13 && len(c.Suites) == 0
	return c, nil
}
