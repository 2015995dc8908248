//go:build interop && linux

package interop_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"
)

const insideNamespace = "FAIRLEAD_TEST_INSIDE_NAMESPACE"

// measured begins what a test inside a namespace says although all is well.
const measured = "measured: "

// The names that Microsoft's clients dial, and may insist on.
const (
	hubName          = "myhub.azure-devices.net"
	provisioningName = "global.azure-devices-provisioning.net"
)

// runInNamespace runs a test of this program once more, in a process with a network of its own, where every port is free and
// nobody else listens, and a mount namespace of its own, where names may mean something else.
func runInNamespace(t *testing.T, test string, env ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 8*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, os.Args[0], "-test.run=^"+test+"$", "-test.v", "-test.parallel=5") // those that are parallel wait, most of the time
	cmd.Env = append(os.Environ(), append(env, insideNamespace+"="+test)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWNS}
	if uid := os.Getuid(); uid != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: uid, Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	}
	out, err := cmd.CombinedOutput()
	if cmd.Process == nil {
		t.Skipf("this system gives no network and mount namespaces: %v", err)
	}
	if err != nil || !strings.Contains(string(out), "--- PASS: "+test) {
		t.Fatalf("%v\n%s", err, out)
	}
	for line := range strings.Lines(string(out)) {
		if strings.Contains(line, "is not installed here") || strings.Contains(line, measured) {
			t.Log(strings.TrimSpace(line))
		}
	}
}

// nameLoopback lets names mean this machine, in this process's mount namespace.
func nameLoopback(t *testing.T, names ...string) {
	t.Helper()
	hosts := filepath.Join(t.TempDir(), "hosts")
	if err := os.WriteFile(hosts, []byte("127.0.0.1 localhost "+strings.Join(names, " ")+"\n"), 0o644); err != nil { //nolint:gosec // anyone may read it
		t.Fatal(err)
	}
	if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		t.Fatalf("keep mounts to ourselves: %v", err)
	}
	if err := syscall.Mount(hosts, "/etc/hosts", "", syscall.MS_BIND, ""); err != nil {
		t.Fatalf("mount hosts: %v", err)
	}
	t.Cleanup(func() { _ = syscall.Unmount("/etc/hosts", 0) }) // it ends with the process anyway
}

// raiseLoopback brings up the interface lo, which a new network has, but down.
func raiseLoopback(t *testing.T) {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_DGRAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(fd) //nolint:errcheck // it served its purpose
	var request struct {    // struct ifreq of <net/if.h>
		name  [syscall.IFNAMSIZ]byte
		flags uint16
		_     [22]byte
	}
	copy(request.name[:], "lo")
	request.flags = syscall.IFF_UP | syscall.IFF_RUNNING
	if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, uintptr(fd), syscall.SIOCSIFFLAGS, uintptr(unsafe.Pointer(&request))); errno != 0 {
		t.Fatalf("bring up lo: %v", errno)
	}
}
