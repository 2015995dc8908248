// Package blobsas makes and checks the shared access signatures of Azure
// Storage: query parameters that let their bearer do something to a blob for a
// while. They have nothing but the name in common with those of IoT Hub, which
// are package sas.
//
// # Usage
//
//	text := blobsas.Sign(resource, blobsas.Grant{Permissions: "rw", Expiry: end}, key)
//	s, err := blobsas.Parse(r.URL.Query())
//	ok := s.SignedFor(resource, key) && s.Allows("w")
//
// SignAccount makes the signature of an account, by which the hub itself acts on
// a storage account elsewhere.
//
// # Concurrency
//
// Pure functions.
//
// # Expected behaviour of the other side
//
// Clients append the parameters to the blob's address as they are.
// https://learn.microsoft.com/rest/api/storageservices/create-service-sas and
// https://learn.microsoft.com/rest/api/storageservices/create-account-sas
//
// # Debugging
//
// Errors name the parameter and never contain a signature.
//
// # Testing
//
// Examples made by another implementation, each field falsified in turn, and
// FuzzParse.
package blobsas
