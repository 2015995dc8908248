// Package netdial opens connections to the hub: DNS, TCP, proxy, TLS, each phase bounded and named. It is the one dialer of
// all transports.
//
// # Usage
//
//	d, err := netdial.New(netdial.Config{Host: "myhub.azure-devices.net", Port: 8883})
//	conn, err := d.Dial(ctx, credential)
//
// New fails on certificates and proxies that cannot be used; Dial's errors are *core.Error with Phase dns, tcp, proxy or
// tls, and a Kind that says whether another route may get through (core.Blocked), waiting helps (core.Transient), or
// somebody must mend something (core.Fatal, whose text says what).
//
// HTTPS to the hub and to other hosts goes the same way by d.HTTPTransport(credential), an *http.Transport; what is not
// HTTP by d.DialHost.
//
// # Proxies
//
// With Config.Proxy every connection is a tunnel: TCP to the proxy (and TLS, if the proxy is of type HTTPS), CONNECT or
// SOCKS, then TLS to the hub within it. The hub's name goes to the proxy and is never looked up here. A proxy that fails is
// an error, never a reason to dial directly; only NoProxy names what is. ProxyFromEnvironment reads the usual variables,
// once.
//
// A proxy's error is of phase proxy and kind Blocked, whatever it is: another route may do without the proxy, and the
// device's own credential is not in doubt. One that refuses or misses the user's name has RetryAfter of a minute, twice as
// much each time, since such names are often accounts that too many tries lock: the next route is tried at once, this one
// no sooner. All dialers of the process that name one user to one proxy share that: until the proxy took the password one
// asks at a time, and while it must be spared the others get its last answer without asking. A busy one (429, 503) is
// spared for the Retry-After that it asks for, an hour at most. A password is sent only after the proxy asked for it, in the best scheme that it offers: Digest, NTLM, Basic; later at once in
// the one that served. What other clients do (Negotiate with Kerberos, PAC) is not done here.
//
// # Concurrency
//
// A Dialer may be used from any goroutine. It keeps a few things from one dial to the next: TLS sessions to resume,
// whether the path swallowed a large ClientHello, and the scheme in which the proxy took the password. What the process
// keeps, for all dialers, is what a proxy said of a user. IP addresses are never kept: a hub that fails over changes its address.
//
// # Expected behaviour of the other side
//
// The hub shows a certificate for the host name that was asked for, from a root that the system, the embedded set of
// roots, or the configuration trusts, and speaks TLS 1.2 or newer. There is no way to switch that off. Some middleboxes
// cannot pass a ClientHello that spans two TCP segments, which Go's post-quantum key share makes it do: silence, or a cut,
// before the first byte of an answer is therefore answered by one more try with a small one.
//
// A proxy may send anything at any speed. Its answer to CONNECT is read byte by byte up to the end of its header, 8 KiB at
// most, so that what follows is the tunnel's and the connection stays the bare socket that internal/quietio wants.
//
// # Debugging
//
// The phase and the text name the layer: a firewall that swallows a port looks like a tcp or tls timeout; a proxy that
// breaks TLS open looks like a certificate of an unknown authority, whose text names the issuer.
//
// A net/http/httptrace.ClientTrace in the context of a dial is told of DNS and TCP, to the proxy if there is one, and of
// each TLS handshake with the host that is meant: a second one follows where the first ClientHello was swallowed.
//
// # Testing
//
// Config.DialContext takes the place of DNS and TCP, so that tests run over net.Pipe and virtual time; Config.Now is the
// wall clock against which certificates are checked.
package netdial
