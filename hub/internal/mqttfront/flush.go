package mqttfront

import (
	"errors"
	"fmt"
	"runtime"
	"time"

	"github.com/fairlead-iot/fairlead/hub/api"
	"github.com/fairlead-iot/fairlead/hub/internal/iot"
	"github.com/fairlead-iot/fairlead/hub/internal/mqttwire"
	"github.com/fairlead-iot/fairlead/hub/internal/msglog"
)

// pending is what waits for the flusher.
type pending struct {
	out     []byte // packets, whole
	records []msglog.Record
	acks    []ack
	arena   []byte // holds the records' bytes
}

// ack is a PUBACK that is owed, in the order of the PUBLISH packets,
// [MQTT-4.6.0-2].
type ack struct {
	id        uint16
	telemetry bool // it may leave only after the records of its batch are kept
}

func (p *pending) empty() bool { return len(p.out)+len(p.records)+len(p.acks) == 0 }

func (p *pending) reset() {
	clear(p.records) // do not keep old arenas alive
	p.out, p.records, p.acks, p.arena = p.out[:0], p.records[:0], p.acks[:0], p.arena[:0]
	if cap(p.out) > 2*maxBuffer {
		p.out = nil
	}
	if cap(p.arena) > 2*maxBuffer {
		p.arena = nil
	}
}

// send queues packets that add appends.
func (c *conn) send(add func([]byte) []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closing || c.gone || c.silent {
		return
	}
	c.pending.out = add(c.pending.out)
	if len(c.pending.out) > outLimit {
		c.drop("the client does not read: too much waits for it")
		return
	}
	c.work.Broadcast()
}

func (c *conn) publish(topic string, payload []byte, qos byte, again bool, id uint16) {
	c.send(func(out []byte) []byte { return mqttwire.AppendPublish(out, topic, payload, qos, again, id) })
}

// queueTelemetry hands a message to the flusher. The frame belongs to the
// reader, so its bytes are copied.
func (c *conn) queueTelemetry(bag []byte, p mqttwire.Packet, acknowledge bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.silent {
		return
	}
	from := len(c.pending.arena)
	c.pending.arena = append(append(c.pending.arena, bag...), p.Payload...)
	bytes := c.pending.arena[from:len(c.pending.arena):len(c.pending.arena)]
	r := msglog.Record{Bag: bytes[:len(bag):len(bag)], Body: bytes[len(bag):]}
	if p.Retain {
		r.Flags = msglog.Retained
	}
	c.pending.records = append(c.pending.records, r)
	if acknowledge {
		c.pending.acks = append(c.pending.acks, ack{p.ID, true})
	}
	c.work.Broadcast()
}

func (c *conn) queueAck(id uint16) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pending.acks = append(c.pending.acks, ack{id, false})
	c.work.Broadcast()
}

// waitForRoom holds the reader while too much telemetry waits for the log.
func (c *conn) waitForRoom() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(c.pending.arena) > batchLimit && !c.gone && !c.closing {
		c.work.Wait()
	}
	if c.gone || c.closing {
		return errGone
	}
	return nil
}

// flush keeps telemetry and writes packets until the connection ends.
func (c *conn) flush() {
	var packets []byte
	for {
		c.mu.Lock()
		for c.pending.empty() && !c.closing && !c.gone {
			c.work.Wait()
		}
		if c.pending.empty() {
			c.mu.Unlock()
			return
		}
		c.mu.Unlock()
		// Let the reader add what it has in hand: larger batches, fewer writes.
		runtime.Gosched()
		c.mu.Lock()
		batch := c.pending
		c.pending, c.spare = c.spare, pending{}
		c.work.Broadcast() // room for the reader
		c.mu.Unlock()

		packets = append(packets[:0], batch.out...)
		if err := c.keep(batch.records); err != nil {
			c.Drop(fmt.Sprintf("telemetry could not be kept: %v", err))
		} else {
			acked := 0
			packets, acked = c.appendAcks(packets, batch.acks)
			if c.write(packets) && acked > 0 {
				c.sess.Acked(acked)
			}
		}
		if cap(packets) > 2*maxBuffer {
			packets = nil
		}
		batch.reset()
		c.mu.Lock()
		c.spare = batch
		c.mu.Unlock()
	}
}

// keep appends to the message log before any PUBACK leaves. It does so even if
// the connection is gone: the bytes had arrived.
func (c *conn) keep(records []msglog.Record) error {
	if len(records) == 0 {
		return nil
	}
	return c.sess.Telemetry(records)
}

// appendAcks adds the PUBACKs that no fault withholds or delays.
func (c *conn) appendAcks(dst []byte, acks []ack) ([]byte, int) {
	acked := 0
	for _, a := range acks {
		if a.telemetry {
			if _, hit := c.f.svc.Strike(api.FaultWithholdPuback, c.id); hit {
				continue
			}
			if fault, hit := c.f.svc.Strike(api.FaultDelayPuback, c.id); hit {
				c.later(time.Duration(fault.Delay), a.id)
				continue
			}
			acked++
		}
		dst = mqttwire.AppendPuback(dst, a.id)
	}
	return dst, acked
}

func (c *conn) later(d time.Duration, id uint16) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closing || c.gone {
		return
	}
	c.timers = append(c.timers, time.AfterFunc(d, func() {
		c.send(func(out []byte) []byte { return mqttwire.AppendPuback(out, id) })
		c.sess.Acked(1)
	}))
}

// write sends packets in one write; false when they did not leave.
func (c *conn) write(packets []byte) bool {
	if len(packets) == 0 {
		return true
	}
	c.mu.Lock()
	mute := c.gone || c.silent
	c.mu.Unlock()
	if mute {
		return false
	}
	err := c.nc.SetWriteDeadline(time.Now().Add(writeWithin))
	if err == nil {
		_, err = c.nc.Write(packets)
	}
	if err != nil {
		c.Drop(fmt.Sprintf("write: %v", err))
		return false
	}
	return true
}

// sendWill publishes the will of a connection that ended without DISCONNECT.
func (c *conn) sendWill() {
	w := c.will
	if w == nil {
		return
	}
	bag, _ := c.bagOf(w.Topic)
	flags := msglog.WillSent
	if w.Retain {
		flags |= msglog.Retained
	}
	err := c.sess.Telemetry([]msglog.Record{{Flags: flags, Bag: []byte(bag), Body: w.Payload}})
	if err != nil && !errors.Is(err, msglog.ErrClosed) {
		c.f.log.Error("keep will", "device", c.id.String(), "err", err)
	}
}

// Drop closes the connection without a word.
func (c *conn) Drop(reason string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.drop(reason)
}

// drop is Drop with mu held.
func (c *conn) drop(reason string) {
	if c.reason == "" {
		c.reason = reason
	}
	if c.gone {
		return
	}
	c.gone = true
	bareClose(c.nc)
	c.work.Broadcast()
}

// Silence leaves the connection open and neither reads nor writes it.
func (c *conn) Silence(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.silent, c.reason = true, "fault: cut by black hole"
	_ = c.nc.SetReadDeadline(time.Time{}) // not even the keep-alive ends it; a closed socket is fine
	if d > 0 {
		c.timers = append(c.timers, time.AfterFunc(d, func() { c.Drop("") }))
	}
}

// Method sends a direct method call, QoS 0.
func (c *conn) Method(rid, name string, payload []byte) {
	c.publish(methodTopic(rid, name), payload, 0, false, 0)
}

// Desired sends a desired-property patch, QoS 0: the hub does not repeat it.
func (c *conn) Desired(version int64, patch []byte) {
	c.publish(fmt.Sprintf("$iothub/twin/PATCH/properties/desired/?$version=%d", version), patch, 0, false, 0)
}

// Deliver sends a cloud-to-device message.
func (c *conn) Deliver(d *iot.Delivery, id uint16, again bool) {
	c.publish(deviceboundTopic(d), d.Message.Body, d.QoS, again, id)
}
