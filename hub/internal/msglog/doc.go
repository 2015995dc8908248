// Package msglog is the hub's bounded log of device-to-cloud messages.
//
// # Usage
//
// Append adds a batch with one write; a Reader follows from a sequence number or
// a time and waits at the end.
//
// # Concurrency
//
// A Log is safe for concurrent use; a Reader belongs to one goroutine.
//
// # Expected behaviour of the other side
//
// A record was given to the operating system with write(2) when Append returns,
// so it survives the end of the process (kill -9). There is no fsync: a power
// cut may lose the last records. The oldest segments go when the log is over its
// bytes or its age; a reader that is further behind continues with what is left.
//
// # Debugging
//
// Segments are files telemetry-<first sequence number>.log: a header of 16 bytes
// ("FLHUBMSG", version, zeros), then records. A torn end is cut off at Open.
//
// # Testing
//
// The tests cut and damage segments, and read while others append.
package msglog
