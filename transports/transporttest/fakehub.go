package transporttest

import (
	"context"
	"fmt"
	"net"
	"strings"
	"sync"

	"github.com/eclipse/paho.mqtt.golang/packets"

	"github.com/fairlead-iot/fairlead/core"
)

// FakeHub is a scripted hub that speaks MQTT over any net.Conn. It models: CONNACK, SUBACK, PUBACK, PINGRESP, twin
// answers, messages that are delivered again on the next connection until they are completed, one connection at a time,
// and a hub that is slow, silent, or gone. It does not model: TLS, tokens, what a hub makes of a message, quotas, more
// than one device. It is written on paho's packets for speed of writing; the embedded hub, which shares nothing with
// the client side, is the judge of correctness.
//
// Its methods may be called from any goroutine.
type FakeHub struct {
	mu       sync.Mutex
	changed  sync.Cond
	conns    map[*hubConn]struct{}
	held     bool
	stalled  bool
	code     byte
	refuse   bool
	present  bool
	withheld []func()
	nextID   uint16
	kept     []*packets.PublishPacket // QoS 1, not completed
	received []string
	log      []string
	done     int
	goodbyes int
	version  int64
	connects []packets.ConnectPacket
	closed   bool
	wg       sync.WaitGroup
}

// NewFakeHub returns a hub that agrees to everything.
func NewFakeHub() *FakeHub {
	h := &FakeHub{conns: make(map[*hubConn]struct{})}
	h.changed.L = &h.mu
	return h
}

// hubConn is one connection. Packets leave through a queue, so that reading never waits for writing.
type hubConn struct {
	net.Conn
	spoke bool // CONNECT came; under the hub's mu
	mu    sync.Mutex
	out   [][]byte
	wake  chan struct{}
	done  chan struct{}
	close sync.Once
}

func (c *hubConn) cut() {
	c.close.Do(func() {
		close(c.done)
		_ = c.Close()
	})
}

func (c *hubConn) send(b []byte) {
	c.mu.Lock()
	c.out = append(c.out, b)
	c.mu.Unlock()
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

func (c *hubConn) sendPacket(p packets.ControlPacket) {
	var b strings.Builder
	_ = p.Write(&b)
	c.send([]byte(b.String()))
}

// Open returns the device's end of a new connection: an opener for a transport's configuration.
func (h *FakeHub) Open(ctx context.Context, _ core.Credential) (net.Conn, error) {
	if err := ctx.Err(); err != nil {
		return nil, &core.Error{Op: "dial", Kind: core.Transient, Phase: "tcp", Err: err}
	}
	device, hub := net.Pipe()
	h.Serve(hub)
	return device, nil
}

// Serve speaks with a device on conn, in goroutines of its own, until either side closes it.
func (h *FakeHub) Serve(conn net.Conn) {
	c := &hubConn{Conn: conn, wake: make(chan struct{}, 1), done: make(chan struct{})}
	h.mu.Lock()
	defer h.mu.Unlock() // until Close can see what it has to wait for
	if h.closed {
		_ = conn.Close() // it came too late, as a dial that was given up
		return
	}
	h.conns[c] = struct{}{}
	h.wg.Go(func() {
		defer c.cut()
		for {
			select {
			case <-c.wake:
			case <-c.done:
				return
			}
			c.mu.Lock()
			out := c.out
			c.out = nil
			c.mu.Unlock()
			for _, b := range out {
				h.awaitFlow(c)
				if _, err := c.Write(b); err != nil {
					return
				}
			}
		}
	})
	h.wg.Go(func() {
		defer func() {
			c.cut()
			h.mu.Lock()
			delete(h.conns, c)
			h.changed.Broadcast()
			h.mu.Unlock()
		}()
		for {
			h.awaitFlow(c)
			p, err := packets.ReadPacket(c)
			if err != nil {
				return
			}
			if !h.handle(c, p) {
				return
			}
		}
	})
}

// awaitFlow waits while the hub is stalled.
func (h *FakeHub) awaitFlow(c *hubConn) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for h.stalled {
		if _, ok := h.conns[c]; !ok {
			return
		}
		h.changed.Wait()
	}
}

// handle answers one packet and reports whether to go on.
func (h *FakeHub) handle(c *hubConn, p packets.ControlPacket) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	defer h.changed.Broadcast()
	switch p := p.(type) {
	case *packets.ConnectPacket:
		h.connects = append(h.connects, *p)
		// One connection per identity: "the hub drops the old one", with a bare close.
		for old := range h.conns {
			if old != c && old.spoke {
				old.cut()
			}
		}
		c.spoke = true
		ack := packets.NewControlPacket(packets.Connack).(*packets.ConnackPacket)
		ack.ReturnCode, ack.SessionPresent = h.code, h.code == 0 && h.present
		c.sendPacket(ack)
		h.present = true
		for _, kept := range h.kept {
			kept.Dup = true
			c.sendPacket(kept)
		}
	case *packets.SubscribePacket:
		ack := packets.NewControlPacket(packets.Suback).(*packets.SubackPacket)
		ack.MessageID = p.MessageID
		ack.ReturnCodes = []byte{1}
		if h.refuse {
			ack.ReturnCodes = []byte{0x80}
		}
		h.log = append(h.log, "subscribe "+strings.Join(p.Topics, " "))
		c.sendPacket(ack)
	case *packets.PublishPacket:
		ack := packets.NewControlPacket(packets.Puback).(*packets.PubackPacket)
		ack.MessageID = p.MessageID
		answer := func() {
			if p.Qos > 0 {
				c.sendPacket(ack)
			}
		}
		if h.held {
			h.withheld = append(h.withheld, answer)
		} else {
			answer()
		}
		h.publish(c, p)
	case *packets.PubackPacket:
		for i, kept := range h.kept {
			if kept.MessageID == p.MessageID {
				h.kept = append(h.kept[:i:i], h.kept[i+1:]...)
				h.done++
				h.log = append(h.log, fmt.Sprintf("complete %s", kept.Payload))
				break
			}
		}
	case *packets.PingreqPacket:
		c.sendPacket(packets.NewControlPacket(packets.Pingresp))
	case *packets.DisconnectPacket:
		h.goodbyes++
		return false
	}
	return true
}

// publish does what the topic says. The caller holds mu.
func (h *FakeHub) publish(c *hubConn, p *packets.PublishPacket) {
	reply := func(status int, extra, body string) {
		_, rid, _ := strings.Cut(p.TopicName, "$rid=")
		c.sendPacket(publishPacket(fmt.Sprintf("$iothub/twin/res/%d/?$rid=%s%s", status, rid, extra), []byte(body)))
	}
	switch {
	case strings.Contains(p.TopicName, "/messages/events/"):
		h.received = append(h.received, string(p.Payload))
	case strings.HasPrefix(p.TopicName, "$iothub/twin/GET/"):
		reply(200, "", `{"desired":{"$version":1},"reported":{"$version":1}}`)
	case strings.HasPrefix(p.TopicName, "$iothub/twin/PATCH/properties/reported/"):
		reply(204, "&$version=7", "")
	default:
		h.log = append(h.log, "publish "+p.TopicName+" "+string(p.Payload))
	}
}

func publishPacket(topic string, payload []byte) *packets.PublishPacket {
	p := packets.NewControlPacket(packets.Publish).(*packets.PublishPacket)
	p.TopicName, p.Payload = topic, payload
	return p
}

// Push sends a PUBLISH to every connection. With QoS 1 it is sent again on each new one until it is acknowledged.
func (h *FakeHub) Push(topic, payload string, qos byte) {
	h.mu.Lock()
	defer h.mu.Unlock()
	p := publishPacket(topic, []byte(payload))
	p.Qos = qos
	if qos > 0 {
		h.nextID++
		p.MessageID = h.nextID
		h.kept = append(h.kept, p)
	}
	for c := range h.conns {
		c.sendPacket(p)
	}
}

// PushRaw sends bytes to every connection as they are.
func (h *FakeHub) PushRaw(b []byte) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for c := range h.conns {
		c.send(b)
	}
}

// HoldAcks makes the hub keep its PUBACKs back; switching that off sends them.
func (h *FakeHub) HoldAcks(on bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.held = on
	if !on {
		for _, answer := range h.withheld {
			answer()
		}
		h.withheld = nil
	}
}

// Stall makes the hub neither read nor write, until it is switched off.
func (h *FakeHub) Stall(on bool) { h.set(func() { h.stalled = on }) }

// RefuseSubscriptions makes the hub answer 0x80 to every SUBSCRIBE.
func (h *FakeHub) RefuseSubscriptions(on bool) { h.set(func() { h.refuse = on }) }

// Answer sets the code of the next CONNACKs.
func (h *FakeHub) Answer(code byte) { h.set(func() { h.code = code }) }

func (h *FakeHub) set(f func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	f()
	h.changed.Broadcast()
}

// Drop cuts every connection.
func (h *FakeHub) Drop() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for c := range h.conns {
		c.cut()
		delete(h.conns, c)
	}
	h.withheld = nil
	h.changed.Broadcast()
}

// Close drops everything and waits until the hub's goroutines have ended.
func (h *FakeHub) Close() {
	h.mu.Lock()
	h.closed = true
	h.mu.Unlock()
	h.Stall(false)
	h.Drop()
	h.wg.Wait()
}

// Received returns the payloads of the telemetry that came, in the order of arrival.
func (h *FakeHub) Received() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return append([]string(nil), h.received...)
}

// Log returns what else came: subscriptions, completed messages, method responses.
func (h *FakeHub) Log() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return append([]string(nil), h.log...)
}

// Connects returns the CONNECT packets that came.
func (h *FakeHub) Connects() []packets.ConnectPacket {
	h.mu.Lock()
	defer h.mu.Unlock()
	return append([]packets.ConnectPacket(nil), h.connects...)
}

// Completed counts the messages that the device has completed.
func (h *FakeHub) Completed() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.done
}

// Goodbyes counts the DISCONNECTs.
func (h *FakeHub) Goodbyes() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.goodbyes
}

// Connections counts the open connections.
func (h *FakeHub) Connections() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.conns)
}

// PushMessage sends a cloud-to-device message to the device that connected last.
func (h *FakeHub) PushMessage(payload string) {
	h.mu.Lock()
	device := ""
	if n := len(h.connects); n > 0 {
		device = h.connects[n-1].ClientIdentifier
	}
	h.mu.Unlock()
	h.Push("devices/"+device+"/messages/devicebound/", payload, 1)
}

// PushDesired sends a patch of the desired properties, with the next version.
func (h *FakeHub) PushDesired() {
	h.mu.Lock()
	h.version++
	version := h.version
	h.mu.Unlock()
	h.Push(fmt.Sprintf("$iothub/twin/PATCH/properties/desired/?$version=%d", version), fmt.Sprintf(`{"$version":%d}`, version), 0)
}
