package netdial

import (
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"

	"golang.org/x/net/http/httpproxy"

	"github.com/fairlead-iot/fairlead/core"
)

// ProxyType says how to speak to a proxy.
type ProxyType string

// The types of proxies. All are given the hub's name, never an address that was looked up here.
const (
	// ProxyHTTP is the CONNECT method. https://www.rfc-editor.org/rfc/rfc9110#section-9.3.6
	ProxyHTTP ProxyType = "HTTP"
	// ProxyHTTPS is the same, in TLS to the proxy, whose certificate must bear Proxy.Addr.
	ProxyHTTPS ProxyType = "HTTPS"
	// ProxySOCKS4 is SOCKS 4a, which knows a user's name but no password. https://www.openssh.com/txt/socks4a.protocol
	ProxySOCKS4 ProxyType = "SOCKS4"
	// ProxySOCKS5 is SOCKS 5. https://www.rfc-editor.org/rfc/rfc1928
	ProxySOCKS5 ProxyType = "SOCKS5"
)

// Proxy says by which proxy to go; the zero value is none. It is a value: what it holds was read once, when it was made.
type Proxy struct {
	Type ProxyType
	// Addr is the proxy's host name or IP address.
	Addr string
	Port int
	// Username and Password are shown to a proxy that asks for them: by HTTP as Digest, NTLM (a user name of the form
	// DOMAIN\name has the domain) or Basic, the best that the proxy offers and this order has.
	Username string
	Password core.Secret
	// NoProxy names hosts that are reached directly, as NO_PROXY does: names with their subdomains, addresses, networks as
	// 10.0.0.0/8, each with a port or without, separated by commas. Where it is not empty, localhost and the addresses of
	// this machine count as named. https://pkg.go.dev/golang.org/x/net/http/httpproxy#Config
	NoProxy string
}

// Limits of what the protocols carry. https://www.rfc-editor.org/rfc/rfc1929
const (
	maxSOCKSText  = 255
	maxCredential = 4 << 10
)

// defaultPorts are those of a URL without one.
var defaultPorts = map[ProxyType]int{ProxyHTTP: 80, ProxyHTTPS: 443, ProxySOCKS4: 1080, ProxySOCKS5: 1080}

var proxySchemes = map[string]ProxyType{
	"http": ProxyHTTP, "https": ProxyHTTPS, "socks4": ProxySOCKS4, "socks4a": ProxySOCKS4, "socks5": ProxySOCKS5, "socks5h": ProxySOCKS5,
}

// ProxyFromEnvironment makes a proxy of HTTPS_PROXY, else ALL_PROXY, and NO_PROXY, or of the same names in lower case, as
// getenv tells them (os.Getenv). It is the zero value where none is set. Its error wraps core.ErrInvalid, names the
// variable, and never shows what is in it.
func ProxyFromEnvironment(getenv func(string) string) (Proxy, error) {
	either := func(upper string) (name, value string) {
		for _, name := range []string{upper, strings.ToLower(upper)} {
			if value := strings.TrimSpace(getenv(name)); value != "" {
				return name, value
			}
		}
		return "", ""
	}
	name, text := either("HTTPS_PROXY")
	if text == "" {
		name, text = either("ALL_PROXY")
	}
	if text == "" {
		return Proxy{}, nil
	}
	p, err := parseProxyURL(text)
	if err == nil {
		err = p.Check()
	}
	if err != nil {
		return Proxy{}, fmt.Errorf("variable %s: %w", name, err)
	}
	if _, p.NoProxy = either("NO_PROXY"); p.NoProxy == "" {
		p.NoProxy = "localhost"
	}
	return p, nil
}

// parseProxyURL reads a proxy's URL; without a scheme it is an HTTP proxy, as elsewhere.
func parseProxyURL(text string) (Proxy, error) {
	if !strings.Contains(text, "://") {
		text = "http://" + text
	}
	u, err := url.Parse(text) // its error shows the text, with the password
	if err != nil || u.Hostname() == "" {
		return Proxy{}, fmt.Errorf("it is not a proxy's URL, as http://user:password@proxy.example:3128 is (write special characters of the password as %%XX): %w", core.ErrInvalid)
	}
	kind, ok := proxySchemes[strings.ToLower(u.Scheme)]
	if !ok {
		return Proxy{}, fmt.Errorf("a proxy of the scheme %.20q is not known here: http, https, socks4 and socks5 are: %w", u.Scheme, core.ErrInvalid)
	}
	p := Proxy{Type: kind, Addr: u.Hostname(), Port: defaultPorts[kind]}
	if u.Port() != "" {
		if p.Port, err = strconv.Atoi(u.Port()); err != nil {
			p.Port = -1
		}
	}
	if u.User != nil {
		p.Username = u.User.Username()
		password, _ := u.User.Password()
		p.Password = core.Secret(password)
	}
	return p, nil
}

// IsZero reports whether there is no proxy.
func (p Proxy) IsZero() bool { return p == Proxy{} }

// String says which proxy it is, without the user's name and password.
func (p Proxy) String() string {
	if p.Type == "" {
		return "none"
	}
	return string(p.Type) + " proxy " + p.hostPort()
}

func (p Proxy) hostPort() string { return net.JoinHostPort(p.Addr, strconv.Itoa(p.Port)) }

// Check refuses what cannot work, as New does. Its error wraps core.ErrInvalid.
func (p Proxy) Check() error {
	if p.IsZero() {
		return nil
	}
	refuse := func(format string, args ...any) error {
		return fmt.Errorf("proxy: "+format+": %w", append(args, core.ErrInvalid)...)
	}
	isControl := func(r rune) bool { return r < ' ' || r == 0x7f }
	switch {
	case defaultPorts[p.Type] == 0:
		return refuse("type %q is not known: HTTP, HTTPS, SOCKS4 and SOCKS5 are", string(p.Type))
	case p.Addr == "":
		return refuse("no address")
	case strings.ContainsFunc(p.Addr, func(r rune) bool { return r <= ' ' || r == 0x7f || strings.ContainsRune("/@[]", r) }):
		return refuse("address %.80q is no host name and no IP address", p.Addr)
	case p.Port <= 0 || p.Port > 65535:
		return refuse("port %d: it is 1 to 65535", p.Port)
	case p.Username == "" && p.Password != "":
		return refuse("a password without a user name: set proxy_username")
	case strings.ContainsFunc(p.Username, isControl):
		return refuse("the user name has control characters")
	case strings.ContainsFunc(p.Password.Reveal(), isControl):
		return refuse("the password has control characters")
	case len(p.Username) > maxCredential || len(p.Password.Reveal()) > maxCredential:
		return refuse("user name or password is longer than %d bytes", maxCredential)
	case p.Type == ProxySOCKS4 && p.Password != "":
		return refuse("SOCKS4 knows no password: use SOCKS5, or leave proxy_password out")
	case p.Type == ProxySOCKS5 && (len(p.Username) > maxSOCKSText || len(p.Password.Reveal()) > maxSOCKSText):
		return refuse("SOCKS5 carries a user name and a password of at most %d bytes", maxSOCKSText)
	case p.Type == ProxySOCKS5 && p.Username != "" && p.Password == "":
		return refuse("SOCKS5 knows no user without a password: set proxy_password")
	}
	return nil
}

// bypass makes the function that says whether a host and port are reached directly.
func (p Proxy) bypass() func(hostPort string) bool {
	switch {
	case p.IsZero():
		return func(string) bool { return true }
	case p.NoProxy == "":
		return func(string) bool { return false }
	}
	// The library says by which proxy to go; the name here never leaves this function.
	choose := (&httpproxy.Config{HTTPSProxy: "http://some.proxy", NoProxy: p.NoProxy}).ProxyFunc()
	return func(hostPort string) bool {
		chosen, err := choose(&url.URL{Scheme: "https", Host: hostPort})
		return err == nil && chosen == nil
	}
}
