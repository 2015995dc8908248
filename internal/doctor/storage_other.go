//go:build !unix

package doctor

import "errors"

// freeSpace does not know.
func freeSpace(string) (uint64, error) { return 0, errors.ErrUnsupported }

func isQuota(error) bool { return false }

// mayWrite leaves it to the start to find out.
func mayWrite(string) bool { return true }

func isReadOnly(string) bool { return false }
