package netdial

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strconv"
)

// golang.org/x/net/proxy speaks SOCKS 5 too, but tells the reasons of a refusal as text only, and a user's refusal must be
// told from a host that is not reached.

// socks5Replies are the words of the reply codes. https://www.rfc-editor.org/rfc/rfc1928#section-6
var socks5Replies = map[byte]string{
	1: "general failure", 2: "its rules do not allow the connection", 3: "network unreachable", 4: "host unreachable",
	5: "connection refused", 6: "TTL expired", 7: "it knows no CONNECT", 8: "it does not know this type of address",
}

// Methods and address types. https://www.rfc-editor.org/rfc/rfc1928#section-3
const (
	socksNoAuth   = 0x00
	socksPassword = 0x02
	socksNone     = 0xff

	socksIPv4 = 1
	socksName = 3
	socksIPv6 = 4

	// socks4Granted is SOCKS 4's reply to a request that is granted.
	socks4Granted = 90
)

// socks4Replies are the words of SOCKS 4's refusals. https://www.openssh.com/txt/socks4.protocol
var socks4Replies = map[byte]string{
	91: "rejected or failed; a proxy without SOCKS 4a, such as dante, reaches addresses only, no names", 92: "it cannot reach identd on this device", 93: "identd on this device names another user",
}

// splitTarget parts a target that the dialer has put together.
func splitTarget(target string) (host string, port uint16, err error) {
	host, text, err := net.SplitHostPort(target)
	if err != nil {
		return "", 0, err
	}
	n, err := strconv.ParseUint(text, 10, 16)
	if err == nil && len(host) > maxSOCKSText {
		err = fmt.Errorf("SOCKS carries host names of at most %d bytes", maxSOCKSText)
	}
	return host, uint16(n), err
}

// socks5 asks for a tunnel to target. The proxy is told the name.
func socks5(conn io.ReadWriter, p Proxy, target string) error {
	host, port, err := splitTarget(target)
	if err != nil {
		return err
	}
	hello := []byte{5, 1, socksNoAuth}
	if p.Username != "" {
		hello = []byte{5, 2, socksNoAuth, socksPassword}
	}
	if _, err := conn.Write(hello); err != nil {
		return err
	}
	var chosen [2]byte
	if err := readSOCKS(conn, 5, chosen[:]); err != nil {
		return err
	}
	switch {
	case chosen[1] == socksNoAuth:
	case chosen[1] == socksPassword && p.Username != "":
		if err := socks5Password(conn, p); err != nil {
			return err
		}
	case chosen[1] == socksNone && p.Username == "":
		return &proxyRefusalError{text: "it wants to know who asks: set proxy_username and proxy_password", user: true}
	case chosen[1] == socksNone:
		return &proxyRefusalError{text: "it takes neither a user name and password nor nobody at all", user: true}
	default:
		return fmt.Errorf("it chooses the authentication %d, which was not offered", chosen[1])
	}
	request := []byte{5, 1, 0}
	if ip, err := netip.ParseAddr(host); err != nil {
		request = append(append(request, socksName, byte(len(host))), host...) //nolint:gosec // splitTarget has looked at the length
	} else if ip = ip.Unmap(); ip.Is4() {
		request = append(append(request, socksIPv4), ip.AsSlice()...)
	} else {
		request = append(append(request, socksIPv6), ip.AsSlice()...)
	}
	if _, err := conn.Write(append(request, byte(port>>8), byte(port))); err != nil {
		return err
	}
	var reply [4]byte
	if err := readSOCKS(conn, 5, reply[:]); err != nil {
		return err
	}
	if reply[1] != 0 {
		return socksRefusal(socks5Replies, reply[1], target)
	}
	size := 0
	switch reply[3] {
	case socksIPv4:
		size = net.IPv4len
	case socksIPv6:
		size = net.IPv6len
	case socksName:
		var n [1]byte
		if _, err := io.ReadFull(conn, n[:]); err != nil {
			return err
		}
		size = int(n[0])
	default:
		return fmt.Errorf("it answers with an address of the unknown type %d", reply[3])
	}
	_, err = io.CopyN(io.Discard, conn, int64(size)+2) // the address from which it dials, and its port
	return err
}

// socks5Password shows user name and password. https://www.rfc-editor.org/rfc/rfc1929
func socks5Password(conn io.ReadWriter, p Proxy) error {
	user, password := p.Username, p.Password.Reveal()
	b := append([]byte{1, byte(len(user))}, user...) //nolint:gosec // Proxy.Check has looked at the lengths
	b = append(append(b, byte(len(password))), password...)
	if _, err := conn.Write(b); err != nil {
		return err
	}
	var answer [2]byte
	if _, err := io.ReadFull(conn, answer[:]); err != nil {
		return err
	}
	if answer[1] != 0 {
		return &proxyRefusalError{text: adviceCheckUser, user: true}
	}
	return nil
}

// socks4 asks for a tunnel to target, by SOCKS 4a where that is a name. https://www.openssh.com/txt/socks4a.protocol
func socks4(conn io.ReadWriter, p Proxy, target string) error {
	host, port, err := splitTarget(target)
	if err != nil {
		return err
	}
	b := []byte{4, 1, byte(port >> 8), byte(port)}
	ip, err := netip.ParseAddr(host)
	switch {
	case err != nil:
		b = append(append(b, 0, 0, 0, 1), p.Username...) // an address that cannot be: the name follows
		b = append(append(append(b, 0), host...), 0)
	case ip.Unmap().Is4():
		b = append(append(append(b, ip.Unmap().AsSlice()...), p.Username...), 0)
	default:
		return errors.New("SOCKS4 carries no IPv6 address: use SOCKS5")
	}
	if _, err := conn.Write(b); err != nil {
		return err
	}
	var reply [8]byte
	if err := readSOCKS(conn, 0, reply[:]); err != nil {
		return err
	}
	if reply[1] != socks4Granted {
		return socksRefusal(socks4Replies, reply[1], target)
	}
	return nil
}

// readSOCKS fills b, whose first byte must be version; what is no SOCKS at all is told after that byte.
func readSOCKS(conn io.Reader, version byte, b []byte) error {
	if _, err := io.ReadFull(conn, b[:1]); err != nil {
		return err
	}
	if b[0] != version {
		what := fmt.Sprintf("its answer begins with %#02x", b[0])
		if b[0] == 'H' {
			what = "it answers as an HTTP proxy"
		}
		return fmt.Errorf("it does not speak this version of SOCKS: %s: is proxy_type right?", what)
	}
	_, err := io.ReadFull(conn, b[1:])
	return err
}

func socksRefusal(words map[byte]string, code byte, target string) error {
	word, ok := words[code]
	if !ok {
		word = "an unknown reason"
	}
	return &proxyRefusalError{text: fmt.Sprintf("it gives no connection to %s: %s (code %d)", target, word, code)}
}
