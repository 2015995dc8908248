package netdial_test

import (
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fairlead-iot/fairlead/transports/netdial"
)

// The connection to a proxy is watched as the one to the hub is.
func TestAProxiedConnectionHasTheSameSocketOptions(t *testing.T) {
	p := startProxy(t, nil, func(_ int, conn net.Conn) {
		if _, err := readRequest(conn); err == nil {
			_, _ = conn.Write([]byte(established))
			_, _ = conn.Read(make([]byte, 1))
		}
	})
	d, err := netdial.New(netdial.Config{Host: host, Port: 8883, Proxy: p.config(netdial.ProxyHTTP, "", ""), UserTimeout: 85 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	conn, err := d.DialTCP(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		t.Fatalf("the tunnel is a %T, want the socket itself", conn)
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range []struct {
		name                string
		level, option, want int
	}{
		{"TCP_USER_TIMEOUT", unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, 85_000},
		{"TCP_NOTSENT_LOWAT", unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, 16 << 10},
		{"TCP_NODELAY", unix.IPPROTO_TCP, unix.TCP_NODELAY, 1},
		{"SO_KEEPALIVE", unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1},
		{"TCP_KEEPIDLE", unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, 30},
	} {
		var got int
		var opt error
		if err := raw.Control(func(fd uintptr) { got, opt = unix.GetsockoptInt(int(fd), o.level, o.option) }); err != nil || opt != nil || got != o.want {
			t.Errorf("%s is %d (%v, %v), want %d", o.name, got, err, opt, o.want)
		}
	}
}
