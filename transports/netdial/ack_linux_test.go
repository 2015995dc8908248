package netdial

import (
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fairlead-iot/fairlead/internal/quietio"
)

// The option wears off when the connection turns to question and answer; each read sets it again.
func TestReadsAreAcknowledgedPromptly(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	tcp, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer tcp.Close()
	far, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer far.Close()
	raw, err := tcp.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	isPrompt := func() bool {
		value := 0
		if e := raw.Control(func(fd uintptr) { value, err = unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_QUICKACK) }); e != nil || err != nil {
			t.Fatal(e, err)
		}
		return value == 1
	}
	off := func() {
		if e := raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_QUICKACK, 0) }); e != nil || err != nil {
			t.Fatal(e, err)
		}
	}
	read := func(conn net.Conn) {
		t.Helper()
		off()
		if _, err := far.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Read(make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
	}
	// The system sets the option by itself 40 ms after something came that nothing has answered: this has to look sooner.
	for late := time.Now().Add(30 * time.Second); ; {
		if read(tcp); !isPrompt() {
			break
		}
		if time.Now().After(late) {
			t.Fatal("a plain socket acknowledges promptly by itself: the option is of no use")
		}
	}
	conn := ackPromptly(quietio.Wrap(tcp))
	if read(conn); !isPrompt() {
		t.Error("the option is not set after a read")
	}
	if Innermost(conn) != tcp {
		t.Error("the socket cannot be found below")
	}
	a, _ := net.Pipe()
	if ackPromptly(a) != a {
		t.Error("what has no socket is wrapped")
	}
}
