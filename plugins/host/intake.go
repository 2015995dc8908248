package host

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/fairlead-iot/fairlead/core"
	"github.com/fairlead-iot/fairlead/plugins/internal/wire"
	"github.com/fairlead-iot/fairlead/plugins/pluginv1"
)

// intake takes a plugin's messages and hands them to the device in order. What it holds is bounded by the credit that is
// out: the plugin gets a message's credit back when the outbox has taken the message. So a full outbox, which lets
// Submit wait, stops the plugin and nothing else.
type intake struct {
	dev    core.Device
	by     core.Settler
	credit func(messages, bytes uint64) // grants credit; does not block

	mu        sync.Mutex
	next      uint64 // the tag that the next message must have
	messages  uint64 // credit that is out
	bytes     uint64
	queue     []run
	handed    uint64              // tags below it have been submitted, or are being
	taken     uint64              // tags below it have been submitted
	withdrawn map[uint64]struct{} // of tags not below taken
	interrupt context.CancelCauseFunc
	wake      chan struct{}
}

// run is messages with tags first, first+1, ….
type run struct {
	first    uint64
	messages []*core.Message
	bytes    uint64
}

var (
	errOverstepped = errors.New("it sent more messages than it had credit for")
	errFrame       = errors.New("it sent a frame of several messages of more than 1 MiB")
	errTags        = errors.New("its messages are not numbered in order")
	errWithdrawn   = fmt.Errorf("withdrawn: %w; it was not sent", core.ErrCancelled)
)

func newIntake(dev core.Device, by core.Settler, credit func(messages, bytes uint64)) *intake {
	return &intake{
		dev: dev, by: by, credit: credit, next: 1, handed: 1, taken: 1,
		withdrawn: make(map[uint64]struct{}), wake: make(chan struct{}, 1),
	}
}

// open grants the first credit.
func (in *intake) open() {
	in.mu.Lock()
	in.messages, in.bytes = wire.WindowMessages, wire.WindowBytes
	in.mu.Unlock()
	in.credit(wire.WindowMessages, wire.WindowBytes)
}

// take queues a frame of messages; it does not block. An error means that the plugin broke the protocol.
func (in *intake) take(f *pluginv1.Messages) error {
	if len(f.GetMessages()) == 0 {
		return nil
	}
	r := run{first: f.GetFirst(), messages: make([]*core.Message, len(f.GetMessages()))}
	for i, m := range f.GetMessages() {
		r.messages[i] = wire.ToMessage(m)
		// Only inward, and not counted as credit: they must not be a way around it.
		r.messages[i].Input, r.messages[i].To, r.messages[i].Ack = "", "", ""
		r.bytes += uint64(r.messages[i].Size())
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	n := uint64(len(r.messages))
	if r.first != in.next {
		return errTags
	}
	if n > 1 && r.bytes > wire.MaxFrame {
		return errFrame
	}
	if n > in.messages || r.bytes > in.bytes {
		return errOverstepped
	}
	in.next += n
	in.messages -= n
	in.bytes -= r.bytes
	in.queue = append(in.queue, r)
	select {
	case in.wake <- struct{}{}:
	default:
	}
	return nil
}

// withdraw gives up one message.
func (in *intake) withdraw(tag uint64) {
	in.mu.Lock()
	if tag == 0 || tag >= in.next {
		in.mu.Unlock()
		return
	}
	if tag < in.taken {
		in.mu.Unlock()
		in.dev.Withdraw(in.by, tag)
		return
	}
	_, again := in.withdrawn[tag]
	in.withdrawn[tag] = struct{}{}
	submitting := tag < in.handed
	if submitting && in.interrupt != nil {
		// Submit is waiting with it: it is taken out of the batch, if Submit has not got through.
		in.interrupt(errWithdrawn)
	}
	in.mu.Unlock()
	if !submitting && !again {
		in.by.Settled(tag, tag, errWithdrawn)
	}
}

// run submits until ctx ends.
func (in *intake) run(ctx context.Context) {
	for ctx.Err() == nil {
		in.mu.Lock()
		queue := in.queue
		in.queue = nil
		in.mu.Unlock()
		for _, r := range queue {
			in.submitRun(ctx, r)
			if ctx.Err() != nil {
				return
			}
			in.mu.Lock()
			in.messages += uint64(len(r.messages))
			in.bytes += r.bytes
			in.mu.Unlock()
			in.credit(uint64(len(r.messages)), r.bytes)
		}
		if len(queue) > 0 {
			continue
		}
		select {
		case <-in.wake:
		case <-ctx.Done():
		}
	}
}

// submitRun submits what may be submitted of r: each unbroken stretch of good messages at once. The others are settled
// one by one.
func (in *intake) submitRun(ctx context.Context, r run) {
	for len(r.messages) > 0 && ctx.Err() == nil {
		n := 0
		var bad error
		for n < len(r.messages) && bad == nil {
			if bad = r.messages[n].Check(); bad == nil {
				n++
			}
		}
		if n > 0 {
			in.submit(ctx, r.first, r.messages[:n])
			r.first += uint64(n)
			r.messages = r.messages[n:]
		}
		if bad != nil {
			in.mu.Lock()
			_, gone := in.withdrawn[r.first]
			in.pass(r.first + 1)
			in.mu.Unlock()
			if !gone {
				in.by.Settled(r.first, r.first, bad)
			}
			r.first++
			r.messages = r.messages[1:]
		}
	}
}

// pass notes that the tags below upto are out of the intake's hands; in.mu is held.
func (in *intake) pass(upto uint64) {
	for tag := range in.withdrawn {
		if tag < upto {
			delete(in.withdrawn, tag)
		}
	}
	in.handed, in.taken = max(in.handed, upto), max(in.taken, upto)
}

// submit submits good messages, leaving out those that are withdrawn, until the device has taken or refused them.
func (in *intake) submit(ctx context.Context, first uint64, ms []*core.Message) {
	for len(ms) > 0 && ctx.Err() == nil {
		sctx, interrupt := context.WithCancelCause(ctx)
		in.mu.Lock()
		n := 0
		for n < len(ms) && !in.isWithdrawn(first+uint64(n)) {
			n++
		}
		if n == 0 { // it was settled when it was withdrawn
			in.pass(first + 1)
			in.mu.Unlock()
			interrupt(nil)
			first, ms = first+1, ms[1:]
			continue
		}
		in.handed, in.interrupt = first+uint64(n), interrupt
		in.mu.Unlock()

		err := in.dev.Submit(sctx, in.by, first, ms[:n])

		in.mu.Lock()
		in.interrupt = nil
		late := in.withdrawnIn(first, first+uint64(n))
		if err != nil && len(late) > 0 && errors.Is(context.Cause(sctx), errWithdrawn) {
			// None of it was taken: once more, without those.
			in.handed = first
			in.mu.Unlock()
			interrupt(nil)
			for _, tag := range late {
				in.by.Settled(tag, tag, errWithdrawn)
			}
			continue
		}
		in.pass(first + uint64(n))
		in.mu.Unlock()
		interrupt(nil)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			in.by.Settled(first, first+uint64(n)-1, err)
		} else {
			for _, tag := range late {
				in.dev.Withdraw(in.by, tag)
			}
		}
		first, ms = first+uint64(n), ms[n:]
	}
}

func (in *intake) isWithdrawn(tag uint64) bool {
	if len(in.withdrawn) == 0 {
		return false
	}
	_, ok := in.withdrawn[tag]
	return ok
}

// withdrawnIn returns the withdrawn tags in [from, to), in no order; in.mu is held.
func (in *intake) withdrawnIn(from, to uint64) []uint64 {
	var tags []uint64
	for tag := range in.withdrawn {
		if tag >= from && tag < to {
			tags = append(tags, tag)
		}
	}
	return tags
}
