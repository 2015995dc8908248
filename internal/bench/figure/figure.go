// Package figure is what the benchmarks share: how a figure is written, and what a process has used.
package figure

import (
	"fmt"
	"os"
	"slices"
	"strings"
)

// Median returns the median; values must not be empty.
func Median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	n := len(sorted)
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}

// Number writes a figure with three digits that count.
func Number(v float64) string {
	switch {
	case v >= 100:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	default:
		return fmt.Sprintf("%.2f", v)
	}
}

// Cell writes the values of a cell: the median, and the range in brackets.
func Cell(values []float64) string {
	switch len(values) {
	case 0:
		return "–"
	case 1:
		return Number(values[0])
	default:
		return fmt.Sprintf("%s (%s–%s)", Number(Median(values)), Number(slices.Min(values)), Number(slices.Max(values)))
	}
}

// LoadAverage is that of the last minute: who else was at work on this machine. "unknown" where the system does not say.
func LoadAverage() string {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	one, _, _ := strings.Cut(string(text), " ")
	return one
}
