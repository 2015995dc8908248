// Package plugin sends figures of this machine: the load of its cores, memory, disks, network, and temperatures where it
// has sensors.
//
// Settings: {"interval": "60s", "disks": ["/"]}.
//
// Desired properties: {"hostmetrics": {"interval": "5s", "select": ["cpu", "memory"]}}. What is in force is reported as
// {"hostmetrics": {"interval": "5s", "select": [...], "version": 7}}; a value that cannot be applied is left out of it and
// stands in its list "refused" with the reason.
//
// Methods: ping answers; snapshot returns the figures of this moment; record with {"samples": 10, "interval": "1s",
// "name": "figures.jsonl"}, all of them optional, answers 202 and uploads that many snapshots as a file while it takes
// them, and reports {"hostmetrics": {"upload": {"name": "figures.jsonl", "state": "uploading", "percent": 40}}}. A
// cloud-to-device message with the property command=snapshot has a telemetry message sent at once; others are logged.
package plugin

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/fairlead-iot/fairlead/plugins/sdk"
)

// Settings is the plugin's part of the configuration.
type Settings struct {
	Interval sdk.Duration `json:"interval"`
	Disks    []string     `json:"disks"`
}

// Validate refuses what cannot work.
func (s *Settings) Validate() error {
	if len(s.Disks) == 0 {
		return errors.New("disks: name at least one path")
	}
	if err := checkInterval(s.Interval); err != nil {
		return fmt.Errorf("interval: %w", err)
	}
	return nil
}

// metrics is one plugin.
type metrics struct {
	settings  Settings
	collector collector
	ready     chan struct{} // closed when dev is set
	dev       *sdk.Device
	now       chan struct{} // asks the loop for a message now
	changed   chan struct{} // tells the loop of a new interval or selection
	// recordings are those to be made: one may wait for the one before.
	recordings chan recording

	mu      sync.Mutex
	desired desired
	applied applied
}

// New returns the plugin.
func New() *sdk.Plugin {
	m := &metrics{
		settings: Settings{Interval: sdk.Duration(time.Minute), Disks: []string{"/"}},
		ready:    make(chan struct{}), now: make(chan struct{}, 1), changed: make(chan struct{}, 1), recordings: make(chan recording, 1),
	}
	p := sdk.New(twinKey)
	p.Settings(&m.settings)
	p.HandleMethod("ping", m.ping)
	p.HandleMethod("snapshot", m.snapshot)
	p.HandleMethod("record", m.record)
	p.HandleMessages(m.message)
	p.HandleDesired(m.handleDesired)
	p.Run(m.loop)
	return p
}

func (m *metrics) ping(context.Context, *sdk.MethodRequest) (any, error) {
	return map[string]any{"pong": true, "time": time.Now().UTC()}, nil
}

func (m *metrics) snapshot(ctx context.Context, _ *sdk.MethodRequest) (any, error) {
	if err := m.wait(ctx); err != nil {
		return nil, err
	}
	return m.collector.take(ctx, m.current().Select)
}

func (m *metrics) message(ctx context.Context, msg *sdk.Message) error {
	if err := m.wait(ctx); err != nil {
		return err
	}
	m.dev.Log().Info("message from the hub", "message_id", msg.ID, "command", msg.Properties["command"], "bytes", len(msg.Payload))
	if msg.Properties["command"] == "snapshot" {
		poke(m.now)
	}
	return nil
}

// handleDesired applies a state of the desired properties and reports what is in force.
func (m *metrics) handleDesired(ctx context.Context, d *sdk.Desired) error {
	if err := m.wait(ctx); err != nil {
		return err
	}
	document, whole := d.Document, d.Document != nil
	if !whole {
		document = d.Patch
	}
	got, refused := section(document)
	m.mu.Lock()
	if whole {
		m.desired = got
	} else {
		m.desired = m.desired.merge(got)
	}
	a := m.desired.apply(m.settings, d.Version, refused)
	changed := a.Interval != m.applied.Interval || !slices.Equal(a.Select, m.applied.Select)
	m.applied = a
	m.mu.Unlock()
	if changed {
		poke(m.changed)
	}
	_, err := m.dev.Report(ctx, map[string]any{twinKey: a})
	return err
}

func (m *metrics) current() applied {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.applied
}

// wait waits until the loop has begun: a call may come before.
func (m *metrics) wait(ctx context.Context) error {
	select {
	case <-m.ready:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// loop sends a message each interval, when it is asked to, and when what it sends has changed.
func (m *metrics) loop(ctx context.Context, dev *sdk.Device) error {
	m.dev = dev
	m.collector.disks = m.settings.Disks
	m.mu.Lock()
	m.applied = desired{}.apply(m.settings, 0, "")
	m.mu.Unlock()
	close(m.ready)
	var recorder sync.WaitGroup
	defer recorder.Wait()
	recorder.Go(func() { m.makeRecordings(ctx) })

	for {
		a := m.current()
		if err := m.send(ctx, a); err != nil && ctx.Err() == nil {
			dev.Log().Warn("figures not sent", "error", err)
		}
		interval := time.NewTimer(a.Interval.D())
		select {
		case <-interval.C:
		case <-m.now:
		case <-m.changed:
		case <-ctx.Done():
			interval.Stop()
			return nil
		}
		interval.Stop()
	}
}

// send sends one message. What could not be read is left out of it, and logged.
func (m *metrics) send(ctx context.Context, a applied) error {
	s, err := m.collector.take(ctx, a.Select)
	if err != nil {
		m.dev.Log().Warn("some figures could not be read", "error", err)
	}
	msg, err := sdk.JSON(s)
	if err != nil {
		return fmt.Errorf("encode figures: %w", err)
	}
	msg.CreationTime = time.Now()
	return m.dev.Send(ctx, msg)
}

func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
