package mqttws

import "time"

const (
	// handshakeTimeout bounds the upgrade, from the request to the end of the answer.
	handshakeTimeout = 10 * time.Second
	// maxAnswer bounds the answer to the upgrade, in bytes of its status line and headers.
	maxAnswer = 16 << 10
	// maxQuoted bounds what an error quotes of an answer that is none.
	maxQuoted = 100
	// maxMessage bounds one message of the hub's. A message is read as a stream and costs no memory; but no hub sends that
	// much in one.
	maxMessage = 1 << 20
	// pingInterval is how long nothing may be written before a ping: proxies cut a tunnel that is idle for a minute.
	pingInterval = 30 * time.Second
	// controlTimeout is how long a ping or a pong may wait for the connection: longer than a chunk of the session's may
	// occupy it, which is 30 s at most. A session that writes ends a stuck one sooner, by its own deadline.
	controlTimeout = 40 * time.Second
	// goodbyeTimeout is how long a close frame may wait for the connection.
	goodbyeTimeout = time.Second
	// maxRetryAfter bounds what an answer may ask for.
	maxRetryAfter = 24 * time.Hour
	// readBuffer is a TLS record. writeBuffer is what the session writes at once: with it that is one frame.
	readBuffer  = 16 << 10
	writeBuffer = 16 << 10
)
