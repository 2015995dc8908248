package core

import "time"

// Limits are what the machine lets happen at most, and how long it waits. Each is a limit of ours; the hub's are in message.go.
// They are a value so that the simulator and tests can tighten them.
type Limits struct {
	// Window is how many messages of a lane may be unacknowledged at once, WindowBytes how many bytes (a single larger
	// message still goes alone).
	Window      int
	WindowBytes int
	// AckStall is how long a lane may go without any acknowledgement while some are due; then the session is recycled.
	// A throttled or over-quota hub shows itself in no other way over MQTT.
	AckStall time.Duration
	// Reply is how long an answer to a twin request may take before it is asked again.
	Reply time.Duration
	// SubscribeRetry and TwinRetry are first waits after a refusal; they double up to RefusedMax.
	SubscribeRetry, TwinRetry, RefusedMax time.Duration

	// RenewFrom..RenewTo is the part of a credential's life at which its renewal begins.
	RenewFrom, RenewTo float64
	// RenewMin is how long a session lasts at least before it is renewed, so that no credential, however short its life,
	// makes a hot loop.
	RenewMin time.Duration
	// RenewDrain is how long a renewal waits for what is in flight before it closes the old session.
	RenewDrain time.Duration
	// RecheckMax is how long it may take at most until a source that had nothing better than the present credential is
	// asked again; a change that is known of asks at once.
	RecheckMax time.Duration
	// CredentialAhead is how long before the end of a credential that was given from outside a new one is asked for. The
	// seed client asks as long before.
	CredentialAhead time.Duration
	// EndMargin is the part of a credential's life before whose end a session is closed if it could not be renewed.
	EndMargin float64

	// Stable is how long a session must last for the back-off to begin anew.
	Stable time.Duration
	// RetryFirst is the wait after the first failed attempt.
	RetryFirst time.Duration
	// RetryEarly bounds the wait for OutageEarly: most hubs that restart and links that blink are back by then, and are found
	// within two seconds. It costs some 20 attempts of the day's.
	RetryEarly, OutageEarly time.Duration
	// OutageShort is how long connection_retry_interval bounds the wait; later connection_retry_max does.
	OutageShort time.Duration
	// ThrottledMin, UnauthorizedMin, FatalMin, TakenOverMin are least waits for these kinds.
	ThrottledMin, UnauthorizedMin, FatalMin, TakenOverMin time.Duration
	// TakeOverWithin and TakeOverCount: so many clean closes in a row, each so soon after connecting, mean that another
	// client uses the identity.
	TakeOverWithin time.Duration
	TakeOverCount  int

	// RouteTries: so many failures in a row of a route that opens, but on which no session comes about or lasts, make it
	// give way. RouteRounds: so many rounds over all routes are made from one to the next at once; later each attempt has
	// its wait.
	RouteTries, RouteRounds int
	// RouteSound is how long a session must last for its route to count as sound.
	RouteSound time.Duration
	// ProbeFirst is the wait before a better route is tried again beside the session; it doubles up to ProbeMax. After
	// ProbesDistrusted doublings begins a route that opened, but did not carry a session.
	ProbeFirst, ProbeMax time.Duration
	ProbesDistrusted     int
	// ProbeQuiet messages in flight, and no open call, are quiet enough for a probe; it waits for that for ProbePatience at
	// most. ProbeRoom is what it keeps free before a renewal. ProbeConnect is how long the hub may take to answer CONNECT
	// by the better route before the session goes back.
	ProbeQuiet                             int
	ProbePatience, ProbeRoom, ProbeConnect time.Duration
	// LinkTries link-ups are answered by an attempt at once, and one more in each LinkRefill; LinkMin lies between two.
	LinkTries           int
	LinkRefill, LinkMin time.Duration

	// DisconnectDrain is how long a disconnect waits for acknowledgements of what is in flight.
	DisconnectDrain time.Duration
	// PluginStop and Shutdown bound the two halves of a shutdown: the plugins, then everything.
	PluginStop, Shutdown time.Duration
	// ShutdownClose is how long a shutdown then still waits for the session to close.
	ShutdownClose time.Duration

	// Method is how long a plugin may take for a method, where its configuration does not say. The wire carries no
	// timeout; the hub's default is 30 s.
	Method time.Duration
	// MethodAnswer is how long an answer is kept for a session to send it in: the hub's longest response timeout.
	MethodAnswer time.Duration
	// MessageVerdict is how long a plugin may take for a message: under the hub's lock of 60 s.
	MessageVerdict time.Duration
	// DesiredApply is how long a plugin may take for a desired state.
	DesiredApply time.Duration
	// SetUp is how long calls wait for a plugin's start to apply the desired properties that it is given first.
	SetUp time.Duration
	// OpenCalls is how many method calls may be open at once; more are answered 429.
	OpenCalls int

	// PluginRetryFirst doubles up to PluginRetryMax; PluginStable is how long a start must last to count as sound.
	PluginRetryFirst, PluginRetryMax, PluginStable time.Duration
	// CrashLoop crashes within CrashLoopWithin make a plugin degraded: it is tried every CrashLoopRetry.
	CrashLoop                       int
	CrashLoopWithin, CrashLoopRetry time.Duration
}

// DefaultLimits returns the limits of the product.
func DefaultLimits() Limits {
	return Limits{
		Window: 1000, WindowBytes: 4 << 20,
		AckStall: 30 * time.Second, Reply: 30 * time.Second,
		SubscribeRetry: 10 * time.Second, TwinRetry: time.Second, RefusedMax: 5 * time.Minute,
		RenewFrom: 0.80, RenewTo: 0.85, RenewMin: 5 * time.Second, RenewDrain: 2 * time.Second, RecheckMax: 10 * time.Minute, CredentialAhead: 2 * time.Minute, EndMargin: 0.02,
		Stable: time.Minute, RetryFirst: time.Second, RetryEarly: 2 * time.Second, OutageEarly: 45 * time.Second, OutageShort: 5 * time.Minute,
		ThrottledMin: 10 * time.Second, UnauthorizedMin: 30 * time.Second, FatalMin: time.Minute, TakenOverMin: 2 * time.Minute,
		TakeOverWithin: 10 * time.Second, TakeOverCount: 3,
		RouteTries: 3, RouteRounds: 3, RouteSound: 10 * time.Minute,
		ProbeFirst: time.Minute, ProbeMax: 2 * time.Hour, ProbesDistrusted: 5,
		ProbeQuiet: 16, ProbePatience: 15 * time.Minute, ProbeRoom: time.Minute, ProbeConnect: 10 * time.Second,
		LinkTries: 10, LinkRefill: time.Hour, LinkMin: 2 * time.Second,
		DisconnectDrain: 5 * time.Second, PluginStop: 5 * time.Second, Shutdown: 9 * time.Second, ShutdownClose: 500 * time.Millisecond,
		Method: 25 * time.Second, MethodAnswer: 5 * time.Minute, MessageVerdict: 50 * time.Second, DesiredApply: time.Minute, SetUp: 5 * time.Second,
		OpenCalls:        256,
		PluginRetryFirst: time.Second, PluginRetryMax: time.Minute, PluginStable: 10 * time.Minute,
		CrashLoop: 5, CrashLoopWithin: 10 * time.Minute, CrashLoopRetry: 5 * time.Minute,
	}
}
