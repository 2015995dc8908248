// Package load makes the load of the benchmarks: the same generator in the plugin and in its peer, so that what differs is
// how a message reaches the hub and nothing else.
//
// # Usage
//
//	err := load.Serve(ctx, socket, load.Sender{Send: func(ctx context.Context, m *load.Message, done func(error)) error { … }})
//
// Serve dials the benchmark's unix socket, says that it is ready, and carries out one Job after the other.
//
// # Concurrency
//
// Jobs run one at a time. Send is called from one goroutine and its done may be called from any; SendBatch is called from
// several.
//
// # Expected behaviour of the other side
//
// JSON values one after the other: a Hello up, then for each Job down a Result up. The end of the connection ends Serve.
//
// # Debugging
//
// A Result carries the first error of a Send.
//
// # Testing
//
// Job.Null sends into nothing: what that costs is the generator's own.
package load

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

// The properties of every message, beside its id.
const (
	ContentType     = "application/json"
	ContentEncoding = "utf-8"
	PropertyName    = "line"
	PropertyValue   = "4"
)

// Message is one message of telemetry. Who sends it adds the properties above. The payload is shared by all messages of a
// job.
type Message struct {
	ID      string
	Payload []byte
}

// Sender is a client of the hub.
type Sender struct {
	// Send begins to send a message; done is told, once, when the hub has acknowledged it. It may block while the client
	// takes no more. After an error done is not called.
	Send func(ctx context.Context, m *Message, done func(error)) error
	// SendBatch sends messages and returns when the hub has acknowledged all; nil if the client has nothing like it.
	SendBatch func(ctx context.Context, ms []*Message) error
	// AtOnce says whether each message is to leave at once, or may wait for others; nil if the client knows no such thing.
	AtOnce func(bool)
}

// Hello is said once the sender is connected to the hub.
type Hello struct {
	PID int `json:"pid"`
}

// Job says what to send.
type Job struct {
	// Count messages of Size bytes each, at most Window of them unacknowledged.
	Count  int `json:"count"`
	Size   int `json:"size"`
	Window int `json:"window"`
	// Rate is in messages per second; 0 is as fast as the window lets them go. Bunch of them leave together, then there is
	// a pause; 0 is 1.
	Rate  int `json:"rate,omitempty"`
	Bunch int `json:"bunch,omitempty"`
	// Batch sends by SendBatch, so many at once, from as many goroutines as fill the window. Rate does not apply.
	Batch int `json:"batch,omitempty"`
	// AtOnce has each message leave at once.
	AtOnce bool `json:"at_once,omitempty"`
	// Null sends into nothing.
	Null bool `json:"null,omitempty"`
	// Profile writes the job's CPU profile to a file. Only with the build tag profile.
	Profile string `json:"profile,omitempty"`
}

// Result says what became of a job.
type Result struct {
	// Seconds from the first Send to the last acknowledgement.
	Seconds float64 `json:"seconds"`
	Error   string  `json:"error,omitempty"`
}

// Serve carries out the jobs that come over the unix socket until its other end closes it (nil) or ctx ends.
func Serve(ctx context.Context, socket string, s Sender) error {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "unix", socket)
	if err != nil {
		return fmt.Errorf("dial benchmark: %w", err)
	}
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	defer conn.Close() //nolint:errcheck // nothing of it is kept
	in, out := json.NewDecoder(conn), json.NewEncoder(conn)
	if err := out.Encode(Hello{PID: os.Getpid()}); err != nil {
		return fmt.Errorf("greet benchmark: %w", err)
	}
	for {
		var j Job
		if err := in.Decode(&j); errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) {
			return nil
		} else if err != nil {
			return fmt.Errorf("read job: %w", err)
		}
		var r Result
		if took, err := j.run(ctx, s); err != nil {
			r.Error = err.Error()
		} else {
			r.Seconds = took.Seconds()
		}
		if err := out.Encode(r); err != nil {
			return fmt.Errorf("write result: %w", err)
		}
	}
}

// run carries out a job and returns the time from its first message to its last acknowledgement.
func (j Job) run(ctx context.Context, s Sender) (time.Duration, error) {
	if j.Null {
		s.Send = func(_ context.Context, _ *Message, done func(error)) error { done(nil); return nil }
	}
	if s.AtOnce != nil {
		s.AtOnce(j.AtOnce)
	}
	if j.Profile != "" {
		stop, err := profile(j.Profile)
		if err != nil {
			return 0, err
		}
		defer stop()
	}
	payload := make([]byte, j.Size)
	for i := range payload {
		payload[i] = byte('a' + i%26)
	}
	prefix := "bench-" + strconv.FormatInt(time.Now().UnixNano(), 36) + "-"
	message := func(i int) *Message { return &Message{ID: prefix + strconv.Itoa(i), Payload: payload} }
	began := time.Now()
	var err error
	if j.Batch > 0 {
		err = j.batches(ctx, s, message)
	} else {
		err = j.stream(ctx, s, began, message)
	}
	return time.Since(began), err
}

// stream sends one message after the other, as many as the window holds.
func (j Job) stream(ctx context.Context, s Sender, began time.Time, message func(int) *Message) error {
	var (
		window  = make(chan struct{}, max(j.Window, 1))
		bunch   = max(j.Bunch, 1)
		once    sync.Once
		failure error
		failed  = make(chan struct{})
	)
	done := func(err error) {
		if err != nil {
			once.Do(func() { failure = err; close(failed) })
		}
		<-window
	}
	for i := range j.Count {
		if j.Rate > 0 && i%bunch == 0 {
			time.Sleep(time.Until(began.Add(time.Duration(i) * time.Second / time.Duration(j.Rate))))
		}
		select {
		case window <- struct{}{}:
		case <-failed:
			return failure
		}
		if err := s.Send(ctx, message(i), done); err != nil {
			return fmt.Errorf("send message %d: %w", i, err)
		}
	}
	for range cap(window) { // full again when nothing is open
		window <- struct{}{}
	}
	select {
	case <-failed:
		return failure
	default:
		return nil
	}
}

// batches sends batches from several goroutines, which together fill the window.
func (j Job) batches(ctx context.Context, s Sender, message func(int) *Message) error {
	if s.SendBatch == nil {
		return errors.New("this client has no batches")
	}
	var next atomic.Int64
	errs := make([]error, max(j.Window/j.Batch, 1))
	var workers sync.WaitGroup
	for w := range errs {
		workers.Go(func() {
			for errs[w] == nil {
				from := int(next.Add(int64(j.Batch))) - j.Batch
				if from >= j.Count {
					return
				}
				ms := make([]*Message, min(j.Batch, j.Count-from))
				for i := range ms {
					ms[i] = message(from + i)
				}
				errs[w] = s.SendBatch(ctx, ms)
			}
		})
	}
	workers.Wait()
	return errors.Join(errs...)
}
