//go:build !unix

package uploads

import "io/fs"

// fileID is not known here; size and time have to do.
func fileID(fs.FileInfo) string { return "" }
