package wire

import (
	"time"

	plugin "github.com/hashicorp/go-plugin"
)

// The versions of the protocol, negotiated in go-plugin's handshake. They differ in what carries the frames; what can be
// added to the frames changes neither.
const (
	VersionRPC   = 1 // a gRPC stream
	VersionPipes = 2 // a pair of inherited pipes
)

// How a plugin finds the inherited pipes, and its handshake's address where it uses them.
const (
	StreamKey     = "FAIRLEAD_PLUGIN_STREAM" // the numbers of the descriptors that it reads and writes, as "3,4"
	StreamAddress = "inherited"
)

// ServiceName is the name under which the session is dispensed.
const ServiceName = "fairlead"

// Handshake is how a process recognises that it was started as a plugin. The cookie is a courtesy to people who start a
// plugin by hand, and no security: that is the work of mutual TLS and of the socket's directory.
func Handshake() plugin.HandshakeConfig {
	return plugin.HandshakeConfig{MagicCookieKey: CookieKey, MagicCookieValue: CookieValue}
}

// The magic cookie, as an environment variable.
const (
	CookieKey   = "FAIRLEAD_PLUGIN"
	CookieValue = "ahoy-1"
)

// Limits of the stream. What a plugin may send is bounded by the window; it is granted anew as the outbox takes over.
const (
	// MaxFrame is the most bytes that a frame of several messages may have. A sender aims at FrameTarget.
	MaxFrame = 1 << 20
	// FrameTarget is where a sender closes a batch, in bytes as core.Message.Size counts them; the rest of MaxFrame is
	// room for field tags.
	FrameTarget = 64 << 10
	// FrameMessages is the most messages that a sender puts into one frame.
	FrameMessages = 256
	// MaxReceive bounds one received frame, in bytes: one message whose properties are all tags and no text.
	MaxReceive = 4 << 20
	// WindowMessages and WindowBytes are the credit that is out at most: what the host may have to hold for a plugin
	// while the outbox takes no more.
	WindowMessages = 4096
	WindowBytes    = 4 << 20
	// MaxRequests is how many requests of a plugin are open at once; further ones are refused.
	MaxRequests = 64
)

// FeatureUploads says that a side knows streams and progress of uploads.
const FeatureUploads = "uploads"

// Limits of streams that are uploaded: the bytes of one frame, and the credit that is out at most.
const (
	UploadFrame  = 64 << 10
	UploadWindow = 512 << 10
)

// Times of the life of a plugin.
const (
	// StartTimeout bounds a start, from exec to Register.
	StartTimeout = 10 * time.Second
	// PingInterval, PingTimeout and PingMisses: a plugin is hung when that many pings in a row had no answer. A hang is
	// found within (PingMisses+1)*PingInterval + PingTimeout at the latest.
	PingInterval = 3 * time.Second
	PingTimeout  = 2 * time.Second
	PingMisses   = 3
	// WithdrawWait is how long a cancelled Send waits to hear whether its message was accepted meanwhile.
	WithdrawWait = time.Second
)

// SDK is what the Go SDK calls itself; Host what the host calls itself.
const (
	SDK  = "go/0.1.0"
	Host = "fairlead/0.1.0"
)
