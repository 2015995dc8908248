package device

import (
	"github.com/fairlead-iot/fairlead/core"
	"github.com/fairlead-iot/fairlead/transports/netdial"
)

// Secret is text that no way of printing shows, such as a proxy's password.
type Secret = core.Secret

// ProxyOptions says by which proxy to reach the hub: Type, Addr, Port, Username, Password and NoProxy. It is the Python
// client's ProxyOptions; the zero value is no proxy. Where one is set and fails, nothing is dialed directly. One that refuses the
// user is asked again after a minute, later after up to ten, whoever asks and from whichever client of the process: too many
// tries lock the account. Other options, with another password, are tried at once.
type ProxyOptions = netdial.Proxy

// The types of proxies. All of them are given the hub's name, and no address that was looked up here.
const (
	ProxyHTTP   = netdial.ProxyHTTP   // the CONNECT method
	ProxyHTTPS  = netdial.ProxyHTTPS  // the same, in TLS to the proxy
	ProxySOCKS4 = netdial.ProxySOCKS4 // SOCKS 4a
	ProxySOCKS5 = netdial.ProxySOCKS5
)

// ProxyFromEnvironment makes ProxyOptions of HTTPS_PROXY, else ALL_PROXY, and NO_PROXY, as getenv (os.Getenv) tells them.
// They are read once, here, and are the zero value where none is set. localhost and the addresses of this machine are then
// always reached directly. Its error wraps ErrInvalid and never shows what is in the variables.
func ProxyFromEnvironment(getenv func(string) string) (ProxyOptions, error) {
	return netdial.ProxyFromEnvironment(getenv)
}
