package main

import (
	"bytes"
	"log/slog"
	"net"
	"os"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// nobody is a user that runs nothing here.
const nobody = 65534

func TestAnIdentityIsHeldByOneOfThisUserUntilItIsReleased(t *testing.T) {
	t.Parallel()
	name := t.Name() + strconv.Itoa(os.Getpid())
	var log bytes.Buffer
	logger := slog.New(slog.NewTextHandler(&log, nil))
	release, err := lockIdentity(name, "gw-1 at hub.test", logger)
	if err != nil {
		t.Fatal(err)
	}
	for range 20 { // whoever asks leaves nothing behind
		_, err = lockIdentity(name, "gw-1 at hub.test", logger)
		if exitCode(err) != exitInUse || !strings.Contains(err.Error(), "the identity of gw-1 at hub.test is in use") ||
			!strings.Contains(err.Error(), "kill "+strconv.Itoa(os.Getpid())+",") {
			t.Fatalf("the second: exit %d: %v", exitCode(err), err)
		}
	}
	if other, err := lockIdentity(name+"/m", "gw-1/m at hub.test", logger); err != nil {
		t.Errorf("another identity: %v", err)
	} else {
		other()
	}
	release()
	again, err := lockIdentity(name, "gw-1 at hub.test", logger)
	if err != nil {
		t.Fatalf("after the release: %v", err)
	}
	again()
	if log.Len() > 0 {
		t.Errorf("the log says %s", log.String())
	}
}

// A child that is being started has the socket, too, until it becomes another program.
func TestAReleasedIdentityIsFreeThoughAChildHasTheSocket(t *testing.T) {
	t.Parallel()
	name := t.Name() + strconv.Itoa(os.Getpid())
	l, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: "@fairlead-identity-" + name})
	if err != nil {
		t.Fatal(err)
	}
	child, err := l.File()
	if err != nil {
		t.Fatal(err)
	}
	serveName(l)()
	time.AfterFunc(50*time.Millisecond, func() { _ = child.Close() })
	release, h, err := holdName(name)
	if err != nil || h != nil {
		t.Fatalf("after the release: holder %+v, %v", h, err)
	}
	release()
}

// A stranger that holds the name must not be able to keep a device from its hub.
func TestAStrangersHoldOfAnIdentityIsAWarning(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("only root can be somebody else")
	}
	name := t.Name() + strconv.Itoa(os.Getpid())
	type held struct {
		release func()
		h       *holder
		err     error
	}
	result := make(chan held)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread, which is another user's from here on, ends with this goroutine
		const keep = ^uintptr(0)
		if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, keep, nobody, keep); errno != 0 {
			result <- held{err: errno}
			return
		}
		release, h, err := holdName(name)
		result <- held{release, h, err}
	}()
	stranger := <-result
	if stranger.err != nil || stranger.h != nil {
		t.Fatalf("the stranger got %+v", stranger)
	}
	defer stranger.release()
	var log bytes.Buffer
	unlock, err := lockIdentity(name, "gw-1 at hub.test", slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil {
		t.Fatalf("a stranger keeps the device from starting: %v", err)
	}
	unlock()
	if !strings.Contains(log.String(), "level=WARN") || !strings.Contains(log.String(), "uid="+strconv.Itoa(nobody)) {
		t.Errorf("the log says %q", log.String())
	}
}
