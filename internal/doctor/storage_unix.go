//go:build unix

package doctor

import (
	"errors"

	"golang.org/x/sys/unix"
)

// freeSpace returns what this user may still write below dir, in bytes.
func freeSpace(dir string) (uint64, error) {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return 0, err
	}
	return uint64(s.Bavail) * uint64(s.Bsize), nil //nolint:unconvert // the types differ from system to system
}

func isQuota(err error) bool { return errors.Is(err, unix.EDQUOT) }

func mayWrite(dir string) bool { return unix.Access(dir, unix.W_OK|unix.X_OK) == nil }

func isReadOnly(dir string) bool { return errors.Is(unix.Access(dir, unix.W_OK), unix.EROFS) }
