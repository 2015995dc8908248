// Package blob is a blob endpoint for the hub's file uploads: the part of Azure
// Blob Storage by which devices write block blobs, and services read them.
//
//	PUT BLOB              Put Blob
//	PUT BLOB?comp=block   Put Block         PUT BLOB?comp=blocklist   Put Block List
//	GET BLOB, HEAD BLOB   Get Blob, whole or a range; its properties
//	GET BLOB?comp=blocklist                 Get Block List
//	DELETE BLOB           Delete Blob
//
// # Usage
//
// Open a Store; New makes an http.Handler of it. Endpoint.Serves says which
// requests are its own: those to a host NAME.blob.…, and those whose path begins
// with /devstoreaccount1. Endpoint.Sign gives a device its address.
//
// # Concurrency
//
// A Store and an Endpoint are safe for concurrent use. Contents are received and
// synced side by side, without a lock and through a small buffer each, whatever
// their size; one mutex guards the index, and is held for the rename that puts
// something in place. A blob that is replaced while it is read stays until its
// readers have ended.
//
// # Expected behaviour of the other side
//
// Every request carries a service SAS (package blobsas); nothing else
// authenticates. What a 201 acknowledged is on disk: written to a temporary
// file, synced, renamed, the directory synced. A commit writes the blob's new
// list of segments in the same way and copies nothing. Blocks that are never
// committed go a week after the last one:
// https://learn.microsoft.com/rest/api/storageservices/put-block.
//
// Not modelled: page and append blobs, snapshots, versions, leases, tags, tiers,
// encryption scopes, copying, containers (there is the one of the SAS), CORS.
//
// # Debugging
//
// Every refusal is Azure's XML with x-ms-error-code and x-ms-request-id, and is
// logged at level Debug by that id. On disk each blob is a directory below
// blobs/, named by the SHA-256 of its name: meta.json, and its segments.
//
// # Testing
//
// Tables of requests over HTTP; the store is opened again after every kind of
// end; FuzzBlockList. The official clients run in the interop tests.
package blob
