package netdial

import (
	"bytes"
	"encoding/base64"
	"errors"
	"io"
	"maps"
	"reflect"
	"strings"
	"testing"
	"testing/iotest"
)

// The examples of https://www.rfc-editor.org/rfc/rfc7616#section-3.9 and, without qop, one computed by hand with md5sum.
func TestDigestAnswersAsInItsRFC(t *testing.T) {
	const cnonce = "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ"
	rfc := map[string]string{
		"realm": "http-auth@example.org", "qop": "auth, auth-int",
		"nonce": "7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v", "opaque": "FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS",
	}
	for _, c := range []struct {
		algorithm, user, password, cnonce string
		change                            map[string]string
		want                              []string
	}{
		{"MD5", "Mufasa", "Circle of Life", cnonce, nil, []string{`response="8ca523f5e9506fed4657c9700eebdbec"`, "algorithm=MD5", "qop=auth, nc=00000001", `cnonce="` + cnonce + `"`, `opaque="FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS"`}},
		{"SHA-256", "Mufasa", "Circle of Life", cnonce, nil, []string{`response="753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1"`}},
	} {
		params := map[string]string{"algorithm": c.algorithm}
		maps.Copy(params, rfc)
		got, err := digest(challenge{scheme: "Digest", params: params}, "GET", "/dir/index.html", c.user, c.password, c.cnonce)
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range c.want {
			if !strings.Contains(got, want) {
				t.Errorf("%s: %s lacks %s", c.algorithm, got, want)
			}
		}
	}

	// # names and realms that need care
	quoting := challenge{scheme: "Digest", params: map[string]string{"realm": `hall "2" \ 3`, "nonce": "n"}}
	got, err := digest(quoting, "CONNECT", "h:1", `do"main\gw`, "p", "c")
	if err != nil || !strings.Contains(got, `username="do\"main\\gw"`) || !strings.Contains(got, `realm="hall \"2\" \\ 3"`) || strings.Contains(got, "qop") || strings.Contains(got, "cnonce") {
		t.Errorf("%s, %v", got, err)
	}
	quoting.params["charset"] = "UTF-8"
	if got, _ := digest(quoting, "CONNECT", "h:1", "gw-ü", "p", "c"); !strings.Contains(got, "username*=UTF-8''gw%2D%C3%BC") {
		t.Errorf("%s has not the name as RFC 8187 wants it", got)
	}
	if _, err := digest(challenge{scheme: "Digest"}, "CONNECT", "h:1", "u", "p", "c"); err == nil {
		t.Error("a challenge without a nonce was answered")
	}
}

func TestChallengesAreParsed(t *testing.T) {
	c := func(scheme, token string, params ...string) challenge {
		out := challenge{scheme: scheme, token: token, params: map[string]string{}}
		for i := 0; i < len(params); i += 2 {
			out.params[params[i]] = params[i+1]
		}
		return out
	}
	for _, tt := range []struct {
		values []string
		want   []challenge
	}{
		{nil, nil},
		{[]string{"", " , ,", "=", `"x"`}, nil},
		{[]string{"Negotiate, NTLM"}, []challenge{c("Negotiate", ""), c("NTLM", "")}},
		{[]string{"NTLM TlRMTVNTUAAC==", `Basic realm="a, b=\"c\""`}, []challenge{c("NTLM", "TlRMTVNTUAAC=="), c("Basic", "", "realm", `a, b="c"`)}},
		{
			[]string{`Digest realm="x" , NONCE = "n", qop="auth,auth-int",stale=TRUE, algorithm=MD5,Basic realm=y`},
			[]challenge{c("Digest", "", "realm", "x", "nonce", "n", "qop", "auth,auth-int", "stale", "TRUE", "algorithm", "MD5"), c("Basic", "", "realm", "y")},
		},
		{[]string{`Basic realm="never ends`}, []challenge{c("Basic", "", "realm", "never ends")}},
	} {
		if got := parseChallenges(tt.values); !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%q: %+v, want %+v", tt.values, got, tt.want)
		}
	}
}

// The strongest scheme that both know is spoken, whatever the order of the offers.
func TestTheBestSchemeIsChosen(t *testing.T) {
	for _, c := range []struct{ offers, want string }{
		{`Basic realm="x"|NTLM|Digest realm="x", nonce="n", qop="auth"`, schemeDigest},
		{`Basic realm="x"|NTLM`, schemeNTLM},
		{`Negotiate|Basic realm="x"`, schemeBasic},
		{`Digest realm="x", nonce="n", qop="auth-int"|Basic realm="x"`, schemeBasic},
		{`Digest realm="x", nonce="n", algorithm=SHA-3-256|basic realm="x"`, schemeBasic},
	} {
		a := proxyAuth{user: "gw", password: "pw"}
		if err := a.challenged("407 x", strings.Split(c.offers, "|")); err != nil || a.scheme != c.want {
			t.Errorf("%s: %s, %v; want %s", c.offers, a.scheme, err, c.want)
		}
	}
}

// A stale nonce is replaced once; a password that is refused is never shown twice.
func TestAStaleNonceIsReplacedOnce(t *testing.T) {
	a := proxyAuth{user: "gw", password: "pw"}
	for i, c := range []struct {
		value string
		ok    bool
	}{{`Digest realm="x", nonce="1"`, true}, {`Digest realm="x", nonce="2", stale=true`, true}, {`Digest realm="x", nonce="3", stale=true`, false}} {
		if err := a.challenged("407 x", []string{c.value}); (err == nil) != c.ok {
			t.Fatalf("challenge %d: %v", i, err)
		}
		if header, err := a.header("h:1"); c.ok && (err != nil || !strings.Contains(header, `nonce="`+string(rune('1'+i)))) {
			t.Errorf("challenge %d is answered %s, %v", i, header, err)
		}
	}
}

func TestNothingIsReadBeyondTheHeader(t *testing.T) {
	for _, c := range []struct {
		text   string
		status int
		rest   string
	}{
		{"HTTP/1.1 200 Connection established\r\n\r\nhello", 200, "hello"},
		{"HTTP/1.0 200 OK\nContent-Length: 3\n\nabc", 200, "abc"},
		{"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200\r\nVia: x\r\n y\r\nno header\r\n\r\n\x16\x03", 200, "\x16\x03"},
	} {
		for _, r := range []io.Reader{strings.NewReader(c.text), iotest.OneByteReader(strings.NewReader(c.text)), iotest.DataErrReader(strings.NewReader(c.text))} {
			resp, err := readConnectResponse(r)
			if err != nil || resp.status != c.status {
				t.Fatalf("%q: %+v, %v", c.text, resp, err)
			}
			if rest, _ := io.ReadAll(r); string(rest) != c.rest {
				t.Errorf("%q: what is left is %q, want %q", c.text, rest, c.rest)
			}
		}
	}
}

func TestAConnectionIsUsedAgainOnlyWhereItsBodyEnds(t *testing.T) {
	for _, c := range []struct {
		header, body string
		again        bool
	}{
		{"Content-Length: 3\r\n", "abc", true},
		{"Content-Length: 0\r\n", "", true},
		{"Content-Length: 3\r\nConnection: close\r\n", "abc", false},
		{"", "abc", false},
		{"Content-Length: 4\r\n", "abc", false},
		{"Content-Length: 99999999\r\n", "abc", false},
		{"Content-Length: -1\r\n", "", false},
		{"Transfer-Encoding: chunked\r\n", "3;x=y\r\nabc\r\n0\r\nTrailer: x\r\n\r\n", true},
		{"Transfer-Encoding: chunked\r\n", "3\r\nabcd\r\n0\r\n\r\n", false},
		{"Transfer-Encoding: chunked\r\n", "ffffffff\r\n", false},
		{"Transfer-Encoding: chunked\r\n", "-1\r\n", false},
	} {
		r := strings.NewReader("HTTP/1.1 407 x\r\n" + c.header + "\r\n" + c.body)
		resp, err := readConnectResponse(r)
		if err != nil {
			t.Fatal(err)
		}
		if again := resp.skipBody(r); again != c.again || (again && r.Len() > 0) {
			t.Errorf("%q %q: again %v with %d bytes left, want %v", c.header, c.body, again, r.Len(), c.again)
		}
	}
	if r := strings.NewReader("HTTP/1.0 407 x\r\nContent-Length: 0\r\n\r\n"); true {
		if resp, err := readConnectResponse(r); err != nil || resp.skipBody(r) {
			t.Error("HTTP/1.0 without keep-alive is not used again", err)
		}
	}
}

// FuzzConnectResponse: whatever a proxy sends, the answer or the error is bounded, and nothing beyond the header is read.
func FuzzConnectResponse(f *testing.F) {
	for _, s := range []string{
		"HTTP/1.1 200 OK\r\n\r\nhello", "HTTP/1.1 407\r\n\r\n", "HTTP/1.1 407", "HTTP/1.1 407 x\r\nProxy-Authenticate: Digest realm=\"a\\\"\", nonce=n, qop=auth\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
		"HTTP/1.1 407 x\r\nProxy-Authenticate: NTLM TlRMTVNTUAACAAAA\r\nContent-Length: 3\r\n\r\nabc", "HTTP/1.1 407 x\r\nProxy-Authenticate: Digest realm=\"a\rX: y\", nonce=\"n\x00\"\r\n\r\n", "\x15\x03\x01", "SSH-2.0\r\n",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r := bytes.NewReader(b)
		resp, err := readConnectResponse(r)
		if read := len(b) - r.Len(); read > maxConnectHeader {
			t.Fatalf("%d bytes were read", read)
		}
		if err != nil {
			if len(err.Error()) > 400 {
				t.Fatalf("an error of %d bytes", len(err.Error()))
			}
			return
		}
		if read := b[:len(b)-r.Len()]; !bytes.HasSuffix(read, []byte("\n")) || resp.status < 200 || len(resp.line) > 64 {
			t.Fatalf("%q is %+v", read, resp)
		}
		a := proxyAuth{user: "user-1", password: "pass-word-1"}
		for range 3 {
			if err := a.challenged(resp.line, resp.authenticate); err != nil {
				refusal, ok := errors.AsType[*proxyRefusalError](err)
				if !ok || refusal.status != statusProxyAuth || strings.ContainsAny(err.Error(), "\r\n\x1b") || len(err.Error()) > 400 || strings.Contains(err.Error(), "pass-word-1") {
					t.Fatalf("%v", err)
				}
				break
			}
			header, err := a.header("h:1")
			if err == nil && strings.ContainsAny(header, "\r\n") {
				t.Fatalf("a header of two lines: %q", header)
			}
			if err == nil && a.scheme == schemeBasic && header != "Basic "+base64.StdEncoding.EncodeToString([]byte("user-1:pass-word-1")) {
				t.Fatalf("%q", header)
			}
		}
		before := r.Len()
		resp.skipBody(r)
		if before-r.Len() > maxConnectBody {
			t.Fatalf("a body of %d bytes was read", before-r.Len())
		}
	})
}
