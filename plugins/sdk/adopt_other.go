//go:build !unix

package sdk

import "os"

// adopt returns nil: no descriptors are inherited by number here.
func adopt(uintptr) *os.File { return nil }
