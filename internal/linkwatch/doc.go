// Package linkwatch tells when a network link or an address came up, where the platform says so: on Linux by netlink.
//
// # Usage
//
//	err := linkwatch.Watch(ctx, func() { engine.NetworkChanged() })
//
// # Concurrency
//
// Watch calls the function from its own goroutine's stack, one call at a time.
//
// # Expected behaviour of the other side
//
// The kernel sends a message for each change of a link, an address or a route, several for one cable that is plugged in,
// and drops some when nobody reads fast enough, which it then says. News that come together are told once, Settle after
// the first. Whoever is told must not take each call for a reason to dial: a bad cable makes one every second.
//
// # Debugging
//
// `ip monitor` shows what the kernel says.
//
// # Testing
//
// The messages are read in linkwatch_linux_test.go, and a dummy link in a network namespace shows the whole.
package linkwatch

import "time"

// Settle is how long news are collected before they are told: an address follows its link, and a route its address.
const Settle = 250 * time.Millisecond
