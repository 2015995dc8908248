package device

import "github.com/fairlead-iot/fairlead/core"

// What a program meets of package core, so that it needs no other import.
type (
	// Message is a device-to-cloud or cloud-to-device message, or a module's (Output, Input).
	Message = core.Message
	// Identity names a device, or a module of a device, at a hub.
	Identity = core.Identity
	// Desired is a state of the desired properties.
	Desired = core.Desired
	// Connection is the state of the connection: State, Reason, Since, NextAttempt, Route, Causes.
	Connection = core.Connection
	// ConnectionCause is what stands in the way of one route.
	ConnectionCause = core.ConnectionCause
	// Error has the detail of an error: Kind, Phase, Status, RetryAfter, TrackingID. Find it by errors.As.
	Error = core.Error
	// Kind classes an Error by what helps against it.
	Kind = core.Kind
	// State is the connection's state.
	State = core.State
	// CredentialSource makes the proof of identity for each connection.
	CredentialSource = core.CredentialSource
)

// The states of a connection.
const (
	StateDisconnected = core.StateDisconnected // no session, and none is wanted
	StateConnecting   = core.StateConnecting   // an attempt is under way
	StateConnected    = core.StateConnected    // there is a session
	StateWaiting      = core.StateWaiting      // the next attempt is planned
	StateStopping     = core.StateStopping     // a shutdown sends what it can
	StateStopped      = core.StateStopped      // shut down
)

// The kinds of errors.
const (
	Transient    = core.Transient    // passes by itself
	Throttled    = core.Throttled    // the hub asked for less
	Unauthorized = core.Unauthorized // the hub refused the identity or its proof
	Blocked      = core.Blocked      // this route does not get through here
	Refused      = core.Refused      // the hub said no to this one thing
	Fatal        = core.Fatal        // does not pass by itself
	Unavailable  = core.Unavailable  // the hub is busy, or the device disabled
	TakenOver    = core.TakenOver    // another client uses the identity
)

// AnyMethod stands, given to HandleMethod, for all methods that have no handler of their own.
const AnyMethod = core.AnyMethod

// The errors of the operations, for errors.Is. Each is wrapped with its detail.
var (
	// ErrCredential: the hub refused the device's proof of identity.
	ErrCredential = core.ErrCredential
	// ErrConnectionFailed: no session could be made, and connection_retry is off.
	ErrConnectionFailed = core.ErrConnectionFailed
	// ErrConnectionDropped: the session ended before the operation did, and connection_retry is off.
	ErrConnectionDropped = core.ErrConnectionDropped
	// ErrTimeout: the context's deadline came first.
	ErrTimeout = core.ErrTimeout
	// ErrCancelled: the context, a disconnect or a shutdown ended the operation. It will not be sent later.
	ErrCancelled = core.ErrCancelled
	// ErrNotConnected: there is no session, and auto_connect is off.
	ErrNotConnected = core.ErrNotConnected
	// ErrClosed: the client has been shut down.
	ErrClosed = core.ErrClosed
	// ErrTooLarge: the message is more than the hub takes; it was refused before it was accepted.
	ErrTooLarge = core.ErrTooLarge
	// ErrInvalid: the input is malformed; it was refused before it was accepted.
	ErrInvalid = core.ErrInvalid
	// ErrService: the hub answered with an error; the *Error has its status and tracking id.
	ErrService = core.ErrService
	// ErrUnsupported: this client, its identity or its routes cannot do that.
	ErrUnsupported = core.ErrUnsupported
)
