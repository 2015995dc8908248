// Package netdial opens connections to the hub: DNS, TCP, TLS, each phase bounded and named. It is the one dialer of all
// transports.
//
// # Usage
//
//	d, err := netdial.New(netdial.Config{Host: "myhub.azure-devices.net", Port: 8883})
//	conn, err := d.Dial(ctx, credential)
//
// New fails on certificates that cannot be used; Dial's errors are *core.Error with Phase dns, tcp or tls, and a Kind that
// says whether another route may get through (core.Blocked), waiting helps (core.Transient), or somebody must mend
// something (core.Fatal, whose text says what).
//
// # Concurrency
//
// A Dialer may be used from any goroutine. It keeps two things from one dial to the next: TLS sessions to resume, and
// whether the path swallowed a large ClientHello. IP addresses are never kept: a hub that fails over changes its address.
//
// # Expected behaviour of the other side
//
// The hub shows a certificate for the host name that was asked for, from a root that the system, the embedded set of
// roots, or the configuration trusts, and speaks TLS 1.2 or newer. There is no way to switch that off. Some middleboxes
// cannot pass a ClientHello that spans two TCP segments, which Go's post-quantum key share makes it do: silence, or a cut,
// before the first byte of an answer is therefore answered by one more try with a small one.
//
// # Debugging
//
// The phase and the text name the layer: a firewall that swallows a port looks like a tcp or tls timeout; a proxy that
// breaks TLS open looks like a certificate of an unknown authority, whose text names the issuer.
//
// # Testing
//
// Config.DialContext takes the place of DNS and TCP, so that tests run over net.Pipe and virtual time; Config.Now is the
// wall clock against which certificates are checked.
package netdial
