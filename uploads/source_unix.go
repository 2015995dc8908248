//go:build unix

package uploads

import (
	"fmt"
	"io/fs"
	"syscall"
)

// fileID tells files apart that have the same path one after the other.
func fileID(info fs.FileInfo) string {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return fmt.Sprintf("%d:%d", st.Dev, st.Ino)
	}
	return ""
}
