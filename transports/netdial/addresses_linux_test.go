package netdial

import (
	"context"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
	"golang.org/x/sys/unix"
)

// TestTheNextAddressIsTriedWhereOneIsDead: a name has two addresses, and the host at the first one says nothing.
func TestTheNextAddressIsTriedWhereOneIsDead(t *testing.T) {
	alive, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.3:0")
	if err != nil {
		t.Fatal(err)
	}
	defer alive.Close()
	port := alive.Addr().(*net.TCPAddr).Port
	deaf(t, netip.MustParseAddrPort("127.0.0.2:0").Addr().As4(), port)
	before := net.DefaultResolver
	net.DefaultResolver = resolver(t, [4]byte{127, 0, 0, 2}, [4]byte{127, 0, 0, 3})
	defer func() { net.DefaultResolver = before }()
	d, err := New(Config{Host: "two.example.net", Port: port})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 25*time.Second) // what the engine gives a link
	defer cancel()
	conn, err := d.DialTCP(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if got := conn.RemoteAddr().String(); got != alive.Addr().String() {
		t.Errorf("connected to %s, want %s", got, alive.Addr())
	}
}

// deaf has nobody answer at an address: the queue of a listener that accepts nothing is full.
func deaf(t *testing.T, address [4]byte, port int) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	a := &unix.SockaddrInet4{Addr: address, Port: port}
	if err := unix.Bind(fd, a); err != nil {
		t.Fatal(os.NewSyscallError("bind", err))
	}
	if err := unix.Listen(fd, 0); err != nil {
		t.Fatal(os.NewSyscallError("listen", err))
	}
	to := netip.AddrPortFrom(netip.AddrFrom4(address), uint16(port)).String() //nolint:gosec // a port
	// The first one has room in any case. A dial whose time is over before it begins would fill nothing.
	for _, limit := range []time.Duration{time.Minute, time.Second, time.Second, time.Second} {
		conn, err := net.DialTimeout("tcp", to, limit)
		if err != nil && limit == time.Second {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
	}
	t.Fatal("the queue does not fill")
}

// resolver knows one name, which has these addresses.
func resolver(t *testing.T, addresses ...[4]byte) *net.Resolver {
	t.Helper()
	server, err := (&net.ListenConfig{}).ListenPacket(t.Context(), "udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Close() })
	go func() {
		buffer := make([]byte, 1500)
		for {
			n, from, err := server.ReadFrom(buffer)
			if err != nil {
				return
			}
			var m dnsmessage.Message
			if m.Unpack(buffer[:n]) != nil || len(m.Questions) != 1 {
				continue
			}
			m.Response, m.Additionals = true, nil
			if q := m.Questions[0]; q.Type == dnsmessage.TypeA {
				for _, a := range addresses {
					m.Answers = append(m.Answers, dnsmessage.Resource{
						Header: dnsmessage.ResourceHeader{Name: q.Name, Type: q.Type, Class: q.Class}, Body: &dnsmessage.AResource{A: a},
					})
				}
			}
			if answer, err := m.Pack(); err == nil {
				_, _ = server.WriteTo(answer, from)
			}
		}
	}()
	return &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "udp", server.LocalAddr().String())
	}}
}
