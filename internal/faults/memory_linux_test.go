//go:build faults

package faults

import (
	"testing"

	"github.com/fairlead-iot/fairlead/internal/bench/figure"
)

// anonymous is the anonymous resident memory of a process, in bytes.
func anonymous(t *testing.T, pid int) int64 {
	t.Helper()
	m, err := figure.Memory(pid)
	if err != nil {
		t.Fatal(err)
	}
	return int64(m.Anonymous)
}
