package linkwatch

import (
	"context"
	"encoding/binary"
	"os/exec"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// message makes a netlink message.
func message(kind uint16, body []byte) []byte {
	b := make([]byte, unix.SizeofNlMsghdr, unix.SizeofNlMsghdr+len(body))
	binary.NativeEndian.PutUint32(b, uint32(unix.SizeofNlMsghdr+len(body)))
	binary.NativeEndian.PutUint16(b[4:], kind)
	b = append(b, body...)
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}

func link(index int32, flags uint32) []byte {
	b := make([]byte, unix.SizeofIfInfomsg)
	binary.NativeEndian.PutUint32(b[4:], uint32(index))
	binary.NativeEndian.PutUint32(b[8:], flags)
	return b
}

func address(flags, scope byte) []byte {
	return append([]byte{unix.AF_INET, 24, flags, scope}, make([]byte, 4)...)
}

func route(prefix byte) []byte {
	b := make([]byte, unix.SizeofRtMsg)
	b[0], b[1], b[4] = unix.AF_INET, prefix, unix.RT_TABLE_MAIN
	return b
}

func TestWhatCountsAsComingUp(t *testing.T) {
	const up = unix.IFF_UP | unix.IFF_RUNNING
	for _, c := range []struct {
		name  string
		known map[int32]bool
		b     []byte
		want  bool
	}{
		{"a link comes up", nil, message(unix.RTM_NEWLINK, link(3, up)), true},
		{"a link that is up changes", map[int32]bool{3: true}, message(unix.RTM_NEWLINK, link(3, up)), false},
		{"a link without a carrier", nil, message(unix.RTM_NEWLINK, link(3, unix.IFF_UP)), false},
		{"a link goes", map[int32]bool{3: true}, message(unix.RTM_DELLINK, link(3, up)), false},
		{"the loopback", nil, message(unix.RTM_NEWLINK, link(1, up|unix.IFF_LOOPBACK)), false},
		{"an address", nil, message(unix.RTM_NEWADDR, address(0, unix.RT_SCOPE_UNIVERSE)), true},
		{"an address that is still being checked", nil, message(unix.RTM_NEWADDR, address(unix.IFA_F_TENTATIVE, unix.RT_SCOPE_UNIVERSE)), false},
		{"a link-local address", nil, message(unix.RTM_NEWADDR, address(0, unix.RT_SCOPE_LINK)), false},
		{"the default route", nil, message(unix.RTM_NEWROUTE, route(0)), true},
		{"another route", nil, message(unix.RTM_NEWROUTE, route(24)), false},
		{"two, and the second is news", nil, append(message(unix.RTM_NEWROUTE, route(24)), message(unix.RTM_NEWLINK, link(3, up))...), true},
		{"cut short", nil, message(unix.RTM_NEWLINK, link(3, up))[:20], false},
		{"a length of nothing", nil, make([]byte, 64), false},
		{"a length beyond the end", nil, []byte{0xff, 0xff, 0xff, 0xff, 16, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, false},
		{"a body that is too short", nil, message(unix.RTM_NEWADDR, []byte{2}), false},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.known == nil {
				c.known = map[int32]bool{}
			}
			if got := parse(c.b, c.known); got != c.want {
				t.Errorf("news %v, want %v", got, c.want)
			}
		})
	}
}

func FuzzParse(f *testing.F) {
	f.Add(message(unix.RTM_NEWLINK, link(3, unix.IFF_RUNNING)))
	f.Add(append(message(unix.RTM_NEWADDR, address(0, 0)), message(unix.RTM_NEWROUTE, route(0))...))
	f.Fuzz(func(_ *testing.T, b []byte) { parse(b, map[int32]bool{}) })
}

// TestALinkThatComesUpIsTold: a dummy link of a network namespace of the test's own.
func TestALinkThatComesUpIsTold(t *testing.T) {
	runtime.LockOSThread() // the namespace is the thread's, which is not used again
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Skipf("no network namespace: %v", err)
	}
	ip := func(args ...string) {
		t.Helper()
		// A child is in the namespace of the thread that starts it.
		if out, err := exec.CommandContext(t.Context(), "ip", args...).CombinedOutput(); err != nil {
			t.Skipf("ip %v: %v: %s", args, err, out)
		}
	}
	ip("link", "add", "probe0", "type", "veth", "peer", "name", "probe1")
	f, err := listen()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	told, watched := make(chan struct{}, 16), make(chan error, 1)
	go func() { watched <- watch(ctx, f, func() { told <- struct{}{} }) }()
	tell := func(what string, args ...string) {
		t.Helper()
		ip(args...)
		select {
		case <-told:
		case err := <-watched:
			t.Fatalf("watch ended with %v", err)
		case <-time.After(20 * time.Second):
			t.Fatalf("%s was not told", what)
		}
	}
	ip("link", "set", "probe1", "up")
	tell("a link that comes up", "link", "set", "probe0", "up")
	tell("a new address", "address", "add", "192.0.2.1/24", "dev", "probe0")
	tell("a default route", "route", "add", "default", "via", "192.0.2.2")
	ip("link", "set", "probe0", "down")
	tell("a link that comes up again", "link", "set", "probe0", "up")
	cancel()
	if err := <-watched; err != nil {
		t.Errorf("watch ended with %v", err)
	}
}
