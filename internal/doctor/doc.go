// Package doctor walks the real way to the hub layer by layer, and says what to do.
//
// # Usage
//
//	report := doctor.Run(ctx, doctor.Config{Identity: id, Credentials: source, Routes: routes, …})
//	report.WriteText(os.Stdout)
//
// Each result is a Check: a layer of a route, or of the device itself. What wants something done has a code (see Codes),
// a cause and a fix. A code never changes its meaning: scripts and support rely on it.
//
// # What it does, and what it never does
//
// The connections are those of the runtime: the same dialer, proxies, roots and bounds, up to TLS and, where the route
// has it, the upgrade to WebSocket. There it ends. IoT Hub has one session per identity, and a CONNECT would throw the
// device's own out; so none is sent, nor is the device's queue read, nor anything sent or reported.
//
// Whether the hub takes the credential is asked of a running runtime, which has a session or does not. Without one, a
// request over HTTPS reports the end of an upload that never was: the hub checks the credential first, answers 401 if it
// refuses it, and knows no such upload otherwise. Nothing changes by it. A module, and a device behind a gateway, have no
// such request; for them it stays unproven. https://learn.microsoft.com/rest/api/iothub/device/update-file-upload-status
//
// A route that does not get through is a problem only if none does, since the runtime takes the next one by itself.
//
// # Concurrency
//
// Run walks the routes side by side, and returns when all have ended or ctx has. Its time is that of the slowest: the
// bounds of transports/netdial hold, ctx ends what they leave.
//
// # Debugging
//
// The detail of a finding is the error of the dialer, as `fairlead status` would show it.
//
// # Testing
//
// Config.DialContext (within the routes) and Config.Now take the place of network and clock. Every code has a test that
// brings it about; TestMain says which has not. docs/doctor.md is written by `go test ./internal/doctor -run Document
// -rewrite`.
package doctor
