package core

import (
	"context"
	"crypto"
	"encoding/json"
	"time"
)

// Epoch is the number of a connection attempt. It rises by one with every attempt, and everything that a session
// reports carries it, so that news of an earlier session is recognised and changes nothing.
type Epoch uint64

// Lane is one plugin's stream of messages. Lanes are independent; within one, order holds.
type Lane uint32

// Seq numbers the messages of a lane from 1, without gaps, for the life of the process.
type Seq uint64

// Identity names a device, or a module of a device, at a hub.
type Identity struct {
	Hostname string // the hub's name, as it stands in the user name and in SAS tokens
	DeviceID string
	ModuleID string // "" for a device
	// Gateway, if set, is the host to connect to in the hub's place (IoT Edge).
	Gateway string
}

// ConnectHost returns the host name that the device dials and whose certificate it checks.
func (id Identity) ConnectHost() string {
	if id.Gateway != "" {
		return id.Gateway
	}
	return id.Hostname
}

// ClientID returns the MQTT client identifier: "device" or "device/module".
func (id Identity) ClientID() string {
	if id.ModuleID != "" {
		return id.DeviceID + "/" + id.ModuleID
	}
	return id.DeviceID
}

// Credential proves an identity once. It is made anew for each connection attempt.
type Credential struct {
	// Token is the text of a SAS token; "" with X.509.
	Token Secret
	// Certificate is the X.509 chain in DER, leaf first; nil with a token.
	Certificate [][]byte
	// Signer holds the certificate's private key, wherever that is.
	Signer crypto.Signer
	// Life is how long the credential is valid from the moment it is handed over; 0 means without a known end.
	Life time.Duration
	// Identity is whom it proves, where only the source knows: a provisioning service may name another hub at any time.
	// The zero value means the identity that was configured.
	Identity Identity
	// Given says that somebody else made it: asking again gives the same until a replacement comes from outside, which
	// the machine is told by CredentialChanged.
	Given bool
	// Doubt says in a few words why the hub may refuse it, "" where nothing speaks against it: it has ended by this
	// device's clock, or the clock cannot be right. It is tried all the same, and shown if it is refused.
	Doubt string
}

// CredentialSource makes credentials. Credential is called from one goroutine at a time, ends when ctx does, and
// reports its failures as *Error.
type CredentialSource interface {
	Credential(ctx context.Context) (Credential, error)
}

// TokenHolder is a CredentialSource of a credential that somebody else makes: a ready SAS token. Replace puts another
// in its place, from any goroutine; its error wraps ErrInvalid where the token is malformed or another identity's.
type TokenHolder interface {
	CredentialSource
	Replace(token Secret) error
}

// Feature is a thing that the hub sends a device, each behind one subscription.
type Feature uint8

const (
	// FeatureMessages are cloud-to-device messages, or a module's inputs.
	FeatureMessages Feature = iota
	// FeatureMethods are direct methods.
	FeatureMethods
	// FeatureTwin are the answers to twin requests.
	FeatureTwin
	// FeatureDesired are changes of the desired properties.
	FeatureDesired
	featureCount
)

var featureNames = [featureCount]string{"messages", "methods", "twin", "desired"}

// String returns the feature's stable name.
func (f Feature) String() string {
	if f < featureCount {
		return featureNames[f]
	}
	return "feature(?)"
}

// Transport makes sessions by one route. It never reconnects, retries or renews: those belong to the machine.
type Transport interface {
	// Name is the route's name in status and logs: "mqtt", "mqttws".
	Name() string
	// Open carries out everything that comes before the identity is spoken: DNS, TCP, proxy, TLS, WebSocket. (With
	// X.509 the TLS handshake already uses c.) It ends when ctx does. Its errors are *Error, with Phase set.
	//
	// Opening and connecting are two steps because a renewal opens the new connection while the old session still
	// works: the hub drops the old session at the new one's CONNECT.
	Open(ctx context.Context, c Credential) (Link, error)
}

// Link is an open connection to the hub on which nothing has been said of the identity.
type Link interface {
	// Connect makes the session, waits for the hub's answer (CONNACK), and takes the link over whatever comes of it.
	// It ends when ctx does; then the link is closed. h's functions may be called before Connect returns.
	Connect(ctx context.Context, c Credential, h Handler) (Session, error)
	// Close drops a link that is not needed after all. It is idempotent.
	Close() error
}

// Handler is how a session reports. The functions are called one at a time, in the order of the wire, and must not
// block. None is called after the session's Done is closed.
type Handler struct {
	// Receive is told of each inbound message, method call and change of the desired properties.
	Receive func(Inbound)
	// Acked is told that the hub has acknowledged every message of the lane up to and including upto.
	Acked func(lane Lane, upto Seq)
	// Replied is told the answer to a Request.
	Replied func(Reply)
}

// Session is one live connection to the hub. Its methods may be called from any goroutine. Once it is lost or closed
// it is dead: calls do nothing or return its end's error, and a new session has to be made. A call that the end ends
// returns after Done is closed, so that its error can be told from one of a session that goes on.
type Session interface {
	// Present says whether the hub kept a session, subscriptions included, from before (CONNACK session present).
	Present() bool
	// Subscribe asks for a feature and waits for the hub's consent. A refusal is an *Error of kind Refused.
	Subscribe(ctx context.Context, f Feature) error
	// Send publishes messages of one lane, in order, pipelined; it never blocks on the network. Seqs within a lane
	// rise, possibly with gaps, over all calls. Handler.Acked reports progress. The batch's messages are not changed
	// by either side; the slice itself is the session's from now on.
	Send(lane Lane, batch []Outbound)
	// Request sends a twin get or a reported patch; Handler.Replied brings the answer. There is no answer if the
	// session ends first.
	Request(r Request)
	// Respond answers a method call and returns when the hub has the answer.
	Respond(ctx context.Context, r MethodResponse) error
	// Complete tells the hub that the message which arrived with this token is done (PUBACK). Tokens must be completed
	// in the order of arrival. Abandoning and rejecting do not exist over MQTT.
	Complete(token uint64)
	// Close ends the session in an orderly way (DISCONNECT), or abruptly when ctx ends first, and returns when all its
	// goroutines have ended. It is idempotent.
	Close(ctx context.Context) error
	// Done is closed when the session has ended, for whatever reason.
	Done() <-chan struct{}
	// Err says why the session ended: nil while it lives and after Close, else an *Error (Clean where the other side
	// simply closed).
	Err() error
}

// Outbound is a message on its way to the hub.
type Outbound struct {
	Seq     Seq
	Message *Message
}

// InboundKind says what an Inbound is.
type InboundKind uint8

const (
	// InboundMessage is a cloud-to-device message or a module's input.
	InboundMessage InboundKind = iota
	// InboundMethod is a direct method call.
	InboundMethod
	// InboundDesired is a change of the desired properties: a patch.
	InboundDesired
)

// Inbound is something that the hub sent without being asked.
type Inbound struct {
	Kind InboundKind
	// Token names a message towards Session.Complete; it is valid in its session only.
	Token uint64
	// Message is the cloud-to-device message.
	Message *Message
	// Redelivered says that the hub has sent the message before (DUP). Only then is it taken for the same as an earlier
	// one: back ends choose message ids, and not all choose them well.
	Redelivered bool
	// Method is the name of the method called, decoded; RequestID what the answer must carry.
	Method    string
	RequestID string
	// Version is $version of the desired patch.
	Version int64
	// Payload is the method's JSON payload, or the desired patch ($version included).
	Payload []byte
}

// RequestKind says what a Request asks.
type RequestKind uint8

const (
	// TwinGet asks for the whole twin.
	TwinGet RequestKind = iota
	// ReportedPatch changes the reported properties.
	ReportedPatch
)

// Request is a question to the hub. ID is chosen by the caller, unique within the session.
type Request struct {
	ID      uint64
	Kind    RequestKind
	Payload []byte // the patch
}

// Reply is the hub's answer to the Request with the same ID.
type Reply struct {
	ID     uint64
	Status int // an HTTP-like status: 200 and 204 are good, 300 and above are refusals
	// Version is the new $version of the reported properties after a patch; 0 where the hub named none.
	Version int64
	// Payload is the twin, or the hub's JSON error body.
	Payload []byte
}

// MethodResponse answers a method call. The request id outlives the session in which the call came.
type MethodResponse struct {
	RequestID string
	Status    int
	Payload   []byte // JSON; nil is sent as null
}

// Verdict is what a plugin says of a cloud-to-device message.
type Verdict uint8

const (
	// Complete: the message is done; the hub forgets it.
	Complete Verdict = iota
	// Reject: the message cannot be handled. It goes to the dead letters; over MQTT the hub is told Complete, since
	// nothing else exists there.
	Reject
	// Abandon: not now; the message is handed out again within its limit.
	Abandon
)

var verdictNames = [...]string{"complete", "reject", "abandon"}

// String returns the verdict's stable name.
func (v Verdict) String() string {
	if int(v) < len(verdictNames) {
		return verdictNames[v]
	}
	return "verdict(?)"
}

// Desired is a state of the desired properties, as handed to a plugin.
type Desired struct {
	// Version is the hub's $version.
	Version int64 `json:"version"`
	// Document holds the current desired properties (of the keys that the plugin is given), without $metadata and
	// $version. It is nil when the whole is not known, because ensure_desired_properties is off.
	Document json.RawMessage `json:"document,omitempty"`
	// Patch is the JSON merge patch (RFC 7396) that leads from what this plugin start was given last to Document; nil
	// for the first. With an unknown Document it is the hub's patch.
	Patch json.RawMessage `json:"patch,omitempty"`
}

// Delivery is a call of a plugin.
type Delivery struct {
	Kind    InboundKind
	Method  string   // InboundMethod
	Payload []byte   // InboundMethod: JSON
	Message *Message // InboundMessage
	Desired *Desired // InboundDesired
}

// Answer is what a plugin made of a Delivery.
type Answer struct {
	// Status and Payload (JSON) answer a method.
	Status  int
	Payload []byte
	// Verdict answers a message.
	Verdict Verdict
}

// AnyMethod among a plugin's methods stands for all that no plugin names.
const AnyMethod = "*"

// PluginInfo is what a plugin says of itself when it starts.
type PluginInfo struct {
	Name    string
	PID     int      // 0 for one within this process
	SDK     string   // "go/0.1.0"
	Methods []string // may hold AnyMethod
	// Messages, Desired: whether it handles cloud-to-device messages, desired properties.
	Messages bool
	Desired  bool
}

// Plugin is a running start of a plugin. A dead one stays dead; the machine launches another.
type Plugin interface {
	Info() PluginInfo
	// Handle carries out one call and ends when ctx does. Several run at once. An error says that the plugin died
	// or that the call could not be carried through; what the plugin itself answers is an Answer.
	Handle(ctx context.Context, d Delivery) (Answer, error)
	// Close asks the plugin to finish, waits, and ends it by force when ctx does. It is idempotent.
	Close(ctx context.Context) error
	// Done is closed when the plugin has ended; Err then says why.
	Done() <-chan struct{}
	Err() error
}

// Launcher starts one configured plugin, as often as the machine asks. An *Error of kind Fatal says that another try is
// useless until somebody mends the configuration or the file.
type Launcher interface {
	// Launch starts the plugin and returns when it is ready for calls. d is what the plugin may ask of the device; it
	// may be used before Launch returns, and no more after the plugin's Done.
	Launch(ctx context.Context, d Device) (Plugin, error)
}

// Settler is told what became of submitted messages. It is called from the engine's goroutine and must not block.
type Settler interface {
	// Settled reports the messages with the tags from..to, in order. nil means accepted; an error that they were given
	// up and will not be sent later (though the hub may have them if the text says so).
	Settled(from, to uint64, err error)
}

// Device is what a plugin may ask of the device, bound to the plugin's lane. All methods may be called from any
// goroutine; each ends when its context does.
type Device interface {
	// Identity names the device.
	Identity() Identity
	// Submit hands over messages, tagged first, first+1, … by the caller. It blocks while the outbox is full, and
	// returns an error if the batch was not taken (then none of it was). Order of calls is order of sending. Messages
	// must have passed Check, and belong to the engine from now on: it fills in an empty ID. by is told what becomes of
	// each; that can happen before Submit returns.
	Submit(ctx context.Context, by Settler, first uint64, batch []*Message) error
	// Withdraw gives up a message that has not been settled yet. by is told with ErrCancelled, unless it has already
	// been told something else.
	Withdraw(by Settler, tag uint64)
	// Report sends a patch of the reported properties and returns their new $version.
	Report(ctx context.Context, patch json.RawMessage) (version int64, err error)
	// Twin asks the hub for the whole twin: {"desired":{…,"$version":n},"reported":{…}}.
	Twin(ctx context.Context) (json.RawMessage, error)
	// Connect waits for a session; Disconnect ends the session until the next Connect.
	Connect(ctx context.Context) error
	Disconnect(ctx context.Context) error
	// Watch calls f with the connection's state now and after each change, in order, from one goroutine, until stop is
	// called. Intermediate states may be skipped; the last never is.
	Watch(f func(Connection)) (stop func())
	// OnError calls f with each error of the background (losses, failed attempts, failed renewals), until stop is called.
	OnError(f func(error)) (stop func())
	// OnTokenWanted calls f when the SAS token that the device was given ends soon, or has ended, until stop is called;
	// also now, if that was so before. The answer is UpdateToken.
	OnTokenWanted(f func()) (stop func())
	// UpdateToken replaces the SAS token that the device was given. It returns when the token has been taken; the
	// session is renewed with it behind the scenes. The error wraps ErrUnsupported where the device has another proof of
	// identity, ErrInvalid where the token is not one of this device.
	UpdateToken(ctx context.Context, token Secret) error
}

// Connection is the state of the connection as shown to plugins and operators.
type Connection struct {
	State State `json:"state"`
	// Since is how long ago the state began, at the time of asking.
	Since time.Duration `json:"since"`
	// Reason says in a few words why the state is what it is.
	Reason string `json:"reason"`
	// Kind is the kind of the error behind the reason, where there is one.
	Kind Kind `json:"-"`
	// NextAttempt is how long until the next attempt; 0 where none is planned.
	NextAttempt time.Duration `json:"next_attempt,omitempty"`
	Epoch       Epoch         `json:"epoch"`
	// Route is the name of the route that the session or the attempt goes by, or that the next attempt takes.
	Route string `json:"route,omitempty"`
	// Causes are what ended the last session and what each route has failed of since, newest last; none in a session. The
	// slice is not to be changed.
	Causes []ConnectionCause `json:"causes,omitempty"`
}

// ConnectionCause is something that stands in the way of a session.
type ConnectionCause struct {
	Route string `json:"route"`
	Kind  Kind   `json:"-"`
	// Phase is the layer that failed, where one can be told: dns, tcp, proxy, tls, websocket, mqtt.
	Phase  string `json:"phase,omitempty"`
	Reason string `json:"reason"`
	// Count is how often in a row.
	Count int `json:"count"`
}

// Connected reports whether there is a session. A renewal does not end it.
func (c Connection) Connected() bool { return c.State == StateConnected }

// State is the connection's state.
type State uint8

const (
	// StateDisconnected: there is no session and none is wanted.
	StateDisconnected State = iota
	// StateConnecting: an attempt is under way.
	StateConnecting
	// StateConnected: there is a session.
	StateConnected
	// StateWaiting: an attempt failed or the session was lost; the next attempt is planned.
	StateWaiting
	// StateStopping: a shutdown drains what it can.
	StateStopping
	// StateStopped: the device is shut down.
	StateStopped
)

var stateNames = [...]string{"disconnected", "connecting", "connected", "waiting", "stopping", "stopped"}

// String returns the state's stable name.
func (s State) String() string {
	if int(s) < len(stateNames) {
		return stateNames[s]
	}
	return "state(?)"
}

// MarshalText gives the state's name.
func (s State) MarshalText() ([]byte, error) { return []byte(s.String()), nil }
