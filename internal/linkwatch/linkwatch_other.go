//go:build !linux

package linkwatch

import (
	"context"
	"errors"
)

// Watch returns an error that wraps errors.ErrUnsupported: this platform is not asked.
func Watch(context.Context, func()) error { return errors.ErrUnsupported }
