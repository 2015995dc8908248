package blob

import "time"

// Limits of block blobs, by the version of the service that a client speaks:
// https://learn.microsoft.com/rest/api/storageservices/understanding-block-blobs--append-blobs--and-page-blobs
// and https://learn.microsoft.com/azure/storage/blobs/scalability-targets.
const (
	maxBlocks      = 50_000    // of a blob
	maxUncommitted = 100_000   // blocks that wait for a commit
	maxBlockID     = 64        // bytes before base64
	maxMetadata    = 8 << 10   // bytes of names and values
	maxName        = 1024      // characters
	maxBlockList   = 8 << 20   // bytes of XML: 50,000 of the longest ids, with room for another layout
	maxRequestID   = 1 << 10   // characters of x-ms-client-request-id, which is given back
	oldMaxBlock    = 4 << 20   // before version 2016-05-31
	oldMaxBlob     = 64 << 20  // in one Put Blob
	midMaxBlock    = 100 << 20 // before version 2019-12-12
	midMaxBlob     = 256 << 20
	newMaxBlock    = 4000 << 20
	newMaxBlob     = 5000 << 20

	// "Any uncommitted blocks are garbage collected if there are no successful
	// calls to Put Block or Put Block List on the blob within a week following the
	// last successful Put Block operation."
	// https://learn.microsoft.com/rest/api/storageservices/put-block
	uncommittedLife = 7 * 24 * time.Hour
)

// Ours.
const (
	sweepInterval = time.Hour        // between two looks for what is older than that
	idleLimit     = time.Minute      // without a byte from the client, or to it
	maxDrained    = 8 << 20          // bytes of a body that is read although it is refused, so that the client sees why
	drainLimit    = 10 * time.Second // for that: whoever is refused may not have said who it is
	copyBuffer    = 128 << 10        // bytes per request in flight
	memoryLimit   = 1 << 28          // bytes of all blobs in memory
	skew          = 15 * time.Minute // how far back Sign dates an address, for clocks that differ
)

// limits returns the most bytes of a block and of a blob that is put at once.
func limits(version string) (block, whole int64) {
	switch { // versions are dates
	case version < "2016-05-31":
		return oldMaxBlock, oldMaxBlob
	case version < "2019-12-12":
		return midMaxBlock, midMaxBlob
	default:
		return newMaxBlock, newMaxBlob
	}
}
