package netdial

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Limits of what a proxy may answer.
const (
	maxConnectHeader = 8 << 10  // the header, interim answers included
	maxConnectBody   = 64 << 10 // of a refusal, which is read so that the connection can be used again
	maxInterim       = 4        // answers of status 1xx
)

// connectRequest asks an HTTP proxy for a tunnel to target, "host:port".
// https://www.rfc-editor.org/rfc/rfc9110#section-9.3.6
func connectRequest(target, authorization string) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "CONNECT %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: fairlead\r\nProxy-Connection: keep-alive\r\n", target, target)
	if authorization != "" {
		fmt.Fprintf(&b, "Proxy-Authorization: %s\r\n", authorization)
	}
	b.WriteString("\r\n")
	return b.Bytes()
}

// connectResponse is an HTTP proxy's answer to CONNECT: the part of it that decides what comes next.
type connectResponse struct {
	status int
	line   string // "407 Proxy Authentication Required", fit to be shown
	// authenticate are the values of Proxy-Authenticate.
	authenticate []string
	retryAfter   string
	// length is that of the body, -1 where it goes on until the end of the connection.
	length  int64
	chunked bool
	// last says that the proxy closes the connection after it.
	last bool
}

// readConnectResponse reads an answer up to the end of its header and not a byte more: what follows is the tunnel's. It
// reads byte by byte for that, so that the connection stays what it was, a socket that needs no buffer before it.
func readConnectResponse(r io.Reader) (*connectResponse, error) {
	h := headerReader{r: r, left: maxConnectHeader}
	for range maxInterim + 1 {
		resp, err := h.response()
		if err != nil || resp.status >= 200 {
			return resp, err
		}
	}
	return nil, errTooManyInterim
}

var (
	errTooManyInterim = errors.New("it sends interim answers without end")
	errHeaderTooLarge = fmt.Errorf("the header of its answer is larger than %d bytes", maxConnectHeader)
)

// notHTTPError says that the other side does not speak HTTP.
type notHTTPError struct{ text []byte }

func (e *notHTTPError) Error() string {
	hint := "is proxy_type right?"
	if len(e.text) > 0 && (e.text[0] == 0x15 || e.text[0] == 0x16) { // a TLS alert, or a handshake
		hint = "it speaks TLS, as a proxy of type HTTPS does"
	}
	return fmt.Sprintf("it does not speak HTTP: it answers %.40q: %s", e.text, hint)
}

// headerReader reads lines, each byte once, until its budget is used up.
type headerReader struct {
	r    io.Reader
	left int
}

func (h *headerReader) byte() (byte, error) {
	if h.left == 0 {
		return 0, errHeaderTooLarge
	}
	var b [1]byte
	if _, err := io.ReadFull(h.r, b[:]); err != nil {
		return 0, err
	}
	h.left--
	return b[0], nil
}

// line reads up to a line feed, and returns what stands before it. What does not begin with prefix is an error at once:
// something else than HTTP may never send a line.
func (h *headerReader) line(prefix string) (string, error) {
	var out []byte
	for {
		c, err := h.byte()
		if err != nil {
			if errors.Is(err, io.EOF) && len(out) > 0 {
				err = io.ErrUnexpectedEOF
			}
			return "", err
		}
		if len(out) < len(prefix) && c != prefix[len(out)] {
			return "", &notHTTPError{append(out, c)}
		}
		if c == '\n' {
			return strings.TrimSuffix(string(out), "\r"), nil
		}
		out = append(out, c)
	}
}

func (h *headerReader) response() (*connectResponse, error) {
	line, err := h.line("HTTP/")
	if err != nil {
		return nil, err
	}
	resp, err := parseStatusLine(line)
	if err != nil {
		return nil, err
	}
	for name := ""; ; {
		line, err := h.line("")
		if err != nil {
			return nil, err
		}
		if line == "" {
			return resp, nil
		}
		value := line
		if line[0] != ' ' && line[0] != '\t' { // else it goes on with the header before
			var ok bool
			if name, value, ok = strings.Cut(line, ":"); !ok {
				name = "" // what is no header is none
				continue
			}
		}
		resp.header(strings.ToLower(strings.TrimSpace(name)), strings.TrimSpace(strings.Map(noControl, value)))
	}
}

// parseStatusLine reads "HTTP/1.1 407 Reason", where the reason may be missing with its space.
func parseStatusLine(line string) (*connectResponse, error) {
	version, rest, _ := strings.Cut(line, " ")
	code, reason, _ := strings.Cut(strings.TrimLeft(rest, " "), " ")
	status, err := strconv.Atoi(code)
	if err != nil || len(code) != 3 || status < 100 || len(version) != len("HTTP/1.1") {
		return nil, &notHTTPError{[]byte(line)}
	}
	if reason = printable(reason, 60); reason == "" {
		reason = http.StatusText(status)
	}
	return &connectResponse{
		status: status, line: strings.TrimSpace(code + " " + reason), length: -1,
		last: version != "HTTP/1.1",
	}, nil
}

func (r *connectResponse) header(name, value string) {
	switch name {
	case "proxy-authenticate":
		r.authenticate = append(r.authenticate, value)
	case "retry-after":
		r.retryAfter = value
	case "content-length":
		if n, err := strconv.ParseUint(value, 10, 31); err == nil {
			r.length = int64(n)
		}
	case "transfer-encoding":
		r.chunked = strings.EqualFold(value, "chunked")
	case "connection", "proxy-connection":
		for token := range strings.SplitSeq(value, ",") {
			switch strings.ToLower(strings.TrimSpace(token)) {
			case "close":
				r.last = true
			case "keep-alive":
				r.last = false
			}
		}
	}
}

// skipBody reads the body away, and reports whether the connection can be asked again after it.
func (r *connectResponse) skipBody(from io.Reader) bool {
	switch {
	case r.last:
		return false
	case r.chunked:
		return skipChunks(from)
	case r.length < 0 || r.length > maxConnectBody:
		return false
	}
	_, err := io.CopyN(io.Discard, from, r.length)
	return err == nil
}

// skipChunks reads a chunked body away. https://www.rfc-editor.org/rfc/rfc9112#section-7.1
func skipChunks(from io.Reader) bool {
	h := headerReader{r: from, left: maxConnectBody}
	for {
		line, err := h.line("")
		if err != nil {
			return false
		}
		size, _, _ := strings.Cut(line, ";")
		n, err := strconv.ParseUint(strings.TrimSpace(size), 16, 31)
		if err != nil || int(n) > h.left {
			return false
		}
		if n == 0 {
			break
		}
		h.left -= int(n)
		if _, err := io.CopyN(io.Discard, from, int64(n)); err != nil {
			return false
		}
		if end, err := h.line(""); err != nil || end != "" {
			return false
		}
	}
	for { // trailers
		line, err := h.line("")
		if err != nil {
			return false
		}
		if line == "" {
			return true
		}
	}
}

// ParseRetryAfter reads the value of the header Retry-After: seconds, or a date that is seen from now; at most limit, and 0
// for what says nothing. https://www.rfc-editor.org/rfc/rfc9110#section-10.2.3
func ParseRetryAfter(text string, now time.Time, limit time.Duration) time.Duration {
	if seconds, err := strconv.ParseUint(text, 10, 31); err == nil {
		return min(time.Duration(seconds)*time.Second, limit)
	}
	if at, err := http.ParseTime(text); err == nil {
		return min(max(at.Sub(now), 0), limit)
	}
	return 0
}

// noControl drops what must not get into a header that is sent back, as a nonce is.
func noControl(r rune) rune {
	if r != '\t' && (r < ' ' || r == 0x7f) {
		return -1
	}
	return r
}

// printable cuts text to what can be shown in a line.
func printable(text string, limit int) string {
	text = strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return -1
		}
		return r
	}, text)
	return strings.TrimSpace(text[:min(len(text), limit)])
}
