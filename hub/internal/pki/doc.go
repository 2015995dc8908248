// Package pki keeps the hub's own certificate authority and its certificates.
//
// The authority is made once and stays, so that a device that was given ca.pem
// keeps trusting the hub; the server certificates follow the names.
//
// # Usage
//
// Load once at a start, with every name that clients dial.
//
// # Concurrency
//
// One caller at a time per directory.
//
// # Expected behaviour of the other side
//
// Clients replace their roots by ca.pem, or add it. Keys have mode 0600.
//
// # Debugging
//
// The files are PEM: ca, server (ECDSA P-256) and server-rsa, .pem and .key each.
//
// # Testing
//
// The tests verify certificates as a client does, now and near their end.
package pki
