package credentials

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/fairlead-iot/fairlead/core"
)

// MaxTTL is the longest life that NewSharedKey accepts for a token. The hub itself has no limit, but a token that leaks
// cannot be withdrawn without changing the key.
const MaxTTL = 365 * 24 * time.Hour

// MinTTL is the shortest life that NewSharedKey accepts: `se` counts whole seconds, and a token must outlive the dial.
const MinTTL = 10 * time.Second

// Resource returns the SAS resource of an identity, not yet encoded: "hub/devices/d" or "hub/devices/d/modules/m".
// It names the hub even where a gateway is dialed.
func Resource(id core.Identity) string {
	r := id.Hostname + "/devices/" + id.DeviceID
	if id.ModuleID != "" {
		r += "/modules/" + id.ModuleID
	}
	return r
}

// SignFunc signs the text of a SAS token: HMAC-SHA256 with a key that it keeps to itself.
type SignFunc func(ctx context.Context, text []byte) ([]byte, error)

// Sign makes a SAS token for a resource that ends at a time of the wall clock (whole seconds, rounded down). keyName is
// the policy's, "" for a device's own key.
//
//	SharedAccessSignature sr={encoded resource}&sig={encoded signature}&se={Unix seconds}[&skn={key name}]
//
// The signature is over the encoded resource, a line feed, and the seconds.
// https://learn.microsoft.com/azure/iot-hub/authenticate-authorize-sas
func Sign(ctx context.Context, sign SignFunc, resource, keyName string, expiry time.Time) (core.Secret, error) {
	sr, se := escape(resource), strconv.FormatInt(expiry.Unix(), 10)
	sig, err := sign(ctx, []byte(sr+"\n"+se))
	if err != nil {
		return "", fmt.Errorf("sign token: %w", err)
	}
	token := tokenPrefix + "sr=" + sr + "&sig=" + escape(base64.StdEncoding.EncodeToString(sig)) + "&se=" + se
	if keyName != "" {
		token += "&skn=" + escape(keyName)
	}
	return core.Secret(token), nil
}

// KeySigner returns a SignFunc for a symmetric key, given as base64. Its error wraps core.ErrInvalid.
func KeySigner(key core.Secret) (SignFunc, error) {
	raw, err := decodeKey(key)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", err, core.ErrInvalid)
	}
	return func(_ context.Context, text []byte) ([]byte, error) {
		mac := hmac.New(sha256.New, raw)
		mac.Write(text)
		return mac.Sum(nil), nil
	}, nil
}

// sharedKey signs a token per credential. It is immutable.
type sharedKey struct {
	resource string
	keyName  string // "" for a device's own key
	sign     SignFunc
	ttl      time.Duration
	now      func() time.Time
}

// NewSharedKey returns a source that signs a fresh token with the identity's symmetric key (base64) for each
// credential. A token lives for ttl from now(), the wall clock; ttl is MinTTL to MaxTTL, whole seconds count. Errors
// wrap core.ErrInvalid and do not contain the key.
func NewSharedKey(id core.Identity, key core.Secret, ttl time.Duration, now func() time.Time) (core.CredentialSource, error) {
	if err := CheckIdentity(id); err != nil {
		return nil, fmt.Errorf("make shared key credential: %w: %w", err, core.ErrInvalid)
	}
	if err := CheckTTL(ttl); err != nil {
		return nil, fmt.Errorf("make shared key credential: %w", err)
	}
	if now == nil {
		return nil, fmt.Errorf("make shared key credential: no clock: %w", core.ErrInvalid)
	}
	sign, err := KeySigner(key)
	if err != nil {
		return nil, fmt.Errorf("make shared key credential for %s: %w", id.ClientID(), err)
	}
	return &sharedKey{resource: Resource(id), sign: sign, ttl: ttl.Truncate(time.Second), now: now}, nil
}

// CheckTTL refuses lives that no token should have. Its error wraps core.ErrInvalid and gives the reason.
func CheckTTL(ttl time.Duration) error {
	switch {
	case ttl <= 0:
		return fmt.Errorf("token life %v: %w: a token must live, for example 1h", ttl, core.ErrInvalid)
	case ttl < MinTTL:
		return fmt.Errorf("token life %v: %w: at least %v, so that a token outlives the dial it is made for", ttl, core.ErrInvalid, MinTTL)
	case ttl > MaxTTL:
		return fmt.Errorf("token life %v: %w: at most %v, since a token that leaks cannot be withdrawn; tokens are renewed by themselves, 1h is usual",
			ttl, core.ErrInvalid, MaxTTL)
	}
	return nil
}

// Credential signs a token.
func (k *sharedKey) Credential(ctx context.Context) (core.Credential, error) {
	if err := ctx.Err(); err != nil {
		return core.Credential{}, &core.Error{Op: "sign token", Kind: core.Transient, Err: context.Cause(ctx)}
	}
	token, err := Sign(ctx, k.sign, k.resource, k.keyName, k.now().Add(k.ttl))
	if err != nil {
		return core.Credential{}, &core.Error{Op: "make credential", Kind: core.Transient, Err: err}
	}
	return core.Credential{Token: token, Life: k.ttl}, nil
}

const tokenPrefix = "SharedAccessSignature "

// maxExpiry is the last second of the year 9999, where the time of .NET, which the hub is written in, ends; and what a
// date of RFC 3339 can say.
const maxExpiry = 253402300799

// Token is what a SAS token that somebody else signed says.
type Token struct {
	// Identity is the device or module that the token is for; Gateway is not known from a token.
	Identity core.Identity
	// Expiry is `se`.
	Expiry time.Time
	// KeyName is `skn`, "" where there is none.
	KeyName string
	// Text is the token itself.
	Text core.Secret
}

// ParseToken parses a SAS token and checks, at the wall-clock time now, that it has not expired and names a device or
// module (a token for a whole hub is refused). Its errors wrap core.ErrInvalid and contain nothing of the token.
func ParseToken(text string, now time.Time) (Token, error) {
	t, err := ReadToken(text)
	if err == nil && t.Expiry.Before(now) {
		return Token{}, fmt.Errorf("parse SAS token: it expired at %s, and this device's clock says %s; have a new one made, or set the clock: %w",
			t.Expiry.Format(time.RFC3339), now.UTC().Format(time.RFC3339), core.ErrInvalid)
	}
	return t, err
}

// ReadToken is ParseToken for a token that may have expired. White space and a byte order mark around it, and one & at its
// end, are left out.
func ReadToken(text string) (Token, error) {
	t, err := parseToken(trim(text))
	if err != nil {
		return Token{}, fmt.Errorf("parse SAS token: %w: %w", err, core.ErrInvalid)
	}
	return t, nil
}

func parseToken(text string) (Token, error) {
	if err := checkQuotes(text); err != nil {
		return Token{}, err
	}
	text = strings.TrimSuffix(text, "&")
	t := Token{Text: core.Secret(text)}
	if strings.Count(text, tokenPrefix) != 1 || !strings.HasPrefix(text, tokenPrefix) {
		return t, errors.New("it must begin with SharedAccessSignature and a space")
	}
	fields := map[string]string{}
	for i, part := range strings.Split(strings.TrimPrefix(text, tokenPrefix), "&") {
		name, value, ok := strings.Cut(part, "=")
		name, value = strings.TrimSpace(name), strings.TrimSpace(value)
		if !ok {
			return t, fmt.Errorf("field %d of it is not of the form name=value", i+1)
		}
		switch name {
		case "sr", "sig", "se", "skn":
			if _, twice := fields[name]; twice {
				return t, fmt.Errorf("%s stands twice in it", name)
			}
			fields[name] = value
		default:
			return t, fmt.Errorf("field %d of it has an unknown name; known are sr, sig, se, skn", i+1)
		}
	}
	for _, name := range []string{"sr", "sig", "se"} {
		if fields[name] == "" {
			return t, fmt.Errorf("%s is missing", name)
		}
	}
	resource, ok := unescape(fields["sr"])
	if !ok {
		return t, errors.New("sr is not percent-encoded text")
	}
	id, err := parseResource(resource)
	if err != nil {
		return t, err
	}
	t.Identity = id
	if t.KeyName, ok = unescape(fields["skn"]); !ok {
		return t, errors.New("skn is not percent-encoded text")
	}
	if !isSignature(fields["sig"]) {
		return t, errors.New("sig is not base64: copy the token again, whole")
	}
	se, err := strconv.ParseInt(fields["se"], 10, 64)
	switch {
	case errors.Is(err, strconv.ErrRange) && se > 0 || err == nil && se > maxExpiry:
		return t, errors.New("se is too far in the future: it counts seconds since 1970, not milliseconds")
	case err != nil || se < 0:
		return t, errors.New("se is not a number of seconds since 1970")
	}
	t.Expiry = time.Unix(se, 0).UTC()
	return t, nil
}

// parseResource takes "hub/devices/d" and "hub/devices/d/modules/m" apart.
func parseResource(resource string) (core.Identity, error) {
	p := strings.Split(resource, "/")
	var id core.Identity
	switch {
	case len(p) == 3 && p[1] == "devices":
		id = core.Identity{Hostname: p[0], DeviceID: p[2]}
	case len(p) == 5 && p[1] == "devices" && p[3] == "modules" && p[4] != "":
		id = core.Identity{Hostname: p[0], DeviceID: p[2], ModuleID: p[4]}
	default:
		return id, errors.New("sr must name one device or module ({hub}/devices/{device}[/modules/{module}]); a token for a whole hub is not a device's")
	}
	if err := CheckIdentity(id); err != nil {
		return core.Identity{}, fmt.Errorf("sr: %w", err)
	}
	return id, nil
}

// isSignature takes only what Sign could have written: strict base64, encoded once. What lost a character, or was encoded
// twice, the hub refuses without a word about why.
func isSignature(field string) bool {
	text, ok := unescape(field)
	_, err := base64.StdEncoding.Strict().DecodeString(text)
	return ok && err == nil && !strings.ContainsAny(text, "\r\n")
}

const upperHex = "0123456789ABCDEF"

// escape percent-encodes everything but the unreserved characters of RFC 3986 (A-Z a-z 0-9 _ . - ~), as the hub's own
// clients do. url.QueryEscape would write a space as +, url.PathEscape would leave $ & + = : @ as they are.
func escape(s string) string {
	var b strings.Builder
	b.Grow(len(s) + 16)
	for i := range len(s) {
		c := s[i]
		if isAlnum(c) || c == '_' || c == '.' || c == '-' || c == '~' {
			b.WriteByte(c)
			continue
		}
		b.WriteByte('%')
		b.WriteByte(upperHex[c>>4])
		b.WriteByte(upperHex[c&15])
	}
	return b.String()
}

// unescape undoes escape; + stays +. ok is false where a % is not followed by two hexadecimal digits.
func unescape(s string) (text string, ok bool) {
	if !strings.Contains(s, "%") {
		return s, true
	}
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] != '%' {
			b = append(b, s[i])
			continue
		}
		if i+2 >= len(s) {
			return "", false
		}
		n, err := strconv.ParseUint(s[i+1:i+3], 16, 8)
		if err != nil {
			return "", false
		}
		b = append(b, byte(n))
		i += 2
	}
	return string(b), true
}
