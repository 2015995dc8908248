package netdial

import (
	"crypto/md5" //nolint:gosec // the algorithm of most Digest proxies; RFC 7616 has it
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/Azure/go-ntlmssp"
)

// Schemes in which an HTTP proxy may ask who is there. https://www.iana.org/assignments/http-authschemes
const (
	schemeBasic  = "basic"
	schemeDigest = "digest"
	schemeNTLM   = "ntlm"
)

const maxOffersShown = 6

// What to do about a user that is missing or refused.
const (
	adviceSetUser   = "set proxy_username"
	adviceCheckUser = "it refuses the user name or the password: check proxy_username and proxy_password"
)

// spoken are the schemes that are spoken here, best first: Digest and NTLM do not show the password to who listens.
var spoken = []string{schemeDigest, schemeNTLM, schemeBasic}

// challenge is one offer of a proxy.
type challenge struct {
	scheme string // as the proxy writes it
	token  string // what follows without a name, as NTLM has it
	params map[string]string
}

func (c challenge) is(scheme string) bool { return strings.EqualFold(c.scheme, scheme) }

// proxyAuth is the conversation about who asks, over one or several CONNECTs.
type proxyAuth struct {
	user, password string
	scheme         string // that is spoken now; "" before the first challenge
	chosen         challenge
	answered       bool // the challenge chosen was answered
	renewed        bool // a stale nonce was replaced once
}

// errNoColon: Basic parts the two by a colon. https://www.rfc-editor.org/rfc/rfc7617#section-2
var errNoColon = errors.New("the user name has a colon, which the scheme Basic cannot carry")

// header returns the value of Proxy-Authorization for the next CONNECT; "" is none.
func (a *proxyAuth) header(target string) (string, error) {
	a.answered = a.scheme != ""
	switch a.scheme {
	case schemeBasic:
		if strings.Contains(a.user, ":") {
			return "", errNoColon
		}
		return "Basic " + base64.StdEncoding.EncodeToString([]byte(a.user+":"+a.password)), nil
	case schemeDigest:
		return digest(a.chosen, "CONNECT", target, a.user, a.password, rand.Text())
	case schemeNTLM:
		return a.ntlm()
	}
	return "", nil
}

// ntlm is the first of its messages, or the answer to the challenge.
func (a *proxyAuth) ntlm() (string, error) {
	var message []byte
	var err error
	if a.chosen.token == "" {
		message, err = ntlmssp.NewNegotiateMessage("", "")
		a.answered = false // it says nothing of the user
	} else {
		var theirs []byte
		if theirs, err = base64.StdEncoding.DecodeString(a.chosen.token); err != nil {
			return "", errors.New("its NTLM challenge cannot be read")
		}
		message, err = ntlmssp.NewAuthenticateMessage(theirs, a.user, a.password, nil)
	}
	if err != nil {
		return "", fmt.Errorf("answer its NTLM challenge: %w", err)
	}
	return "NTLM " + base64.StdEncoding.EncodeToString(message), nil
}

// keepsConnection says that the conversation belongs to one connection and is in the middle. NTLM is so.
func (a *proxyAuth) keepsConnection() bool { return a.scheme == schemeNTLM && a.chosen.token != "" }

// restart forgets what belonged to a connection that has ended.
func (a *proxyAuth) restart() {
	if a.scheme == schemeNTLM {
		a.chosen.token = ""
	}
}

// challenged takes the challenges of a 407 and decides how to answer. Its error says why there is nothing to answer.
func (a *proxyAuth) challenged(line string, values []string) error {
	offers := parseChallenges(values)
	var names []string
	for _, c := range offers {
		if !slices.Contains(names, c.scheme) && len(names) < maxOffersShown {
			names = append(names, printable(c.scheme, 20))
		}
	}
	offered := "offers " + strings.Join(names, ", ")
	if len(names) == 0 {
		offered = "offers no way to say who asks"
	}
	refuse := func(advice string) error {
		return &proxyRefusalError{status: statusProxyAuth, text: line + ": " + offered + "; " + advice, user: true}
	}
	find := func(scheme string) (challenge, bool) {
		for _, c := range offers {
			if c.is(scheme) && (scheme != schemeDigest || digestHash(c) != nil) {
				return c, true
			}
		}
		return challenge{}, false
	}
	isSpoken := slices.ContainsFunc(spoken, func(scheme string) bool { _, ok := find(scheme); return ok })
	if a.user == "" && (isSpoken || len(offers) == 0) {
		return refuse(adviceSetUser)
	}
	c, ok := find(a.scheme)
	switch {
	case a.answered && a.scheme == schemeDigest && ok && !a.renewed && strings.EqualFold(c.params["stale"], "true"):
		a.renewed = true
		a.chosen = c
		return nil
	case a.answered && (ok || len(offers) == 0): // else it is another proxy by now
		return refuse(adviceCheckUser)
	case a.scheme == schemeNTLM && ok && c.token != "":
		a.chosen = c
		return nil
	case a.scheme == schemeNTLM && ok:
		return refuse("it does not go on with NTLM")
	}
	for _, scheme := range spoken {
		if c, ok := find(scheme); ok {
			a.scheme, a.chosen = scheme, c
			return nil
		}
	}
	return &proxyRefusalError{
		status: statusProxyAuth, user: true, unspoken: true,
		text: line + ": " + offered + "; Basic, Digest (MD5, SHA-256) and NTLM are spoken here, and no user name changes that",
	}
}

// parseChallenges reads values of Proxy-Authenticate, each of which may hold several challenges. What is malformed is
// left out. https://www.rfc-editor.org/rfc/rfc9110#section-11.6.1
func parseChallenges(values []string) []challenge {
	var out []challenge
	for _, rest := range values {
		for {
			rest = strings.TrimLeft(rest, " \t,")
			n := tokenLength(rest)
			if n == 0 {
				break // the end, or what nobody can read
			}
			name := rest[:n]
			after := strings.TrimLeft(rest[n:], " \t")
			if strings.HasPrefix(after, "=") && len(out) > 0 {
				var value string
				value, rest = paramValue(strings.TrimLeft(after[1:], " \t"))
				out[len(out)-1].params[strings.ToLower(name)] = value
				continue
			}
			c := challenge{scheme: name, params: map[string]string{}}
			if token := after[:token68Length(after)]; token != "" && len(after) < len(rest[n:]) {
				// It is the challenge's only text if nothing but a comma follows; else the name of a parameter.
				if end := strings.TrimLeft(after[len(token):], " \t"); end == "" || end[0] == ',' {
					c.token, after = token, end
				}
			}
			out = append(out, c)
			rest = after
		}
	}
	return out
}

// paramValue reads a token or a quoted string.
func paramValue(text string) (value, rest string) {
	if !strings.HasPrefix(text, `"`) {
		n := strings.IndexAny(text, ", \t")
		if n < 0 {
			n = len(text)
		}
		return text[:n], text[n:]
	}
	var b strings.Builder
	for i := 1; i < len(text); i++ {
		switch {
		case text[i] == '"':
			return b.String(), text[i+1:]
		case text[i] == '\\' && i+1 < len(text):
			i++
		}
		b.WriteByte(text[i])
	}
	return b.String(), ""
}

// tokenLength is the length of the token at the beginning. https://www.rfc-editor.org/rfc/rfc9110#section-5.6.2
func tokenLength(text string) int {
	return spanLength(text, "!#$%&'*+-.^_`|~")
}

// token68Length is that of a token68 with its padding. https://www.rfc-editor.org/rfc/rfc9110#section-11.2
func token68Length(text string) int {
	n := spanLength(text, "-._~+/")
	for n > 0 && n < len(text) && text[n] == '=' {
		n++
	}
	return n
}

func spanLength(text, marks string) int {
	n := strings.IndexFunc(text, func(r rune) bool {
		isLetter := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9'
		return !isLetter && !strings.ContainsRune(marks, r)
	})
	if n < 0 {
		return len(text)
	}
	return n
}

// digestHash returns the hash of a Digest challenge, in hexadecimal; nil where the algorithm or all of its qop are
// unknown. https://www.rfc-editor.org/rfc/rfc7616#section-3.3
func digestHash(c challenge) func(string) string {
	if qop, ok := c.params["qop"]; ok && !slices.Contains(strings.FieldsFunc(strings.ToLower(qop), func(r rune) bool { return r == ',' || r == ' ' }), "auth") {
		return nil
	}
	switch strings.TrimSuffix(strings.ToUpper(c.params["algorithm"]), "-SESS") {
	case "", "MD5":
		return func(s string) string { sum := md5.Sum([]byte(s)); return hex.EncodeToString(sum[:]) } //nolint:gosec // see its import
	case "SHA-256":
		return func(s string) string { sum := sha256.Sum256([]byte(s)); return hex.EncodeToString(sum[:]) }
	case "SHA-512-256":
		return func(s string) string { sum := sha512.Sum512_256([]byte(s)); return hex.EncodeToString(sum[:]) }
	}
	return nil
}

// digest answers a Digest challenge, each nonce once. https://www.rfc-editor.org/rfc/rfc7616#section-3.4
func digest(c challenge, method, uri, user, password, cnonce string) (string, error) {
	h := digestHash(c)
	realm, nonce, algorithm := c.params["realm"], c.params["nonce"], c.params["algorithm"]
	if h == nil || nonce == "" {
		return "", errors.New("its Digest challenge cannot be answered: it has no nonce, or an algorithm that is not known here")
	}
	a1 := h(user + ":" + realm + ":" + password)
	if strings.HasSuffix(strings.ToUpper(algorithm), "-SESS") {
		a1 = h(a1 + ":" + nonce + ":" + cnonce)
	}
	a2 := h(method + ":" + uri)
	const count = "00000001"
	_, hasQop := c.params["qop"]
	response := h(a1 + ":" + nonce + ":" + a2) // RFC 2069
	if hasQop {
		response = h(strings.Join([]string{a1, nonce, count, cnonce, "auth", a2}, ":"))
	}
	var b strings.Builder
	quoted := func(name, value string) {
		fmt.Fprintf(&b, `, %s="%s"`, name, strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(value))
	}
	if isASCII(user) || !strings.EqualFold(c.params["charset"], "UTF-8") {
		quoted("username", user)
	} else {
		fmt.Fprintf(&b, `, username*=UTF-8''%s`, percentEncode(user)) // RFC 8187
	}
	quoted("realm", realm)
	quoted("nonce", nonce)
	quoted("uri", uri)
	quoted("response", response)
	if algorithm != "" {
		b.WriteString(", algorithm=" + printable(algorithm, 20))
	}
	if opaque, ok := c.params["opaque"]; ok {
		quoted("opaque", opaque)
	}
	if hasQop {
		b.WriteString(", qop=auth, nc=" + count)
	}
	if hasQop || strings.HasSuffix(strings.ToUpper(algorithm), "-SESS") {
		quoted("cnonce", cnonce)
	}
	return "Digest " + b.String()[2:], nil
}

func isASCII(text string) bool {
	return !strings.ContainsFunc(text, func(r rune) bool { return r >= utf8.RuneSelf })
}

func percentEncode(text string) string {
	var b strings.Builder
	for _, c := range []byte(text) {
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' {
			b.WriteByte(c)
		} else {
			fmt.Fprintf(&b, "%%%02X", c)
		}
	}
	return b.String()
}
