// Package store keeps what outlives the process, in the state directory.
//
// # Usage
//
//	s := store.Assignments{Path: filepath.Join(dir, "provisioning.json"), For: store.Request{Host: host, IDScope: scope, RegistrationID: id}}
//	a, err := s.Load() // fs.ErrNotExist where there is none
//	err = s.Save(a)
//
//	err = store.Time{Path: file}.Save(time.Now()) // package clock does
//
//	h, err := store.OpenHistory(dir)
//	err = h.Add(store.Entry{At: time.Now(), What: store.Lost, Route: "mqtt", Reason: "reset"})
//	entries, damaged, err := store.ReadHistory(dir) // also by another process
//
// # Concurrency
//
// One process at a time uses a state directory: the command locks it. Within it, one goroutine at a time uses a value.
//
// # Expected behaviour of the other side
//
// The disk may be full, and the power may fail at any moment: a file is the old one or the new one, never a part, and what
// Save has returned for is on the disk. Files have mode 0600 and hold no secret. Each begins with a version; a newer one is
// refused, since an older program would lose what it does not know. The history of the connection alone is appended to and
// not synced: it is bounded, outlives a kill, and is read as far as it goes.
//
// # Debugging
//
// The files are JSON, to be read with any editor, and may be deleted while the runtime is stopped: what they hold is asked
// for again.
//
// # Testing
//
// Beside the code.
package store
