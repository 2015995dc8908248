// Package account lets devices upload to a storage account elsewhere: a real one
// of Azure's, or an Azurite.
//
// # Usage
//
//	a, err := account.New(account.Config{ConnectionString: text, Container: "uploads"})
//	err = a.Prepare(ctx) // makes the container, once
//	address := a.Address("", "dev1/log.txt", now, expiry)
//
// # Concurrency
//
// An Account is safe for concurrent use.
//
// # Expected behaviour of the other side
//
// Azure's Blob service, https://learn.microsoft.com/rest/api/storageservices/blob-service-rest-api,
// over HTTPS: devices build addresses with https and nothing else. The hub
// acts by a signature of the account (package blobsas) that is good for minutes.
//
// # Debugging
//
// Errors name the verb, the account, the blob, and Azure's word for what was
// wrong. They never contain a signature or the key.
//
// # Testing
//
// Against a stand-in that checks what it is asked; against Azurite in the
// interop tests.
package account
