package mqtt

import (
	"fmt"
	"time"

	"github.com/fairlead-iot/fairlead/core"
)

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
		case heard < pingTrickle && left > 0:
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

// prolong gives a write that lasts more time, since the hub was just heard: a link that has become slow first brings what
// the kernel has in flight, and loses much of it.
func (g *guard) prolong() {
	g.mu.Lock()
	defer g.mu.Unlock() // whoever writes takes it between two chunks: the deadline is not the next one's
	if lasts := time.Since(g.began); g.writing && lasts > writeLasts && lasts < writeLimit {
		_ = g.Conn.SetWriteDeadline(time.Now().Add(min(writeTimeout, writeLimit-lasts)))
	}
}
