package mqtt

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/fairlead-iot/fairlead/core"
	"github.com/fairlead-iot/fairlead/transports/netdial"
)

// guard is the net.Conn that paho gets in place of the real one. It makes up for what paho 1.5.1 does not do: it bounds
// every write, checks what arrives before paho parses it, notices a silent peer, ends at once with one typed cause, reads
// many packets per call, and writes many packets per call.
//
// paho ignores read errors whose text contains net.ErrClosed's, and then believes for minutes that it is connected; hence
// it is told errEnded, whatever the cause.
type guard struct {
	net.Conn
	idle  time.Duration // silence from the hub that ends the connection
	chunk int           // bytes that are written at once

	// The end. cause is written once, before done is closed.
	once  sync.Once
	done  chan struct{}
	cause error
	watch *time.Timer

	// The reading side; one goroutine at a time.
	rbuf    []byte
	rpos    int
	rend    int
	filter  filter
	acked   func(ids []uint16) // told the PUBACKs of each read
	heard   atomic.Int64       // when the hub was heard, as nanoseconds since start
	partial int                // bytes that came since, of a packet that has not ended
	start   time.Time
	// pinged is when the PINGREQ was written that nothing has answered yet, as heard is, 0 for none; trickle are the bytes
	// that came since.
	pinged, trickle atomic.Int64

	subsMu sync.Mutex
	subs   map[uint16]struct{} // SUBSCRIBEs that await their answer

	kick chan struct{}

	// The writing side. While writing is set one goroutine is inside Conn.Write, without the mutex; everybody else
	// appends to wbuf.
	mu      sync.Mutex
	room    sync.Cond // wbuf shrank, writing ended, or the end came
	wbuf    []byte
	spare   []byte
	writing bool
	direct  bool // paho's own goroutine is the one that writes
	ended   bool
	leaving int       // bytes that the flusher has taken and not written yet
	ahead   int       // bytes that may wait, from roomMin to roomMax; whoever has set writing changes it
	began   time.Time // when the chunk that is being written was begun

	flusher sync.WaitGroup

	connacked atomic.Bool
	finishing atomic.Bool // DISCONNECT is on its way
	present   bool        // the hub kept the session; written before connacked
}

// newGuard takes conn over. idle is the silence that ends it, chunk how much is written at once; acked is told the ids of
// the PUBACKs that each read brought, if it brought any.
func newGuard(conn net.Conn, idle time.Duration, chunk int, acked func(ids []uint16)) *guard {
	g := &guard{
		Conn: conn, idle: idle, chunk: chunk, acked: acked,
		done: make(chan struct{}), kick: make(chan struct{}, 1),
		ahead: writeChunk, rbuf: make([]byte, readBuffer), subs: make(map[uint16]struct{}),
		start: time.Now(),
	}
	g.room.L = &g.mu
	g.filter = filter{limit: maxPacket, connack: g.connack, subscribed: g.subscribed}
	g.mu.Lock() // the timer may run before it is assigned
	g.watch = time.AfterFunc(idle, g.checkSilence)
	g.mu.Unlock()
	g.flusher.Go(g.flush)
	return g
}

// abort ends the connection. The first cause stays; once finish has begun, whatever ends it is the close.
func (g *guard) abort(cause error) {
	g.once.Do(func() {
		if g.finishing.Load() {
			cause = errSessionClosed
		}
		g.cause = cause
		close(g.done)
		g.mu.Lock()
		g.ended = true
		g.watch.Stop()
		g.room.Broadcast()
		g.mu.Unlock()
		_ = netdial.Innermost(g.Conn).Close() // closing a tls.Conn writes an alert, for which a stuck peer would make it wait
		_ = g.Conn.Close()
	})
}

// checkSilence runs on the watch timer. Whatever the hub sends is a sign of life, since an answer may wait behind it; but
// where a ping is not answered, and nearly nothing else comes, the hub is heard without hearing.
func (g *guard) checkSilence() {
	now := time.Since(g.start)
	left := g.idle - (now - time.Duration(g.heard.Load()))
	if pinged := time.Duration(g.pinged.Load()); pinged > 0 {
		waited, heard := now-pinged, g.trickle.Load()
		switch {
		case waited < pingTimeout:
			left = min(left, pingTimeout-waited)
		case heard == 0: // silence, so far
			left = min(left, pahoTick)
		case heard < pingTrickle && left > 0 && !g.isBusy(): // else the ping may still wait behind what goes out
			g.abort(&core.Error{
				Op: "wait for hub", Kind: core.Transient, Phase: phaseMQTT,
				Err: fmt.Errorf("a ping was not answered within %v, though the hub was heard: what the device sends does not arrive", pingTimeout),
			})
			return
		default:
			g.trickle.Store(0)
			g.pinged.CompareAndSwap(int64(pinged), int64(now))
			left = min(left, pingTimeout)
		}
	}
	if left > 0 {
		g.mu.Lock()
		defer g.mu.Unlock()
		if !g.ended {
			g.watch.Reset(left)
		}
		return
	}
	g.abort(&core.Error{
		Op: "wait for hub", Kind: core.Transient, Phase: phaseMQTT,
		Err: fmt.Errorf("nothing was heard from the hub for %v, an answer to a ping included", g.idle),
	})
}

// isBusy reports whether something waits for the connection.
func (g *guard) isBusy() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.writing || len(g.wbuf) > 0
}

// notePing begins the wait for the answer to a PINGREQ.
func (g *guard) notePing() {
	if !g.pinged.CompareAndSwap(0, int64(time.Since(g.start))) {
		return
	}
	g.trickle.Store(0)
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.ended {
		g.watch.Reset(pingTimeout) // which looks at the silence too; that is due later
	}
}

// Read gives paho the bytes that the filter has passed and kept.
func (g *guard) Read(p []byte) (int, error) {
	for g.rpos == g.rend {
		n, err := g.Conn.Read(g.rbuf)
		if n > 0 {
			g.trickle.Add(int64(n))
			kept, bad := g.filter.feed(g.rbuf[:n])
			g.hear(n)
			if len(g.filter.pubacks) > 0 || g.filter.answers > 0 {
				g.filter.answers = 0
				g.pinged.Store(0)
			}
			if len(g.filter.pubacks) > 0 {
				g.acked(g.filter.pubacks)
			}
			if bad != nil {
				g.abort(bad)
				return 0, errEnded
			}
			g.rpos, g.rend = 0, kept
		} else if err != nil {
			g.abort(g.readError(err))
			return 0, errEnded
		}
	}
	n := copy(p, g.rbuf[g.rpos:g.rend])
	g.rpos += n
	return n, nil
}

// hear notes that n bytes came. Those of a packet that never ends count only if they are many.
func (g *guard) hear(n int) {
	if g.partial += n; g.partial < heardBytes && !g.filter.boundary() {
		return
	}
	g.partial = 0
	g.heard.Store(int64(time.Since(g.start)))
	g.prolong()
}

// readError says what the end of the stream means.
func (g *guard) readError(err error) error {
	e := &core.Error{Op: "read from hub", Kind: core.Transient, Phase: phaseMQTT, Err: err}
	switch {
	case errors.Is(err, io.EOF) && g.filter.boundary(), errors.Is(err, syscall.EPIPE):
		// EPIPE is how Linux tells of a reset after the hub's own end: tcp_reset in net/ipv4/tcp_input.c.
		e.Err = errHubClosed
		e.Clean = g.connacked.Load()
	case errors.Is(err, io.EOF):
		e.Err = fmt.Errorf("the connection ended inside a packet: %w", io.ErrUnexpectedEOF)
	}
	// With TLS 1.3 a server refuses the client's certificate after the handshake, in the first bytes that it sends.
	if _, ok := netdial.RemoteAlert(err); ok {
		e.Kind, e.Err = netdial.Classify(netdial.PhaseTLS, err, "", time.Time{})
	}
	return e
}

// awaitReader lets the reader say first how the connection ended: a write that fails does not tell a hub that closed it in
// good order, and whom what was written then reached, from a reset.
func (g *guard) awaitReader() {
	wait := time.NewTimer(readerAhead)
	defer wait.Stop()
	select {
	case <-g.done:
	case <-wait.C:
	}
}

// errEnded is what paho is told after the end.
var errEnded = errors.New("the session has ended")

var errHubClosed = errors.New("the hub closed the connection")

// connack is told the hub's answer to CONNECT.
func (g *guard) connack(present bool, code byte) error {
	if code != 0 {
		return connackError(code)
	}
	g.present = present
	g.connacked.Store(true)
	return nil
}

func (g *guard) subscribed(id uint16, forget bool) bool {
	g.subsMu.Lock()
	defer g.subsMu.Unlock()
	_, ok := g.subs[id]
	if forget {
		delete(g.subs, id)
	}
	return ok
}

// Write takes one whole packet. To an idle connection a small one is written at once, so that a single message pays for
// no other goroutine; otherwise the packet joins the buffer that the flusher writes.
func (g *guard) Write(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if p[0]>>4 == packetSubscribe {
		g.noteSubscribe(p)
	}
	if p[0]>>4 == packetPingreq {
		g.notePing()
	}
	g.mu.Lock()
	for !g.ended && len(g.wbuf) > 0 && len(g.wbuf)+len(p) > writeHard {
		g.room.Wait()
	}
	if g.ended {
		g.mu.Unlock()
		return 0, errEnded
	}
	if !g.writing && len(g.wbuf) == 0 && len(p) <= writeChunk {
		g.writing, g.direct, g.began = true, true, time.Now()
		g.mu.Unlock()
		err := g.push(p)
		g.wrote()
		if err != nil {
			return 0, err
		}
		return len(p), nil
	}
	g.wbuf = append(g.wbuf, p...)
	wake := !g.writing
	g.mu.Unlock()
	if wake {
		g.wake()
	}
	return len(p), nil
}

// noteSubscribe remembers a SUBSCRIBE's packet id.
func (g *guard) noteSubscribe(p []byte) {
	i := 1
	for i < len(p) && p[i]&0x80 != 0 {
		i++
	}
	if i+2 >= len(p) {
		return
	}
	id := uint16(p[i+1])<<8 | uint16(p[i+2])
	if id >= ownIDs {
		// paho counts up for as long as it lives; only days of refused subscriptions bring it here.
		g.abort(&core.Error{Op: "subscribe", Kind: core.Transient, Phase: phaseMQTT, Err: errIDsUsedUp})
		return
	}
	g.subsMu.Lock()
	defer g.subsMu.Unlock()
	g.subs[id] = struct{}{}
}

var errIDsUsedUp = errors.New("the session has used up its packet ids")

// wrote ends a turn at Conn.Write, and passes on to the flusher what came meanwhile.
func (g *guard) wrote() {
	g.mu.Lock()
	g.writing, g.direct = false, false
	waiting := len(g.wbuf) > 0
	g.room.Broadcast()
	g.mu.Unlock()
	if waiting {
		g.wake()
	}
}

func (g *guard) wake() {
	select {
	case g.kick <- struct{}{}:
	default:
	}
}

// flush is the flusher's goroutine: it writes what has gathered where nobody else does, until the end.
func (g *guard) flush() {
	for {
		select {
		case <-g.kick:
		case <-g.done:
			return
		}
		// One yield lets whoever is about to write do so.
		runtime.Gosched()
		g.send()
	}
}

// send writes what has gathered, unless somebody is writing, who then passes it on to the flusher.
func (g *guard) send() {
	for {
		g.mu.Lock()
		if g.writing || g.ended || len(g.wbuf) == 0 {
			g.mu.Unlock()
			return
		}
		out := g.wbuf
		g.wbuf, g.spare, g.writing, g.leaving, g.began = g.spare[:0], nil, true, len(out), time.Now()
		g.room.Broadcast()
		g.mu.Unlock()
		err := g.push(out)
		g.mu.Lock()
		g.writing, g.leaving = false, 0
		if cap(out) <= writeKeep {
			g.spare = out[:0]
		}
		g.room.Broadcast()
		g.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// push writes p to the connection, chunk by chunk, each with its own deadline. The caller has set writing.
func (g *guard) push(p []byte) error {
	for len(p) > 0 {
		n := min(len(p), g.chunk, g.ahead)
		began := time.Now()
		err := g.Conn.SetWriteDeadline(began.Add(writeTimeout))
		if err == nil {
			_, err = g.Conn.Write(p[:n])
		}
		if err != nil {
			if errors.Is(err, os.ErrDeadlineExceeded) {
				err = fmt.Errorf("the connection accepted no bytes for %v: %w", time.Since(began).Round(time.Second), err)
			}
			if errors.Is(err, syscall.EPIPE) {
				g.awaitReader()
			}
			g.abort(&core.Error{Op: "write to hub", Kind: core.Transient, Phase: phaseMQTT, Err: err})
			return errEnded
		}
		ahead := nextAhead(g.ahead, n, g.chunk, time.Since(began))
		if p = p[n:]; len(p) != g.leaving || ahead != g.ahead {
			g.mu.Lock()
			g.ahead, g.leaving, g.began = ahead, len(p), time.Now()
			g.room.Broadcast()
			g.mu.Unlock()
		}
	}
	return nil
}

// prolong gives a write that lasts more time, since the hub was just heard: a link that has become slow first brings what
// the kernel has in flight, and loses much of it.
func (g *guard) prolong() {
	g.mu.Lock()
	defer g.mu.Unlock() // whoever writes takes it between two chunks: the deadline is not the next one's
	if lasts := time.Since(g.began); g.writing && lasts > writeLasts && lasts < writeLimit {
		_ = g.Conn.SetWriteDeadline(time.Now().Add(min(writeTimeout, writeLimit-lasts)))
	}
}

// nextAhead learns from a write of n bytes, at most chunk, how many may wait for the next ones. One that the connection
// takes at once tells little, since the kernel has room for some; so it grows step by step, and shrinks at once.
func nextAhead(ahead, n, chunk int, took time.Duration) int {
	byPace := roomMax
	if took > 0 {
		byPace = int(min(int64(n)*int64(writeAhead)/int64(took), roomMax))
	}
	switch {
	case byPace < ahead && n >= roomMin/4:
		return max(byPace, roomMin)
	case byPace > ahead && n >= min(ahead, chunk)/2:
		return min(ahead*2, byPace)
	}
	return ahead
}

// allowed is how many bytes may wait now. A write that lasts may be the first of a link that has become slow. The caller
// holds the mutex.
func (g *guard) allowed() int {
	if g.writing && time.Since(g.began) > writeLasts {
		return roomMin
	}
	return g.ahead
}

// isFull reports whether so much waits that messages have to wait: a ping must not queue behind minutes of telemetry on a
// slow link.
func (g *guard) isFull() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.wbuf)+g.leaving >= g.allowed()
}

// hasRoom waits until it is not full, and reports whether the connection still lives.
func (g *guard) hasRoom() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	for !g.ended && len(g.wbuf)+g.leaving >= g.allowed() {
		g.room.Wait()
	}
	return !g.ended
}

// append lets add put whole packets into the buffer, messages only while there is room. They leave with the next send, or
// with what paho writes.
func (g *guard) append(add func(out []byte, room int) []byte) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.wbuf = add(g.wbuf, g.allowed())
}

// calm waits until paho's writer is at rest and there is room: paho's Subscribe gives up on a busy one, and never gives
// the packet id back that it had taken. It reports whether the connection still lives.
func (g *guard) calm() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	for !g.ended && (g.direct || len(g.wbuf)+g.leaving >= g.allowed()) {
		g.room.Wait()
	}
	return !g.ended
}

// drain waits until everything written has been handed to the connection, or the end.
func (g *guard) drain() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for !g.ended && (g.writing || len(g.wbuf) > 0) {
		g.room.Wait()
	}
}

// finish says goodbye: DISCONNECT after everything written before it, then that of TLS or of the WebSocket. The hub
// then knows that the client meant it. Whoever calls it has to abort where it takes too long.
func (g *guard) finish() {
	g.finishing.Store(true)
	if _, err := g.Write([]byte{packetDisconnect << 4, 0}); err != nil {
		return
	}
	g.drain()
	if c, ok := g.Conn.(interface{ CloseWrite() error }); ok {
		_ = c.CloseWrite()
	}
	// What the hub sent before it saw the goodbye still counts: a method call is sent once. The hub closes its side then.
	// https://docs.oasis-open.org/mqtt/mqtt/v3.1.1/os/mqtt-v3.1.1-os.html#_Toc398718090
	select {
	case <-g.done:
	case <-time.After(goodbyeTimeout):
	}
	g.abort(errSessionClosed)
}

// wait waits until the flusher has ended.
func (g *guard) wait() { g.flusher.Wait() }

// Close is called by paho where it gives the connection up.
func (g *guard) Close() error {
	g.abort(&core.Error{
		Op: "run MQTT client", Kind: core.Transient, Phase: phaseMQTT,
		Err: errors.New("the client library gave the connection up"),
	})
	return nil
}

// SetDeadline is ignored, as its two parts are: paho would take the guard's deadlines away.
func (g *guard) SetDeadline(time.Time) error { return nil }

// SetReadDeadline is ignored: the watch timer bounds silence.
func (g *guard) SetReadDeadline(time.Time) error { return nil }

// SetWriteDeadline is ignored: every write has its own.
func (g *guard) SetWriteDeadline(time.Time) error { return nil }

// contextError is the error of an operation that its context ended.
func contextError(ctx context.Context, op string) error {
	return &core.Error{Op: op, Kind: core.Transient, Phase: phaseMQTT, Err: context.Cause(ctx)}
}
