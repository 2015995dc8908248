//go:build !profile

package load

import "errors"

// profile is left out where memory is measured: the profiler would count.
func profile(string) (stop func(), err error) {
	return nil, errors.New("built without the tag profile")
}
