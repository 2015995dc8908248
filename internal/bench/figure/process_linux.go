package figure

import (
	"bufio"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// CPU returns the CPU time that a process has used so far, threads that have ended included, to the nanosecond.
func CPU(pid int) (time.Duration, error) {
	// The CPU clock of another process: clock_getcpuclockid(3), CPUCLOCK_SCHED in <linux/posix-timers_types.h>.
	var ts unix.Timespec
	if err := unix.ClockGettime(int32(^pid)<<3|2, &ts); err != nil {
		return 0, fmt.Errorf("read the CPU clock of process %d: %w", pid, err)
	}
	return time.Duration(ts.Nano()), nil
}

// Resident is the memory of a process in bytes: what it has for itself, and with the pages of files.
type Resident struct{ Anonymous, Total float64 }

// Memory reads a process' memory.
func Memory(pid int) (r Resident, err error) {
	f, err := os.Open("/proc/" + strconv.Itoa(pid) + "/status")
	if err != nil {
		return r, err
	}
	defer f.Close() //nolint:errcheck // it was read
	for s := bufio.NewScanner(f); s.Scan(); {
		name, value, _ := strings.Cut(s.Text(), ":")
		kib, _ := strconv.ParseFloat(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 64)
		switch name {
		case "RssAnon":
			r.Anonymous = kib * 1024
		case "VmRSS":
			r.Total = kib * 1024
		}
	}
	if r.Total == 0 || r.Anonymous == 0 {
		return r, fmt.Errorf("process %d: no memory in its status", pid)
	}
	return r, nil
}
