package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A name whose holder ends in that moment is asked for again, holdPatience long. It may take a while: a child that the holder
// is just starting has what the holder has open, until it becomes another program.
const (
	holdPatience = 5 * time.Second
	holdPause    = 5 * time.Millisecond
)

// acceptPause is the wait after an accept that failed, as without descriptors.
const acceptPause = 100 * time.Millisecond

// holdName takes an abstract Unix socket of that name. The kernel gives it to one process of a network namespace, and frees it with the
// process, however that ends; two containers are two hosts. Where another has it, its credentials as the kernel knows them
// are returned: those of the process that listens.
//
// https://man7.org/linux/man-pages/man7/unix.7.html (abstract, SO_PEERCRED)
func holdName(name string) (release func(), h *holder, err error) {
	addr := &net.UnixAddr{Net: "unix", Name: "@fairlead-identity-" + name}
	for began := time.Now(); time.Since(began) < holdPatience; time.Sleep(holdPause) {
		var l *net.UnixListener
		if l, err = net.ListenUnix("unix", addr); err == nil {
			return serveName(l), nil, nil
		}
		if !errors.Is(err, syscall.EADDRINUSE) {
			return nil, nil, fmt.Errorf("take the identity's name: %w", err)
		}
		if h, err = askHolder(addr); err == nil {
			return nil, h, nil
		}
	}
	return nil, nil, fmt.Errorf("ask who has the identity's name: %w", err)
}

// serveName hangs up on whoever asks, since what waits to be accepted would fill the socket's queue; who holds the name is
// answered by the kernel.
func serveName(l *net.UnixListener) (release func()) {
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := l.Accept()
			if errors.Is(err, net.ErrClosed) || errors.Is(err, syscall.EINVAL) { // closed, or shut down
				return
			}
			if err != nil {
				time.Sleep(acceptPause)
				continue
			}
			_ = conn.Close() // nothing was said
		}
	})
	return sync.OnceFunc(func() {
		// Nobody who asks is told of this process any more, whoever else has the socket open.
		if raw, err := l.SyscallConn(); err == nil {
			_ = raw.Control(func(fd uintptr) { _ = unix.Shutdown(int(fd), unix.SHUT_RDWR) }) //nolint:gosec // a descriptor is small
		}
		_ = l.Close() // it frees the name
		serving.Wait()
	})
}

// askHolder asks the kernel who listens there.
func askHolder(addr *net.UnixAddr) (*holder, error) {
	conn, err := net.DialUnix("unix", nil, addr)
	if err != nil {
		return nil, err
	}
	defer conn.Close() //nolint:errcheck // nothing was said
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	var cred *unix.Ucred
	var credErr error
	if err := raw.Control(func(fd uintptr) {
		cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) //nolint:gosec // a descriptor is small
	}); err != nil {
		return nil, err
	}
	if credErr != nil {
		return nil, credErr
	}
	return &holder{pid: int(cred.Pid), uid: cred.Uid, counts: cred.Uid == 0 || int64(cred.Uid) == int64(os.Geteuid())}, nil
}
