package mqtt

import "strings"

const upperHex = "0123456789ABCDEF"

// appendEscaped percent-encodes everything but the unreserved characters of RFC 3986. url.QueryEscape would write a
// space as +, which the hub reads as +; url.PathEscape leaves $ & + = : @, which have a meaning in a property bag.
func appendEscaped(b []byte, s string) []byte {
	for i := range len(s) {
		c := s[i]
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '_', c == '.', c == '-', c == '~':
			b = append(b, c)
		default:
			b = append(b, '%', upperHex[c>>4], upperHex[c&15])
		}
	}
	return b
}

func escape(s string) string { return string(appendEscaped(make([]byte, 0, len(s)+16), s)) }

// unescape undoes percent-encoding. + stays +, and a % that two hexadecimal digits do not follow stays as it is: a topic
// is never refused for its spelling.
func unescape(s string) string {
	if !strings.Contains(s, "%") {
		return s
	}
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] == '%' && i+2 < len(s) {
			hi, lo := unhex(s[i+1]), unhex(s[i+2])
			if hi < 16 && lo < 16 {
				b = append(b, hi<<4|lo)
				i += 2
				continue
			}
		}
		b = append(b, s[i])
	}
	return string(b)
}

// unhex returns a hexadecimal digit's value, 16 where it is none.
func unhex(c byte) byte {
	switch {
	case c >= '0' && c <= '9':
		return c - '0'
	case c >= 'a' && c <= 'f':
		return c - 'a' + 10
	case c >= 'A' && c <= 'F':
		return c - 'A' + 10
	}
	return 16
}
