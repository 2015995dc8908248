package sas

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"
)

const prefix = "SharedAccessSignature "

// Token is a parsed shared access signature,
// https://learn.microsoft.com/azure/iot-hub/iot-hub-dev-guide-sas.
type Token struct {
	// Scope is sr after percent-decoding, in lower case, such as
	// "myhub.azure-devices.net/devices/dev1".
	Scope string
	// Policy is skn, "" for a device's own key.
	Policy string
	// Expiry is se.
	Expiry time.Time

	signed    string // the text under the signature: raw sr, LF, raw se
	signature []byte
}

// Parse reads the text of a token. Fields may come in any order. Errors never
// contain the token.
func Parse(text string) (Token, error) {
	rest, ok := strings.CutPrefix(text, prefix)
	if !ok {
		return Token{}, errors.New("sas: does not begin with SharedAccessSignature")
	}
	fields := map[string]string{}
	for part := range strings.SplitSeq(rest, "&") {
		key, value, _ := strings.Cut(part, "=")
		if _, twice := fields[key]; twice {
			return Token{}, errors.New("sas: a field stands there twice")
		}
		fields[key] = value
	}
	rawScope, rawExpiry := fields["sr"], fields["se"]
	if rawScope == "" || rawExpiry == "" || fields["sig"] == "" {
		return Token{}, errors.New("sas: sr, sig or se missing")
	}
	// PathUnescape, since a plus sign is literal here.
	scope, err := url.PathUnescape(rawScope)
	if err != nil {
		return Token{}, errors.New("sas: sr is not percent-encoded text")
	}
	encoded, err := url.PathUnescape(fields["sig"])
	if err != nil {
		return Token{}, errors.New("sas: sig is not percent-encoded text")
	}
	signature, err := base64.StdEncoding.DecodeString(encoded)
	if err != nil {
		return Token{}, errors.New("sas: sig is not base64")
	}
	seconds, err := strconv.ParseInt(rawExpiry, 10, 64)
	if err != nil {
		return Token{}, errors.New("sas: se is not a number of seconds")
	}
	policy, err := url.PathUnescape(fields["skn"])
	if err != nil {
		return Token{}, errors.New("sas: skn is not percent-encoded text")
	}
	return Token{
		Scope:     strings.TrimSuffix(strings.ToLower(scope), "/"),
		Policy:    policy,
		Expiry:    time.Unix(seconds, 0),
		signed:    rawScope + "\n" + rawExpiry,
		signature: signature,
	}, nil
}

// SignedBy reports whether the base64 key made the signature. The signature is
// over the raw, still encoded sr: clients differ in how they encode it.
func (t Token) SignedBy(key string) bool {
	mac, err := sign(t.signed, key)
	return err == nil && hmac.Equal(mac, t.signature)
}

// Digest tells tokens apart, and gives none of them away.
func (t Token) Digest() string {
	sum := sha256.Sum256(t.signature)
	return hex.EncodeToString(sum[:])
}

// Covers reports whether the token's scope is host, or a prefix of host/path by
// whole segments; compared without regard to case. A port in the scope's host is
// ignored: some clients put one there.
func (t Token) Covers(host, path string) bool {
	scopeHost, scopePath, _ := strings.Cut(t.Scope, "/")
	if bare, _, ok := cutPort(scopeHost); ok {
		scopeHost = bare
	}
	if scopeHost != strings.ToLower(host) {
		return false
	}
	path = strings.ToLower(strings.Trim(path, "/"))
	return scopePath == "" || path == scopePath || strings.HasPrefix(path, scopePath+"/")
}

// HostOnly reports whether the scope is a bare host name.
func (t Token) HostOnly() bool { return !strings.Contains(t.Scope, "/") }

func cutPort(hostport string) (host, port string, ok bool) {
	i := strings.LastIndexByte(hostport, ':')
	if i < 0 || strings.HasSuffix(hostport, "]") || strings.Count(hostport, ":") > 1 && !strings.HasPrefix(hostport, "[") {
		return hostport, "", false
	}
	return strings.Trim(hostport[:i], "[]"), hostport[i+1:], true
}

// New makes a token for the resource (not encoded), signed with the base64 key.
// policy may be empty.
func New(resource, policy, key string, expiry time.Time) (string, error) {
	scope := url.QueryEscape(resource)
	seconds := strconv.FormatInt(expiry.Unix(), 10)
	mac, err := sign(scope+"\n"+seconds, key)
	if err != nil {
		return "", err
	}
	text := prefix + "sr=" + scope + "&sig=" + url.QueryEscape(base64.StdEncoding.EncodeToString(mac)) + "&se=" + seconds
	if policy != "" {
		text += "&skn=" + url.QueryEscape(policy)
	}
	return text, nil
}

func sign(text, key string) ([]byte, error) {
	raw, err := base64.StdEncoding.DecodeString(key)
	if err != nil {
		return nil, fmt.Errorf("sas: decode key: %w", errors.New("not base64"))
	}
	mac := hmac.New(sha256.New, raw)
	mac.Write([]byte(text))
	return mac.Sum(nil), nil
}
