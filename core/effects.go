package core

import (
	"strconv"
	"time"
)

// Effect is an order, in the imperative. The set is sealed. Its String is one stable line. An effect leaves its
// executor nothing to choose.
type Effect interface {
	effect()
	String() string
}

// Orders about the connection.
type (
	// FetchCredential begins an attempt: it asks the credential source. Answered by CredentialFetched or CredentialFailed.
	FetchCredential struct{ Epoch Epoch }
	// Open opens a link by a route with the epoch's credential. Answered by Opened or OpenFailed.
	Open struct {
		Epoch Epoch
		Route int
	}
	// Connect makes the session on the epoch's link. Answered by Connected or ConnectFailed.
	Connect struct{ Epoch Epoch }
	// Close ends whatever there is of the epoch: an attempt, a link, a session. Answered by Closed and by nothing else
	// of the epoch. Why is for those who ask later; "" of an attempt that is not needed after all.
	Close struct {
		Epoch Epoch
		Why   string
	}
	// RememberRoute keeps, beyond the process, by which route a session came about: the next start begins with it.
	RememberRoute struct{ Route int }
	// Subscribe asks for a feature. Answered by Subscribed or SubscribeFailed, or not at all if the session ends.
	Subscribe struct {
		Epoch   Epoch
		Feature Feature
	}
	// Announce makes a new state known to watchers and to the log. Route is the session's or the attempt's, or the one that
	// is next.
	Announce struct {
		State  State
		Reason string
		Route  int
	}
	// Warn makes an error of the background known to watchers and to the log.
	Warn struct{ Fault Fault }
	// WantCredential asks whoever gave the credential for a new one: this one ends in Left, or has ended.
	WantCredential struct{ Left time.Duration }
	// Stop ends the engine: the machine is done.
	Stop struct{}
)

// Orders about the outbox.
type (
	// Send publishes From..To of a lane.
	Send struct {
		Epoch    Epoch
		Lane     Lane
		From, To Seq
	}
	// Resolve tells the submitters that the lane's messages up to Upto are accepted.
	Resolve struct {
		Lane Lane
		Upto Seq
	}
	// Forget drops the lane's messages up to Upto from the outbox.
	Forget struct {
		Lane Lane
		Upto Seq
	}
	// GiveUp tells the submitters of From..To that their messages will not be sent (again), and empties them.
	GiveUp struct {
		Lane     Lane
		From, To Seq
		// Sent: some of them have left in some session, so that the hub may have them.
		Sent bool
		Why  Outcome
	}
)

// Outcome is how an operation ended.
type Outcome uint8

// The outcomes and the error each becomes towards callers.
const (
	Succeeded    Outcome = iota // nil, or the hub's refusal if the reply is one
	Cancelled                   // ErrCancelled
	NotConnected                // ErrNotConnected
	Failed                      // ErrConnectionFailed with the last fault
	Dropped                     // ErrConnectionDropped
	Stopped                     // ErrClosed
)

var outcomeNames = [...]string{"succeeded", "cancelled", "not-connected", "failed", "dropped", "stopped"}

// String returns the outcome's stable name.
func (o Outcome) String() string {
	if int(o) < len(outcomeNames) {
		return outcomeNames[o]
	}
	return "outcome(?)"
}

// Orders about callers' operations.
type (
	// Ask sends the twin request with this number. Answered by Replied, or not at all if the session ends.
	Ask struct {
		Epoch Epoch
		Op    Op
	}
	// Finish tells the caller how the operation ended.
	Finish struct {
		Op      Op
		Outcome Outcome
	}
)

// Orders about what came in.
type (
	// Deliver hands a call to a plugin. Answered by Returned, or by PluginExited. For desired properties Version says
	// which state at least; the engine gives the newest.
	Deliver struct {
		Plugin PluginIndex
		Start  Start
		Call   Call
	}
	// DeliverDesired hands the current desired properties to a plugin. Answered as Deliver.
	DeliverDesired struct {
		Plugin  PluginIndex
		Start   Start
		Call    Call
		Version int64
	}
	// Abort ends a delivered call whose limit has passed: its Returned is of no interest any more.
	Abort struct {
		Plugin PluginIndex
		Start  Start
		Call   Call
	}
	// Respond answers a method call: with the plugin's answer if Status is 0, else with the status and its JSON reason.
	// Answered by Responded, or not at all if the session ends.
	Respond struct {
		Epoch  Epoch
		Call   Call
		Status int
	}
	// Acknowledge tells the hub that a message is done (PUBACK).
	Acknowledge struct {
		Epoch Epoch
		Call  Call
	}
	// Bury puts a message into the dead letters.
	Bury struct {
		Call   Call
		Reason string
	}
	// Discard frees what the engine keeps of a call.
	Discard struct{ Call Call }
	// AdoptTwin makes the document of the twin get the desired state.
	AdoptTwin struct {
		Op      Op
		Version int64
	}
	// MergeDesired applies the patch of this version to the desired state.
	MergeDesired struct{ Version int64 }
)

// Orders about plugins.
type (
	// StartPlugin launches a plugin. Answered by PluginReady or PluginExited.
	StartPlugin struct {
		Plugin PluginIndex
		Start  Start
	}
	// StopPlugin asks a start to finish. Answered by PluginExited.
	StopPlugin struct {
		Plugin PluginIndex
		Start  Start
	}
	// FailPlugin makes known that a plugin will not be started again until somebody mends it.
	FailPlugin struct {
		Plugin PluginIndex
		Reason string
	}
)

func (FetchCredential) effect() {}
func (Open) effect()            {}
func (Connect) effect()         {}
func (Close) effect()           {}
func (RememberRoute) effect()   {}
func (Subscribe) effect()       {}
func (Announce) effect()        {}
func (Warn) effect()            {}
func (WantCredential) effect()  {}
func (Stop) effect()            {}
func (Send) effect()            {}
func (Resolve) effect()         {}
func (Forget) effect()          {}
func (GiveUp) effect()          {}
func (Ask) effect()             {}
func (Finish) effect()          {}
func (Deliver) effect()         {}
func (DeliverDesired) effect()  {}
func (Abort) effect()           {}
func (Respond) effect()         {}
func (Acknowledge) effect()     {}
func (Bury) effect()            {}
func (Discard) effect()         {}
func (AdoptTwin) effect()       {}
func (MergeDesired) effect()    {}
func (StartPlugin) effect()     {}
func (StopPlugin) effect()      {}
func (FailPlugin) effect()      {}

func laneWord(l Lane) string          { return strconv.Itoa(int(l)) }
func pluginWord(p PluginIndex) string { return strconv.Itoa(int(p)) }

func (e FetchCredential) String() string { return line("fetch-credential", "epoch", e.Epoch) }
func (e Open) String() string            { return line("open", "epoch", e.Epoch, "route", e.Route) }
func (e Connect) String() string         { return line("connect", "epoch", e.Epoch) }
func (e Close) String() string           { return line("close", "epoch", e.Epoch, "why", e.Why) }
func (e RememberRoute) String() string   { return line("remember-route", "route", e.Route) }
func (e Subscribe) String() string {
	return line("subscribe", "epoch", e.Epoch, "feature", e.Feature)
}

func (e Announce) String() string {
	return line("announce", "state", e.State, "reason", e.Reason, "route", e.Route)
}
func (e Warn) String() string           { return line("warn", e.Fault.pairs()...) }
func (f WantCredential) String() string { return line("want-credential", "left", f.Left) }
func (Stop) String() string             { return "stop" }
func (e Send) String() string {
	return line("send", "epoch", e.Epoch, "lane", laneWord(e.Lane), "from", e.From, "to", e.To)
}

func (e Resolve) String() string {
	return line("resolve", "lane", laneWord(e.Lane), "upto", e.Upto)
}
func (e Forget) String() string { return line("forget", "lane", laneWord(e.Lane), "upto", e.Upto) }
func (e GiveUp) String() string {
	return line("give-up", "lane", laneWord(e.Lane), "from", e.From, "to", e.To, "sent", e.Sent, "why", e.Why)
}
func (e Ask) String() string    { return line("ask", "epoch", e.Epoch, "op", e.Op) }
func (e Finish) String() string { return line("finish", "op", e.Op, "outcome", e.Outcome) }
func (e Deliver) String() string {
	return line("deliver", "plugin", pluginWord(e.Plugin), "start", e.Start, "call", e.Call)
}

func (e DeliverDesired) String() string {
	return line("deliver-desired", "plugin", pluginWord(e.Plugin), "start", e.Start, "call", e.Call, "version", e.Version)
}

func (e Abort) String() string {
	return line("abort", "plugin", pluginWord(e.Plugin), "start", e.Start, "call", e.Call)
}

func (e Respond) String() string {
	return line("respond", "epoch", e.Epoch, "call", e.Call, "status", e.Status)
}

func (e Acknowledge) String() string {
	return line("acknowledge", "epoch", e.Epoch, "call", e.Call)
}
func (e Bury) String() string    { return line("bury", "call", e.Call, "reason", e.Reason) }
func (e Discard) String() string { return line("discard", "call", e.Call) }
func (e AdoptTwin) String() string {
	return line("adopt-twin", "op", e.Op, "version", e.Version)
}
func (e MergeDesired) String() string { return line("merge-desired", "version", e.Version) }
func (e StartPlugin) String() string {
	return line("start-plugin", "plugin", pluginWord(e.Plugin), "start", e.Start)
}

func (e StopPlugin) String() string {
	return line("stop-plugin", "plugin", pluginWord(e.Plugin), "start", e.Start)
}

func (e FailPlugin) String() string {
	return line("fail-plugin", "plugin", pluginWord(e.Plugin), "reason", e.Reason)
}
