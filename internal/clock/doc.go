// Package clock is the wall clock of a device that may not have one: it boots in 1970, is set while it runs, and stands
// still while it sleeps.
//
// # Usage
//
//	c := clock.New(clock.Config{Built: built, Kept: store.Time{Path: file}, System: time.Now})
//	source, err := credentials.NewSharedKey(id, key, ttl, c.Now)
//	go c.Watch(ctx, func(by time.Duration) { … make credentials again … })
//
// # What is believed
//
// A clock before the time at which the program was built is wrong beyond doubt: then Now is the latest time that the
// device is known to have lived in (the build, or what Keep wrote), plus what has passed since. Any other clock is
// believed, also one that was set back: what was kept may have come from a clock that was ahead, and a device must not
// be bound to such a mistake. Doubt then says what is odd.
//
// Two more know something of the time: an authority, which issues no certificate ahead of time (Learn), and a hub that has
// proved who it is (Hear). A clock that disagrees with the hub's by more than a hub tolerates is passed over, for it is the
// hub that judges the device's tokens.
//
// # Concurrency
//
// All methods may be called from any goroutine.
//
// # Debugging
//
// `fairlead status` shows Doubt. A hub refuses tokens that are more than a few minutes too late without a word of why;
// Doubt stands beside the refusal.
//
// # Testing
//
// The system's clock is a function in Config; testing/synctest gives the rest.
package clock
