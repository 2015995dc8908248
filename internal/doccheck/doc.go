// Package doccheck holds the documents to what they speak of. It has no code but its tests.
//
// # Usage
//
// Run its tests; they say which line of which document is wrong.
//
// # Expected behaviour
//
// README.md and everything below docs: a relative link leads to a file, and its fragment to a heading; what is quoted
// from a file of this repository stands in it, line by line; a configuration in README.md is accepted by package config; lists of
// limits and faults are complete.
// That the commands of README.md work as they stand is shown by .ci/readme.
//
// # Testing
//
// Each check has a positive control: a text that it must find fault with.
package doccheck
