package netdial_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/fairlead-iot/fairlead/core"
	"github.com/fairlead-iot/fairlead/transports/netdial"
)

func TestTheEnvironmentNamesAProxy(t *testing.T) {
	for _, c := range []struct {
		name string
		env  map[string]string
		want netdial.Proxy
	}{
		{"nothing", map[string]string{"HTTP_PROXY": "http://other:1", "NO_PROXY": "x"}, netdial.Proxy{}},
		{"https", map[string]string{"HTTPS_PROXY": "http://proxy.plant:3128", "ALL_PROXY": "socks5://other"}, netdial.Proxy{Type: netdial.ProxyHTTP, Addr: "proxy.plant", Port: 3128, NoProxy: "localhost"}},
		{"lower case", map[string]string{"https_proxy": "http://proxy.plant:3128", "no_proxy": "a,b"}, netdial.Proxy{Type: netdial.ProxyHTTP, Addr: "proxy.plant", Port: 3128, NoProxy: "a,b"}},
		{"all", map[string]string{"ALL_PROXY": "socks5h://gw:p%40%3A%C3%A4@[::1]", "NO_PROXY": "*.plant"}, netdial.Proxy{Type: netdial.ProxySOCKS5, Addr: "::1", Port: 1080, Username: "gw", Password: "p@:ä", NoProxy: "*.plant"}},
		{"without a scheme", map[string]string{"HTTPS_PROXY": "10.0.0.1:8080"}, netdial.Proxy{Type: netdial.ProxyHTTP, Addr: "10.0.0.1", Port: 8080, NoProxy: "localhost"}},
		{"ports by default", map[string]string{"HTTPS_PROXY": "https://proxy.plant/"}, netdial.Proxy{Type: netdial.ProxyHTTPS, Addr: "proxy.plant", Port: 443, NoProxy: "localhost"}},
		{"4", map[string]string{"HTTPS_PROXY": "socks4a://gw@proxy.plant"}, netdial.Proxy{Type: netdial.ProxySOCKS4, Addr: "proxy.plant", Port: 1080, Username: "gw", NoProxy: "localhost"}},
	} {
		got, err := netdial.ProxyFromEnvironment(func(name string) string { return c.env[name] })
		if err != nil || got != c.want {
			t.Errorf("%s: %+v, %v; want %+v", c.name, got, err, c.want)
		}
	}
	for value, want := range map[string]string{
		"ftp://proxy.plant":                 `a proxy of the scheme "ftp" is not known here`,
		"http://gw:pass-word-1@":            "it is not a proxy's URL",
		"http://gw:pass-word-1%@proxy:1":    "it is not a proxy's URL",
		"http://gw:pass-word-1@proxy:99999": "port 99999",
		"http://:pass-word-1@proxy":         "a password without a user name",
		"socks4://gw:pass-word-1@proxy":     "SOCKS4 knows no password",
	} {
		_, err := netdial.ProxyFromEnvironment(func(name string) string { return map[string]string{"https_proxy": value}[name] })
		if !errors.Is(err, core.ErrInvalid) || !strings.Contains(err.Error(), "variable https_proxy: ") || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "pass-word-1") {
			t.Errorf("%s: %v, want ErrInvalid with %q and without the password", value, err, want)
		}
	}
}

func TestAProxyThatCannotWorkIsRefused(t *testing.T) {
	long := strings.Repeat("x", 256)
	for _, c := range []struct {
		proxy netdial.Proxy
		want  string
	}{
		{netdial.Proxy{Addr: "p", Port: 1}, `type "" is not known`},
		{netdial.Proxy{Type: "http", Addr: "p", Port: 1}, `type "http" is not known: HTTP, HTTPS, SOCKS4 and SOCKS5 are`},
		{netdial.Proxy{Type: netdial.ProxyHTTP, Port: 1}, "no address"},
		{netdial.Proxy{Type: netdial.ProxyHTTP, Addr: "http://p", Port: 1}, `address "http://p" is no host name`},
		{netdial.Proxy{Type: netdial.ProxyHTTP, Addr: "p\r\nX: y", Port: 1}, "is no host name"},
		{netdial.Proxy{Type: netdial.ProxyHTTP, Addr: "p"}, "port 0"},
		{netdial.Proxy{Type: netdial.ProxyHTTP, Addr: "p", Port: 70000}, "port 70000"},
		{netdial.Proxy{Type: netdial.ProxyHTTP, Addr: "p", Port: 1, Password: "pw"}, "set proxy_username"},
		{netdial.Proxy{Type: netdial.ProxyHTTP, Addr: "p", Port: 1, Username: "a\nb"}, "the user name has control characters"},
		{netdial.Proxy{Type: netdial.ProxyHTTP, Addr: "p", Port: 1, Username: "a", Password: "p\rw"}, "the password has control characters"},
		{netdial.Proxy{Type: netdial.ProxyHTTP, Addr: "p", Port: 1, Username: "a", Password: core.Secret(strings.Repeat(long, 17))}, "longer than 4096 bytes"},
		{netdial.Proxy{Type: netdial.ProxySOCKS4, Addr: "p", Port: 1, Username: "a", Password: "pw"}, "SOCKS4 knows no password"},
		{netdial.Proxy{Type: netdial.ProxySOCKS5, Addr: "p", Port: 1, Username: long, Password: "pw"}, "at most 255 bytes"},
		{netdial.Proxy{Type: netdial.ProxySOCKS5, Addr: "p", Port: 1, Username: "a"}, "set proxy_password"},
	} {
		_, err := netdial.New(netdial.Config{Host: host, Port: 8883, Proxy: c.proxy})
		if !errors.Is(err, core.ErrInvalid) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v, want ErrInvalid with %q", c.proxy, err, c.want)
		}
	}
}

// Only what NoProxy names is dialed directly; a proxy that is down is no reason.
func TestNoProxyDecidesWhatIsReachedDirectly(t *testing.T) {
	port, trust := hubBehind(t)
	for _, c := range []struct {
		noProxy, address string
		direct           bool
	}{
		{"", "127.0.0.1", false},
		{"other.example.net", "", false},
		{"example.net", "127.0.0.1", true},
		{".example.net", "127.0.0.1", true},
		{"HUB.example.net:1", "192.0.2.1", false},
		{fmt.Sprint(host, ":", port), "127.0.0.1", true},
		{"*", "127.0.0.1", true},
		{"other", "127.0.0.1", true}, // of this machine
		{"192.0.2.0/24", "192.0.2.1", true},
		{"192.0.2.0/24", "198.51.100.1", false},
	} {
		p := netdial.Proxy{Type: netdial.ProxyHTTP, Addr: "127.0.0.1", Port: 1, NoProxy: c.noProxy}
		d, err := netdial.New(netdial.Config{Host: host, Port: port, Address: c.address, TLS: trust, Proxy: p})
		if err != nil {
			t.Fatal(err)
		}
		if got := d.Proxy(); got.IsZero() != c.direct {
			t.Errorf("%q, %q: through %s, want direct: %v", c.noProxy, c.address, got, c.direct)
		}
		switch {
		case !c.direct:
			_, err := d.Dial(t.Context(), core.Credential{})
			wantError(t, err, netdial.PhaseProxy, core.Blocked, "tcp: connect: connection refused")
		case c.address == "127.0.0.1":
			dialed(t, d)
		}
	}
}

func TestAProxyIsPrintedWithoutItsPassword(t *testing.T) {
	p := netdial.Proxy{Type: netdial.ProxySOCKS5, Addr: "::1", Port: 1080, Username: "gw", Password: "pass-word-1"}
	if got := p.String(); got != "SOCKS5 proxy [::1]:1080" || (netdial.Proxy{}).String() != "none" {
		t.Errorf("it is printed as %q", got)
	}
	for _, format := range []string{"%v", "%+v", "%#v", "%s", "%q"} {
		if got := fmt.Sprintf(format, p); strings.Contains(got, "pass-word-1") {
			t.Errorf("%s shows the password: %s", format, got)
		}
	}
}
