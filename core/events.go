package core

import "time"

// Op numbers a twin request or another operation that is answered by one event. Numbers of callers' operations are chosen
// by the engine (see CallerOp), those of the machine by the machine.
type Op uint64

// CallerOp is the first number of a caller's operation; smaller ones are the machine's own.
const CallerOp Op = 1 << 32

// Call numbers what a plugin is handed. The engine counts those that came from the hub, from 1; the machine counts
// hand-overs of the desired properties from DesiredCall.
type Call uint64

// DesiredCall is the first number of a hand-over of the desired properties.
const DesiredCall Call = 1 << 32

// Start numbers the starts of a plugin, as Epoch numbers connection attempts.
type Start uint64

// PluginIndex is a plugin's place in Config.Plugins, which is the order of the configuration file.
type PluginIndex int

// NoPlugin is the absence of a plugin.
const NoPlugin PluginIndex = -1

// Fault is what the machine sees of an error.
type Fault struct {
	Kind       Kind
	Reason     string
	RetryAfter time.Duration
	// Clean is set when the other side simply closed the session.
	Clean bool
	// Phase and Status are the error's, for whoever is told of it; they decide nothing.
	Phase  string
	Status int
}

// FaultOf reduces an error to what the machine reads of it.
func FaultOf(err error) Fault {
	f := Fault{Kind: KindOf(err), Reason: err.Error()}
	if e, ok := asError(err); ok {
		f.RetryAfter, f.Clean, f.Phase, f.Status = e.RetryAfter, e.Clean, e.Phase, e.Status
	}
	return f
}

// Event is a fact, in the past tense. The set is sealed. Its String is one stable line.
type Event interface {
	event()
	String() string
}

// The facts of the connection. Each event that completes an effect repeats the number that the effect carried.
type (
	// Started: the runtime is up. The first event.
	Started struct{}
	// Ticked: the machine's Deadline has come. Also any other moment: a tick changes nothing that is not due.
	Ticked struct{}
	// CredentialFetched completes FetchCredential. Life is how long the credential lasts from now; 0 is for ever. Given
	// is Credential's; Fixed says that it was read, not made for this attempt, as certificates are: asking again may give
	// the same. Doubtful says that it has ended by this device's clock, or has not begun.
	CredentialFetched struct {
		Epoch                  Epoch
		Life                   time.Duration
		Given, Fixed, Doubtful bool
	}
	// CredentialFailed completes FetchCredential.
	CredentialFailed struct {
		Epoch Epoch
		Fault Fault
	}
	// Opened completes Open: TLS is up, nothing has been said of the identity.
	Opened struct{ Epoch Epoch }
	// OpenFailed completes Open.
	OpenFailed struct {
		Epoch Epoch
		Fault Fault
	}
	// Connected completes Connect: the hub took the session. Present: it still has the subscriptions.
	Connected struct {
		Epoch   Epoch
		Present bool
	}
	// ConnectFailed completes Connect; the link is gone.
	ConnectFailed struct {
		Epoch Epoch
		Fault Fault
	}
	// Lost: a session ended by itself.
	Lost struct {
		Epoch Epoch
		Fault Fault
	}
	// Closed completes Close: nothing of the epoch is left.
	Closed struct{ Epoch Epoch }
	// Subscribed completes Subscribe.
	Subscribed struct {
		Epoch   Epoch
		Feature Feature
	}
	// SubscribeFailed completes Subscribe.
	SubscribeFailed struct {
		Epoch   Epoch
		Feature Feature
		Fault   Fault
	}
	// CredentialChanged: the configuration or the credential was changed from outside, or the clock by which it was made;
	// waits end at once, and a session is renewed.
	CredentialChanged struct{}
	// RouteRequested: an operator wants this route to be used from now on, or with Auto the order of preference again. It
	// is answered when there is a session by the route, or when that did not come about: then the session stays where it is.
	RouteRequested struct {
		Op    Op
		Route int
		Auto  bool
	}
	// NetworkChanged: the platform says that a link or an address came up.
	NetworkChanged struct{}
)

// The facts of the outbox.
type (
	// Submitted: the lane's messages up to and including Upto are in the outbox; Bytes is the size of those that this
	// event adds.
	Submitted struct {
		Lane  Lane
		Upto  Seq
		Bytes int
	}
	// Withdrawn: the caller gave up one message.
	Withdrawn struct {
		Lane Lane
		Seq  Seq
	}
	// Acked: the hub has acknowledged the lane up to and including Upto.
	Acked struct {
		Epoch Epoch
		Lane  Lane
		Upto  Seq
	}
)

// The facts of callers' operations.
type (
	// Requested: a caller wants a twin request made; the engine keeps its kind and payload.
	Requested struct{ Op Op }
	// Replied completes Request, of callers and of the machine alike.
	Replied struct {
		Epoch  Epoch
		Op     Op
		Status int
		// Version and Changed are set for the machine's own twin get: desired $version, and whether the document differs
		// from the one held.
		Version int64
		Changed bool
	}
	// ConnectRequested: a caller wants a session.
	ConnectRequested struct{ Op Op }
	// DisconnectRequested: a caller wants none. With Hold only a ConnectRequested brings it back, and what the outbox
	// holds waits for that; without Hold, any new operation connects again (auto_connect), and what is pending is
	// cancelled.
	DisconnectRequested struct {
		Op   Op
		Hold bool
	}
	// OpCancelled: the caller's context ended; nobody waits for the operation.
	OpCancelled struct{ Op Op }
	// ShutdownRequested: drain, close, stop.
	ShutdownRequested struct{}
)

// The facts of what comes in.
type (
	// MethodCalled: a direct method call arrived.
	MethodCalled struct {
		Epoch Epoch
		Call  Call
		Name  string
	}
	// MessageReceived: a cloud-to-device message arrived. Redelivered: the hub says that it has sent it before.
	MessageReceived struct {
		Epoch       Epoch
		Call        Call
		ID          string
		Redelivered bool
		Properties  map[string]string
	}
	// DesiredChanged: a patch of the desired properties arrived.
	DesiredChanged struct {
		Epoch   Epoch
		Version int64
	}
	// Responded completes Respond.
	Responded struct {
		Epoch  Epoch
		Call   Call
		Failed bool
	}
)

// The facts of the plugins.
type (
	// PluginReady completes StartPlugin: it takes calls. It may come again when the start handles something else.
	PluginReady struct {
		Plugin   PluginIndex
		Start    Start
		Methods  []string
		Messages bool
		Desired  bool
	}
	// PluginExited: the start failed, or the plugin died, or it ended after StopPlugin.
	PluginExited struct {
		Plugin PluginIndex
		Start  Start
		Fault  Fault
	}
	// Returned completes Deliver. Failed: the call was not carried through.
	Returned struct {
		Plugin  PluginIndex
		Start   Start
		Call    Call
		Verdict Verdict
		Failed  bool
	}
)

func (Started) event()             {}
func (Ticked) event()              {}
func (CredentialFetched) event()   {}
func (CredentialFailed) event()    {}
func (Opened) event()              {}
func (OpenFailed) event()          {}
func (Connected) event()           {}
func (ConnectFailed) event()       {}
func (Lost) event()                {}
func (Closed) event()              {}
func (Subscribed) event()          {}
func (SubscribeFailed) event()     {}
func (CredentialChanged) event()   {}
func (RouteRequested) event()      {}
func (NetworkChanged) event()      {}
func (Submitted) event()           {}
func (Withdrawn) event()           {}
func (Acked) event()               {}
func (Requested) event()           {}
func (Replied) event()             {}
func (ConnectRequested) event()    {}
func (DisconnectRequested) event() {}
func (OpCancelled) event()         {}
func (ShutdownRequested) event()   {}
func (MethodCalled) event()        {}
func (MessageReceived) event()     {}
func (DesiredChanged) event()      {}
func (Responded) event()           {}
func (PluginReady) event()         {}
func (PluginExited) event()        {}
func (Returned) event()            {}

func (f Fault) pairs() []any {
	return []any{"kind", f.Kind, "reason", f.Reason, "retry-after", f.RetryAfter, "clean", f.Clean}
}

func (Started) String() string { return "started" }
func (Ticked) String() string  { return "ticked" }
func (e CredentialFetched) String() string {
	return line("credential-fetched", "epoch", e.Epoch, "life", e.Life, "given", e.Given, "fixed", e.Fixed, "doubtful", e.Doubtful)
}

func (e CredentialFailed) String() string {
	return line("credential-failed", append([]any{"epoch", e.Epoch}, e.Fault.pairs()...)...)
}
func (e Opened) String() string { return line("opened", "epoch", e.Epoch) }
func (e OpenFailed) String() string {
	return line("open-failed", append([]any{"epoch", e.Epoch}, e.Fault.pairs()...)...)
}

func (e Connected) String() string {
	return line("connected", "epoch", e.Epoch, "present", e.Present)
}

func (e ConnectFailed) String() string {
	return line("connect-failed", append([]any{"epoch", e.Epoch}, e.Fault.pairs()...)...)
}

func (e Lost) String() string {
	return line("lost", append([]any{"epoch", e.Epoch}, e.Fault.pairs()...)...)
}
func (e Closed) String() string { return line("closed", "epoch", e.Epoch) }
func (e Subscribed) String() string {
	return line("subscribed", "epoch", e.Epoch, "feature", e.Feature)
}

func (e SubscribeFailed) String() string {
	return line("subscribe-failed", append([]any{"epoch", e.Epoch, "feature", e.Feature}, e.Fault.pairs()...)...)
}
func (CredentialChanged) String() string { return "credential-changed" }
func (e RouteRequested) String() string {
	return line("route-requested", "op", e.Op, "route", e.Route, "auto", e.Auto)
}
func (NetworkChanged) String() string { return "network-changed" }
func (e Submitted) String() string {
	return line("submitted", "lane", laneWord(e.Lane), "upto", e.Upto, "bytes", e.Bytes)
}

func (e Withdrawn) String() string {
	return line("withdrawn", "lane", laneWord(e.Lane), "seq", e.Seq)
}

func (e Acked) String() string {
	return line("acked", "epoch", e.Epoch, "lane", laneWord(e.Lane), "upto", e.Upto)
}
func (e Requested) String() string { return line("requested", "op", e.Op) }
func (e Replied) String() string {
	return line("replied", "epoch", e.Epoch, "op", e.Op, "status", e.Status, "version", e.Version, "changed", e.Changed)
}
func (e ConnectRequested) String() string { return line("connect-requested", "op", e.Op) }
func (e DisconnectRequested) String() string {
	return line("disconnect-requested", "op", e.Op, "hold", e.Hold)
}
func (e OpCancelled) String() string     { return line("op-cancelled", "op", e.Op) }
func (ShutdownRequested) String() string { return "shutdown-requested" }
func (e MethodCalled) String() string {
	return line("method-called", "epoch", e.Epoch, "call", e.Call, "name", e.Name)
}

func (e MessageReceived) String() string {
	return line("message-received", "epoch", e.Epoch, "call", e.Call, "id", e.ID, "redelivered", e.Redelivered, "properties", e.Properties)
}

func (e DesiredChanged) String() string {
	return line("desired-changed", "epoch", e.Epoch, "version", e.Version)
}

func (e Responded) String() string {
	return line("responded", "epoch", e.Epoch, "call", e.Call, "failed", e.Failed)
}

func (e PluginReady) String() string {
	return line("plugin-ready", "plugin", pluginWord(e.Plugin), "start", e.Start, "methods", e.Methods, "messages", e.Messages, "desired", e.Desired)
}

func (e PluginExited) String() string {
	return line("plugin-exited", append([]any{"plugin", pluginWord(e.Plugin), "start", e.Start}, e.Fault.pairs()...)...)
}

func (e Returned) String() string {
	return line("returned", "plugin", pluginWord(e.Plugin), "start", e.Start, "call", e.Call, "verdict", e.Verdict, "failed", e.Failed)
}
