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

// ack is a PUBACK that is owed, in the order of the PUBLISH packets,
// [MQTT-4.6.0-2].
type ack struct {
	id        uint16
	telemetry bool // it may leave only after the records of its batch are kept
}

// send queues packets that add appends; acked of them are PUBACKs of telemetry.
// It never waits: a hub that stopped reading while its writes block, before a
// client that does the same, would wait for ever. What is queued has a bound.
func (c *conn) send(acked int, add func([]byte) []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closing || c.gone || c.silent {
		return
	}
	c.out = add(c.out)
	c.acked += acked
	if len(c.out) > outLimit {
		c.drop("the client does not read: too much waits for it")
		return
	}
	if !c.flushing && len(c.out) > 0 {
		c.flushing = true
		go c.flush()
	}
}

func (c *conn) publish(topic string, payload []byte, qos byte, again bool, id uint16) {
	c.send(0, func(out []byte) []byte { return mqttwire.AppendPublish(out, topic, payload, qos, again, id) })
}

// queueTelemetry takes a message. Its bytes belong to the reading buffer, which
// stays as it is until keep.
func (c *conn) queueTelemetry(bag []byte, p mqttwire.Packet, acknowledge bool) {
	r := msglog.Record{Bag: bag, Body: p.Payload}
	if p.Retain {
		r.Flags = msglog.Retained
	}
	c.records = append(c.records, r)
	if acknowledge {
		c.acks = append(c.acks, ack{p.ID, true})
	}
}

// keep appends what one read brought to the message log, then queues the PUBACKs
// for it. It does the former even if the connection is gone: the bytes had
// arrived.
func (c *conn) keep() error {
	defer func() { c.records, c.acks = c.records[:0], c.acks[:0] }()
	if len(c.records) > 0 {
		if err := c.sess.Telemetry(c.records); err != nil {
			if !errors.Is(err, msglog.ErrClosed) {
				c.f.log.Error("keep telemetry", "device", c.id.String(), "err", err)
			}
			return c.giveUp("telemetry could not be kept")
		}
	}
	if len(c.acks) > 0 {
		due, acked := c.dueAcks()
		c.send(acked, func(out []byte) []byte {
			for _, a := range due {
				out = mqttwire.AppendPuback(out, a.id)
			}
			return out
		})
	}
	return nil
}

// dueAcks leaves out the PUBACKs that a fault withholds or delays, and counts
// those of telemetry.
func (c *conn) dueAcks() (due []ack, acked int) {
	due = c.acks[:0]
	for _, a := range c.acks {
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
		due = append(due, a)
	}
	return due, acked
}

func (c *conn) later(d time.Duration, id uint16) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closing || c.gone {
		return
	}
	c.timers = append(c.timers, time.AfterFunc(d, func() {
		c.send(1, func(out []byte) []byte { return mqttwire.AppendPuback(out, id) })
	}))
}

// flush writes packets until none is left; send begins it again. A connection at
// rest has no flusher: its stack would be a good part of what the connection costs.
func (c *conn) flush() {
	for {
		// Let others add what they have in hand: larger batches, fewer writes.
		runtime.Gosched()
		c.mu.Lock()
		batch, acked := c.out, c.acked
		if len(batch) == 0 || c.gone {
			c.flushing = false
			if cap(c.spare) > minBuffer {
				c.spare = nil
			}
			c.done.Signal()
			c.mu.Unlock()
			return
		}
		c.out, c.acked, c.spare = c.spare[:0], 0, nil
		c.mu.Unlock()
		if c.write(batch) && acked > 0 {
			c.sess.Acked(acked)
		}
		if cap(batch) <= 2*maxBuffer {
			c.mu.Lock()
			c.spare = batch
			c.mu.Unlock()
		}
	}
}

// flushed waits until what was sent has been written, or given up.
func (c *conn) flushed() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.flushing {
		c.done.Wait()
	}
}

// write sends packets; false when they did not leave. A client that reads, however
// slowly, gets all of them: the time is for each chunk.
func (c *conn) write(packets []byte) bool {
	for len(packets) > 0 {
		c.mu.Lock()
		mute := c.gone || c.silent
		c.mu.Unlock()
		if mute {
			return false
		}
		chunk := packets[:min(len(packets), maxBuffer)]
		err := c.nc.SetWriteDeadline(time.Now().Add(writeWithin))
		if err == nil {
			_, err = c.nc.Write(chunk)
		}
		if err != nil {
			c.Drop(fmt.Sprintf("write: %v", err))
			return false
		}
		packets = packets[len(chunk):]
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
	if c.wake != nil {
		close(c.wake)
		c.wake = nil
	}
}

// slowDown waits before a read, where a fault says so.
func (c *conn) slowDown() error {
	if c.sess == nil {
		return nil
	}
	fault, hit := c.f.svc.Strike(api.FaultSlowReads, c.id)
	if !hit {
		return nil
	}
	c.mu.Lock()
	if c.gone {
		c.mu.Unlock()
		return errGone
	}
	wake := make(chan struct{})
	c.wake = wake
	c.mu.Unlock()
	timer := time.NewTimer(time.Duration(fault.Delay))
	defer timer.Stop()
	select {
	case <-wake:
		return errGone
	case <-timer.C:
	}
	c.mu.Lock()
	c.wake = nil
	c.mu.Unlock()
	return c.extend() // the device is not to blame
}

// Silence leaves the connection open and neither reads nor writes it, for that long, or for ever if d is 0.
func (c *conn) Silence(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.silent, c.reason = true, "fault: cut by black hole"
	_ = c.nc.SetReadDeadline(time.Time{}) // not even the keep-alive ends it; a closed socket is fine
	if d > 0 {
		c.timers = append(c.timers, time.AfterFunc(d, func() { c.Drop("") }))
	}
}

// Accept sends CONNACK. It is called within Attach, so by the reader.
func (c *conn) Accept(present bool) {
	c.present = present
	c.send(0, func(out []byte) []byte { return mqttwire.AppendConnack(out, present, 0) })
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
