// Package quietio reads and writes sockets and pipes without waking Go's system monitor.
//
// # Usage
//
//	conn = quietio.Wrap(conn)                // of package net
//	pipe := quietio.NewPipe(reader, writer)  // of os.Pipe
//
// # Why
//
// Every system call that goes through package syscall tells the scheduler that it may block. Where the process was idle
// before, that wakes the runtime's monitor thread (entersyscall_sysmon in runtime/proc.go), which then looks every 20 µs,
// a few times, whether the call has blocked, and goes to sleep again. For a process that handles a message each
// millisecond these wake-ups were a quarter of its CPU time. The sockets of package net and the pipes of package os do not
// block, so a call on one returns at once and the monitor is of no use: this package makes such calls raw.
//
// # Concurrency
//
// As net.Conn: reads and writes may be made from any goroutine, and at once. Deadlines and Close work as ever, since
// waiting is still the network poller's.
//
// # Expected behaviour of the other side
//
// None: nothing on the wire changes.
//
// # Debugging
//
// `perf record -g` on an idle process with the wrapper left out shows hrtimer_nanosleep below sysmon.
//
// # Testing
//
// The tests hold the wrapper against what package net does: data, ends, errors, deadlines. Where a connection offers no
// descriptor (net.Pipe), or on systems other than Linux, Wrap returns it as it is. Under the race detector the calls are
// package syscall's.
package quietio
