// Package credentials proves a device's identity to its hub.
//
// # Usage
//
// A connection string, as the portal and `fairlead hub device add` print it, is parsed once:
//
//	cs, err := credentials.ParseConnectionString(text)
//	source, err := credentials.NewSharedKey(cs.Identity, cs.Key, time.Hour, time.Now)
//
// and the source, a core.CredentialSource, signs a fresh SAS token for every connection attempt. ParseToken reads a
// token that somebody else signed.
//
// # Concurrency
//
// All values are immutable after they were made, so that everything here may be called from any goroutine.
//
// # Expected behaviour of the other side
//
// The hub computes the signature over the text of `sr` exactly as it stands in the token, a line feed, and `se`, and
// compares. It refuses a token whose `se` lies in the past by its own clock, with about five minutes of tolerance; it ends
// a session some time after its token's `se`. So the wall clock is an argument, and whoever knows better than the system
// clock (a device boots in 1970) passes something better.
//
// # Debugging
//
// No error, String or log line contains a key, a token or any part of one: keys are core.Secret, and errors of the
// parsers name the field and what is wrong with it, never its value, since a key may stand where it should not.
// A CONNACK 5 with a key that is right is nearly always a wrong clock, a device id that differs in case (ids are
// case-sensitive), or a hub name other than the hub's own.
//
// # Testing
//
// The vectors in the tests were computed with Python's standard library, not with this package. The parsers
// have fuzz tests: `go test -fuzz FuzzParseConnectionString ./credentials`.
package credentials
