package mqtt

import "time"

// Our own numbers; the hub's are in protocol.go.
const (
	// defaultKeepAlive is the seed client's; a NAT forgets an idle connection after about 4 minutes.
	defaultKeepAlive = 60 * time.Second
	// pingTimeout is how long the hub may take to answer a PINGREQ.
	pingTimeout = 15 * time.Second
	// pingTrickle is how many bytes must come meanwhile for its answer to be taken for one that waits behind them, on a slow
	// link: 2 kbit/s. Less is a hub that is heard, and does not hear.
	pingTrickle = 4 << 10
	// pahoTick is how late paho may notice that a PINGREQ is due.
	pahoTick = 5 * time.Second
	// writeTimeout is how long the connection may take to accept one chunk. Chunks are small so that a slow link, which
	// accepts 16 KiB in 2 s at 64 kbit/s, is not taken for a dead one. With the header of a WebSocket's frame one is a TLS
	// record, which has at most 16 KiB. As long as the hub is heard, it may take writeLimit.
	writeTimeout = 10 * time.Second
	writeLimit   = 30 * time.Second
	writeChunk   = 16<<10 - 16
	// proxiedChunk is the same through a proxy: a TLS record that fits into one segment of Ethernet, and into what a proxy
	// forwards at once (tinyproxy: 2 KiB). Where the proxy holds back what follows until the hub's system has acknowledged
	// the piece before, which it does late unless the hub answers, each piece has something that the hub can answer.
	proxiedChunk = 1400
	// connackTimeout bounds the wait for CONNACK where the caller's context does not.
	connackTimeout = 60 * time.Second
	// goodbyeTimeout is how long the hub has to close its side after a DISCONNECT: a round trip, mostly.
	goodbyeTimeout = 500 * time.Millisecond
	// windDown is how long after the connection's end what had already arrived may still reach the handler.
	windDown = 250 * time.Millisecond
	// publishTimeout is how long paho's Subscribe may wait for paho's writer. The writer never waits long (the session
	// waits until it is at rest), so that this only ends the wait for a writer that has gone, for which the end of a
	// session waits in turn.
	publishTimeout = 200 * time.Millisecond
	// publishPause is the wait before what paho could not take is offered again.
	publishPause = 10 * time.Millisecond

	// readerAhead is how long a write that failed waits for the reader, who knows better why.
	readerAhead = 100 * time.Millisecond
	// heardBytes of a packet that has not ended count as a sign of life, as its end does.
	heardBytes = 512
	// readBuffer is read from the connection at once.
	readBuffer = 16 << 10
	// The room is how much may wait for the connection before the session puts no more messages together: what the connection
	// takes in writeAhead, as far as is known, within roomMin and roomMax. What is put together, nothing overtakes. writeHard is
	// where paho itself has to wait. Between them is room for what must never wait: acknowledgements, pings, requests.
	writeAhead       = 500 * time.Millisecond
	writeLasts       = 100 * time.Millisecond // after so long a write is taken for slow before it has ended
	roomMin, roomMax = 4 << 10, 128 << 10
	writeHard        = 2 << 20
	// writeKeep is the largest idle buffer that is kept for later.
	writeKeep = 512 << 10
	// maxPacket bounds an inbound packet: 256 KiB is the hub's largest body, the rest is topic and room.
	maxPacket = 512 << 10
	// maxArrivals bounds the inbound messages that nobody has completed. The hub stops at 50.
	maxArrivals = 10_000
)

// Of provisioning.
const (
	// registrationTimeout bounds a whole registration; custom allocation may take its time.
	registrationTimeout = 90 * time.Second
	// answerTimeout is how long one answer may take; it is the seed client's.
	answerTimeout = 30 * time.Second
	// defaultPoll is the wait before asking again where the service names none; it is the seed client's.
	defaultPoll = 2 * time.Second
	// maxRetryAfterSeconds bounds what an answer may ask for.
	maxRetryAfterSeconds = 24 * 60 * 60
	// maxRegistrationAnswers bounds the answers that nobody has read: a request has one.
	maxRegistrationAnswers = 4
	// registrationGoodbye bounds the end of a registration's session.
	registrationGoodbye = 2 * time.Second
)
