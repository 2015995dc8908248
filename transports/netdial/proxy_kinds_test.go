package netdial_test

import (
	"bufio"
	"crypto/tls"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"

	"github.com/fairlead-iot/fairlead/core"
	"github.com/fairlead-iot/fairlead/transports/netdial"
	"github.com/fairlead-iot/fairlead/transports/transporttest"
)

// socksServer is a SOCKS proxy of a few lines: it checks what it is told against want, and goes to the hub.
func socksServer(t *testing.T, hubPort int, want string) *scriptedProxy {
	t.Helper()
	return startProxy(t, nil, func(_ int, conn net.Conn) {
		r := bufio.NewReader(conn)
		read := func(n int) []byte {
			b := make([]byte, n)
			_, _ = io.ReadFull(r, b)
			return b
		}
		said := ""
		switch version := read(1)[0]; version {
		case 5:
			methods := read(int(read(1)[0]))
			if len(methods) == 1 {
				_, _ = conn.Write([]byte{5, 0})
			} else {
				_, _ = conn.Write([]byte{5, 2})
				read(1)
				user := read(int(read(1)[0]))
				said = fmt.Sprintf("%s/%s ", user, read(int(read(1)[0])))
				_, _ = conn.Write([]byte{1, 0})
			}
			switch request := read(4); request[3] {
			case 1:
				said += "v4 " + net.IP(read(4)).String()
			case 4:
				said += "v6 " + net.IP(read(16)).String()
			default:
				said += "name " + string(read(int(read(1)[0])))
			}
			said += fmt.Sprint(" ", binary.BigEndian.Uint16(read(2)))
			_, _ = conn.Write([]byte("\x05\x00\x00\x03\x05proxy\x1f\x90")) // an address that is a name
		case 4:
			head := read(7)
			user, _ := r.ReadString(0)
			said = strings.TrimSuffix(user, "\x00") + " "
			if ip := net.IP(head[3:7]); ip.String() == "0.0.0.1" {
				name, _ := r.ReadString(0)
				said += "name " + strings.TrimSuffix(name, "\x00")
			} else {
				said += "v4 " + ip.String()
			}
			said += fmt.Sprint(" ", binary.BigEndian.Uint16(head[1:3]))
			_, _ = conn.Write([]byte{0, 90, 0, 0, 0, 0, 0, 0})
		default:
			t.Errorf("version %d", version)
		}
		if said != want {
			t.Errorf("the proxy was told %q, want %q", said, want)
		}
		hub, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", hubPort))
		if err != nil {
			t.Error(err)
			return
		}
		carry(reads{r, conn}, hub)
	})
}

func TestSOCKSProxiesAreToldNameAndUser(t *testing.T) {
	port, trust := hubBehind(t)
	for _, c := range []struct {
		name    string
		kind    netdial.ProxyType
		user    string
		pw      core.Secret
		address string
		want    string
	}{
		{"5", netdial.ProxySOCKS5, "", "", "", "name hub.example.net 8883"},
		{"5 with a password", netdial.ProxySOCKS5, "gw ü", "p:w\"ä", "", "gw ü/p:w\"ä name hub.example.net 8883"},
		{"5 and an IPv4 address", netdial.ProxySOCKS5, "", "", "192.0.2.7", "v4 192.0.2.7 8883"},
		{"5 and an IPv6 address", netdial.ProxySOCKS5, "", "", "2001:db8::7", "v6 2001:db8::7 8883"},
		{"4a", netdial.ProxySOCKS4, "", "", "", " name hub.example.net 8883"},
		{"4a with a user", netdial.ProxySOCKS4, "gw", "", "", "gw name hub.example.net 8883"},
		{"4 and an IPv4 address", netdial.ProxySOCKS4, "gw", "", "192.0.2.7", "gw v4 192.0.2.7 8883"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := socksServer(t, port, c.want).config(c.kind, c.user, c.pw)
			d, err := netdial.New(netdial.Config{Host: host, Port: 8883, Address: c.address, TLS: trust, Proxy: p})
			if err != nil {
				t.Fatal(err)
			}
			dialed(t, d)
		})
	}
}

// TLS to the hub goes within TLS to the proxy, the hub's bytes that came with the proxy's answer included.
func TestTLSWithinTLS(t *testing.T) {
	hub, plant := transporttest.NewAuthority(t, "hub"), transporttest.NewAuthority(t, "plant")
	const greeting = "the hub speaks first"
	hubConfig := &tls.Config{Certificates: []tls.Certificate{hub.Issue(t, nil, host)}}
	p := startProxy(t, &tls.Config{Certificates: []tls.Certificate{plant.Issue(t, nil, "127.0.0.1")}}, func(_ int, conn net.Conn) {
		r := bufio.NewReader(conn)
		for line := ""; line != "\r\n"; {
			var err error
			if line, err = r.ReadString('\n'); err != nil {
				t.Error(err)
				return
			}
		}
		_, _ = io.WriteString(conn, established)
		server := tls.Server(reads{r, conn}, hubConfig)
		_, _ = io.WriteString(server, greeting)
		_, _ = io.Copy(server, server)
	})
	d := proxied(t, p.config(netdial.ProxyHTTPS, "", ""), netdial.TLSConfig{ServerVerificationCert: hub.PEM, ExtraCA: plant.PEM})
	conn, err := d.Dial(t.Context(), core.Credential{})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	got := make([]byte, len(greeting))
	if _, err := io.ReadFull(conn, got); err != nil || string(got) != greeting {
		t.Errorf("%q, %v", got, err)
	}
	go func() { _, _ = conn.Write(make([]byte, 1<<20)) }()
	if n, err := io.CopyN(io.Discard, conn, 1<<20); err != nil {
		t.Errorf("%d bytes came back: %v", n, err)
	}
	// Whoever takes the connection apart, as transports/mqtt does at its end, finds the socket.
	inner := net.Conn(conn)
	for {
		wrapper, ok := inner.(interface{ NetConn() net.Conn })
		if !ok {
			break
		}
		inner = wrapper.NetConn()
	}
	if _, ok := inner.(*net.TCPConn); !ok {
		t.Errorf("the innermost connection is a %T", inner)
	}
}

func TestDigestOverOneConnectionOrTwo(t *testing.T) {
	port, trust := hubBehind(t)
	const challenge = "HTTP/1.1 407 x\r\nProxy-Authenticate: Basic realm=\"x\"\r\nProxy-Authenticate: Digest realm=\"x\", nonce=\"n\", qop=\"auth\", algorithm=SHA-256\r\n"
	for end, conns := range map[string]int64{"Content-Length: 0\r\n\r\n": 1, "Connection: close\r\n\r\n": 2} {
		var requests []string
		p := connectProxy(t, nil, port, script(&requests, challenge+end, established))
		dialed(t, proxied(t, p.config(netdial.ProxyHTTP, "gw", "pw"), trust))
		if len(requests) != 2 || !strings.HasPrefix(requests[1], `Digest username="gw", realm="x", nonce="n", uri="hub.example.net:8883", response="`) {
			t.Errorf("requests %q", requests)
		}
		if p.conns.Load() != conns {
			t.Errorf("%d connections, want %d", p.conns.Load(), conns)
		}
	}
}

// ntlmChallenge is the second message: that of 4.2.4.3 in https://learn.microsoft.com/openspecs/windows_protocols/ms-nlmp,
// but without the flag for an exchange of keys, which goes over HTTP without use.
const ntlmChallenge = "4e544c4d53535000020000000c000c003800000033828a820123456789abcdef00000000000000002400240044000000" +
	"06007017000000" + "0f53006500720076006500720002000c0044006f006d00610069006e0001000c0053006500720076006500720000000000"

func TestNTLMKeepsItsConnection(t *testing.T) {
	port, trust := hubBehind(t)
	b := make([]byte, len(ntlmChallenge)/2)
	if _, err := fmt.Sscanf(ntlmChallenge, "%x", &b); err != nil {
		t.Fatal(err)
	}
	second := "HTTP/1.1 407 x\r\nProxy-Authenticate: NTLM " + base64.StdEncoding.EncodeToString(b) + "\r\nContent-Length: 4\r\n\r\nbody"
	const first = "HTTP/1.1 407 x\r\nProxy-Authenticate: Negotiate\r\nProxy-Authenticate: NTLM\r\nProxy-Authenticate: Basic realm=x\r\nConnection: close\r\n\r\n"
	var requests []string
	p := connectProxy(t, nil, port, script(&requests, first, second, established, second, established))
	d := proxied(t, p.config(netdial.ProxyHTTP, `PLANT\gw`, "pw"), trust)
	dialed(t, d)
	if p.conns.Load() != 2 {
		t.Errorf("%d connections, want 2: the first was closed, NTLM goes over one", p.conns.Load())
	}
	dialed(t, d) // and begins with NTLM at once the next time
	var types []string
	for _, r := range requests {
		message, _ := base64.StdEncoding.DecodeString(strings.TrimPrefix(r, "NTLM "))
		if len(message) < 12 {
			types = append(types, "none")
			continue
		}
		types = append(types, fmt.Sprint(message[8]))
	}
	if got, want := strings.Join(types, " "), "none 1 3 1 3"; got != want {
		t.Errorf("messages %s, want %s", got, want)
	}

	// # one that hangs up in the middle
	p = connectProxy(t, nil, port, script(nil, first, strings.Replace(second, "Content-Length: 4", "Connection: close", 1)))
	_, err := proxied(t, p.config(netdial.ProxyHTTP, "gw", "pw"), trust).Dial(t.Context(), core.Credential{})
	wantError(t, err, netdial.PhaseProxy, core.Blocked, "closes the connection in the middle of NTLM")
	// # one that refuses the answer
	p = connectProxy(t, nil, port, script(nil, first, second, strings.Replace(first, "Connection: close", "Content-Length: 0", 1)))
	_, err = proxied(t, p.config(netdial.ProxyHTTP, "gw", "pw"), trust).Dial(t.Context(), core.Credential{})
	wantError(t, err, netdial.PhaseProxy, core.Blocked, "it refuses the user name or the password")
	// # garbage for a challenge
	p = connectProxy(t, nil, port, script(nil, strings.Replace(first, "Connection: close", "Content-Length: 0", 1), "HTTP/1.1 407 x\r\nProxy-Authenticate: NTLM AAAA\r\nContent-Length: 0\r\n\r\n"))
	_, err = proxied(t, p.config(netdial.ProxyHTTP, "gw", "pw"), trust).Dial(t.Context(), core.Credential{})
	wantError(t, err, netdial.PhaseProxy, core.Blocked, "answer its NTLM challenge")
}
