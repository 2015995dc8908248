package linkwatch

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// groups are what the socket listens to. https://man7.org/linux/man-pages/man7/rtnetlink.7.html
const groups = unix.RTMGRP_LINK | unix.RTMGRP_IPV4_IFADDR | unix.RTMGRP_IPV6_IFADDR | unix.RTMGRP_IPV4_ROUTE | unix.RTMGRP_IPV6_ROUTE

// Watch calls up after each time that a link, an address or a default route came up, until ctx ends. Its error says that
// the platform does not tell.
func Watch(ctx context.Context, up func()) error {
	f, err := listen()
	if err != nil {
		return fmt.Errorf("watch links: %w", err)
	}
	return watch(ctx, f, up)
}

// listen opens a socket in the thread's network namespace, with Go's poller: reading blocks no thread.
func listen() (*os.File, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, err
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: groups}); err != nil {
		_ = unix.Close(fd)
		return nil, err
	}
	return os.NewFile(uintptr(fd), "netlink"), nil
}

// watch reads from f, which it closes.
func watch(ctx context.Context, f *os.File, up func()) error {
	defer f.Close() //nolint:errcheck // it was read only
	stop := context.AfterFunc(ctx, func() { _ = f.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	known := map[int32]bool{}
	buf := make([]byte, 64<<10)
	for {
		n, err := f.Read(buf)
		isNews := false
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, unix.ENOBUFS):
			isNews = true // the kernel had more to say than we took: something may have come up
		case err != nil:
			return fmt.Errorf("watch links: %w", err)
		default:
			isNews = parse(buf[:n], known)
		}
		if !isNews {
			continue
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(Settle):
		}
		drain(f, buf, known)
		if ctx.Err() != nil {
			return nil
		}
		up()
	}
}

// drain takes what has come meanwhile: it is the same news.
func drain(f *os.File, buf []byte, known map[int32]bool) {
	c, err := f.SyscallConn()
	if err != nil {
		return
	}
	_ = c.Control(func(fd uintptr) { // it fails when the file is closed, and then nothing is left to do
		for {
			n, err := unix.Read(int(fd), buf)
			if err != nil && !errors.Is(err, unix.ENOBUFS) || n == 0 {
				return
			}
			parse(buf[:max(0, n)], known)
		}
	})
}

// parse reads netlink messages and reports whether one says that something came up. known are the links that are up: a
// message of a link that is comes for other reasons too.
func parse(b []byte, known map[int32]bool) (isNews bool) {
	for len(b) >= unix.SizeofNlMsghdr {
		size := binary.NativeEndian.Uint32(b)
		kind := binary.NativeEndian.Uint16(b[4:])
		if size < unix.SizeofNlMsghdr || uint64(size) > uint64(len(b)) {
			return isNews
		}
		isNews = says(kind, b[unix.SizeofNlMsghdr:size], known) || isNews
		b = b[min(uint64(len(b)), (uint64(size)+3)&^3):]
	}
	return isNews
}

// says reports whether one message says that something came up.
func says(kind uint16, body []byte, known map[int32]bool) bool {
	switch kind {
	case unix.RTM_NEWADDR:
		// struct ifaddrmsg: family, prefixlen, flags, scope, index.
		return len(body) >= unix.SizeofIfAddrmsg && body[3] < unix.RT_SCOPE_LINK && body[2]&unix.IFA_F_TENTATIVE == 0
	case unix.RTM_NEWROUTE:
		// struct rtmsg: family, dst_len, …; 0 is the default route.
		return len(body) >= unix.SizeofRtMsg && body[1] == 0 && body[4] != unix.RT_TABLE_LOCAL
	case unix.RTM_NEWLINK, unix.RTM_DELLINK:
		if len(body) < unix.SizeofIfInfomsg {
			return false
		}
		// struct ifinfomsg: family, pad, type, index, flags, change.
		index := int32(binary.NativeEndian.Uint32(body[4:])) //nolint:gosec // as the kernel has it
		flags := binary.NativeEndian.Uint32(body[8:])
		isUp := kind == unix.RTM_NEWLINK && flags&unix.IFF_RUNNING != 0 && flags&unix.IFF_LOOPBACK == 0
		wasUp := known[index]
		if isUp {
			known[index] = true
		} else {
			delete(known, index)
		}
		return isUp && !wasUp
	}
	return false
}
