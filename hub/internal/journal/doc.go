// Package journal keeps small named values over the end of a process: an append
// log of whole values, compacted by an atomic rename.
//
// # Usage
//
// Open reads what is there; Put and Delete write one line each before they
// return; Each gives the values back at a start.
//
// # Concurrency
//
// A Journal is safe for concurrent use.
//
// # Expected behaviour of the other side
//
// A change survives the death of the process (kill -9), since it was given to
// the operating system by write(2) before Put returned. It is not synced: a
// power cut may lose the last changes, which is right for an emulator and wrong
// for a device. A torn last line is dropped at Open.
//
// # Debugging
//
// The file is text: a header line, then one line per change: CRC-32C of the
// rest, a space, a JSON object {"k":key,"v":value}; no "v" is a deletion.
//
// # Testing
//
// The tests cut the file at every byte and open it again.
package journal
