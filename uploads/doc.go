// Package uploads brings files to the storage behind the hub, whatever the network does, and tells the hub how each ended.
//
// # Usage
//
//	q, err := uploads.New(uploads.Config{Files: files, Storage: storage, Keep: store.Uploads{Dir: dir}})
//	go q.Run(ctx)
//	u, err := q.Add(ctx, core.UploadRequest{Path: "/var/log/today.txt", BlobName: "logs/today.txt"})
//	u, err = q.Wait(ctx, u.ID, func(u core.Upload) { … })
//
// # The life of an upload
//
//  1. Add looks at the file and writes a record down. From then on the upload outlives a crash.
//  2. In its turn, the hub is asked for an address. The number that comes with it (correlation id) is written down before
//     the address is used.
//  3. The file is read from its beginning, once more for each life of the process, in blocks. A block's name says which
//     upload it belongs to, where it stands, how long it is and what its CRC-64 is. What the storage lists under the name
//     that a block has just got is there already, and is not sent again: the storage's list is the record of progress, and
//     holds over restarts without one of ours.
//  4. When all blocks are there, the file is looked at once more, and the list is committed, with the MD5 of the whole.
//  5. The hub is told, until it has acknowledged that.
//
// Each obstacle ends the attempt; the next begins where it stopped, after a wait. The address is a secret and is kept in
// memory only. After a restart, or when the storage refuses it, a new one is asked for, and the number of the old one is
// reported as given up, so that it does not count among the 10 that the hub allows.
//
// # Concurrency
//
// A Queue may be used from any goroutine. Some uploads run at once, in the order in which they were added; of one blob,
// one at a time. Blocks are read from the file as they are sent, so that memory depends neither on the file's size nor on
// the blocks'.
//
// # Expected behaviour of the other side
//
// The storage may fail, be slow, forget blocks, change its mind. It checks each block against its CRC-64, so that what it
// lists is what was read. The file may be changed by others: then the upload fails and says so.
//
// # Debugging
//
// `fairlead status` lists the queue with reasons; the log has a line for each change of state, at level debug for each block.
//
// # Testing
//
// The tests run against the embedded hub, its blob endpoint and its faults in a synctest bubble.
package uploads
