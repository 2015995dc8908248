package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/fairlead-iot/fairlead/core"
	"github.com/fairlead-iot/fairlead/core/engine"
	"github.com/fairlead-iot/fairlead/hub/api"
)

func (d *demo) showConnection() func(core.Connection) {
	last := core.StateDisconnected
	return func(c core.Connection) {
		if c.State != last && c.State != core.StateStopped {
			d.say("device", "%s: %s", c.State, c.Reason)
		}
		last = c.State
	}
}

// watchTelemetry shows what arrives at the hub, the first few in full.
func (d *demo) watchTelemetry(ctx context.Context, seen chan<- api.Message) {
	n := 0
	err := d.hub.ReadTelemetry(ctx, api.MessageFilter{Device: demoDevice}, func(m api.Message) error {
		if n++; n <= 3 || n%10 == 0 {
			body := string(m.Body)
			if len(body) > 160 {
				body = body[:160] + "…"
			}
			d.say("hub", "telemetry %d: %s", n, body)
		}
		select {
		case seen <- m:
		default:
		}
		return nil
	})
	if err != nil && ctx.Err() == nil {
		d.miss("reading telemetry", err)
	}
}

func (d *demo) awaitTelemetry(ctx context.Context, seen <-chan api.Message, what string) {
	for len(seen) > 0 { // what came before
		<-seen
	}
	select {
	case <-seen:
	case <-ctx.Done():
		d.miss(what, errors.New("none came"))
	}
}

func (d *demo) showMethod(ctx context.Context) {
	began := time.Now()
	r, err := d.hub.InvokeMethod(ctx, demoDevice, "ping", map[string]string{"from": "the demo"})
	if err != nil || r.Status != 200 {
		d.miss("a method call", fmt.Errorf("status %d: %w", r.Status, err))
		return
	}
	d.say("hub", "method ping answered %d in %v: %s", r.Status, time.Since(began).Round(10*time.Microsecond), r.Payload)
}

func (d *demo) showMessage(ctx context.Context) {
	if err := d.hub.SendC2D(demoDevice, api.C2D{MessageID: "demo-1", Body: []byte("hello, device")}); err != nil {
		d.miss("a message to the device", err)
		return
	}
	d.say("hub", "message demo-1 sent to the device")
	if d.await(ctx, "a completed message", func() bool {
		n, err := d.hub.Counters(demoDevice)
		return err == nil && n.C2DCompleted == 1
	}) == nil {
		d.say("hub", "message demo-1 completed: the plugin has handled it")
	}
}

func (d *demo) showDesired(ctx context.Context) {
	twin, err := d.hub.PatchTwin(demoDevice, []byte(`{"properties":{"desired":{"`+demoPlugin+`":{"interval":"1s"}}}}`))
	if err != nil {
		d.miss("a change of the desired properties", err)
		return
	}
	version := twinVersion(twin.Properties.Desired)
	d.say("hub", "desired version %d: the plugin's interval is to be 1 s", version)
	var applied any
	if d.await(ctx, "the reported answer", func() bool {
		twin, err := d.hub.Twin(demoDevice)
		if err != nil {
			return false
		}
		var reported map[string]struct {
			Interval string `json:"interval"`
		}
		if b, err := json.Marshal(twin.Properties.Reported); err != nil || json.Unmarshal(b, &reported) != nil && reported == nil {
			return false
		}
		applied = reported[demoPlugin].Interval
		return applied == "1s"
	}) == nil {
		d.say("hub", "reported: the plugin has applied interval %v", applied)
	}
}

// showUpload has the plugin upload a file on a method call, and waits until the hub tells services of it.
func (d *demo) showUpload(ctx context.Context) {
	const name, samples = "figures.jsonl", 20
	began := time.Now()
	// The storage is away until the plugin has reported that its upload goes on: progress that nobody can overlook.
	away, err := d.hub.AddFault(api.Fault{Name: api.FaultStorageStatus, Code: http.StatusServiceUnavailable})
	if err != nil {
		d.miss("a storage that is away", err)
		return
	}
	r, err := d.hub.InvokeMethod(ctx, demoDevice, "record", map[string]any{"name": name, "samples": samples, "interval": "50ms"})
	if err != nil || r.Status != http.StatusAccepted {
		d.miss("a file to upload", fmt.Errorf("status %d: %w", r.Status, err))
		return
	}
	d.say("hub", "method record answered %d: the plugin uploads %s while it measures, and the storage is away", r.Status, name)
	const progress = "the reported progress of the upload"
	state := ""
	if d.await(ctx, progress, func() bool {
		state = d.reportedUpload(name)
		return state != ""
	}) != nil {
		return
	}
	if state == core.UploadDone.String() {
		d.miss(progress, errors.New("it is done, though the storage is away"))
	}
	if err := d.hub.RemoveFault(away.ID); err != nil {
		d.miss("a storage that is there again", err)
	}
	d.say("hub", "reported: the plugin's upload is %s; the storage is there again", state)
	var n api.FileNotification
	if d.await(ctx, "the notification of an uploaded file", func() bool {
		all := d.hub.FileNotifications(demoDevice)
		if len(all) > 0 {
			n = all[0]
		}
		return len(all) > 0
	}) != nil {
		return
	}
	d.say("hub", "file notification: %s, %d bytes, after %v", n.BlobName, n.BlobSizeInBytes, time.Since(began).Round(10*time.Millisecond))
	content, _, err := d.hub.OpenFile(ctx, demoDevice, name)
	if err != nil {
		d.miss("the uploaded file", err)
		return
	}
	defer content.Close() //nolint:errcheck // it was read
	lines := 0
	for s := bufio.NewScanner(content); s.Scan(); lines++ {
		if !json.Valid(s.Bytes()) {
			break
		}
	}
	if lines != samples {
		d.miss("the content of the uploaded file", fmt.Errorf("%d lines of figures, want %d", lines, samples))
	}
	if d.await(ctx, "the reported end of the upload", func() bool { return d.reportedUpload(name) == core.UploadDone.String() }) == nil {
		d.say("hub", "reported: the plugin knows that its upload is done")
	}
}

// reportedUpload is what the twin says of the state of the plugin's upload, "" if it tells of none of that name.
func (d *demo) reportedUpload(name string) string {
	twin, err := d.hub.Twin(demoDevice)
	if err != nil {
		return ""
	}
	var reported struct {
		Upload struct{ Name, State string }
	}
	if b, err := json.Marshal(twin.Properties.Reported[demoPlugin]); err != nil || json.Unmarshal(b, &reported) != nil || reported.Upload.Name != name {
		return ""
	}
	return reported.Upload.State
}

// showCut cuts the link as a bad network does, and changes the desired properties meanwhile.
func (d *demo) showCut(ctx context.Context, e *engine.Engine, seen <-chan api.Message) {
	before, err := e.Status(ctx)
	if err != nil {
		d.miss("the device's status", err)
		return
	}
	if _, err := d.hub.AddFault(api.Fault{Name: api.FaultCut, Device: demoDevice, Duration: api.Duration(demoCut)}); err != nil {
		d.miss("cutting the link", err)
		return
	}
	d.say("hub", "the device's link is cut for %v", demoCut)
	if d.await(ctx, "a new session after the cut", func() bool {
		s, err := e.Status(ctx)
		return err == nil && s.Connection.Connected() && s.Machine.Counters.Sessions > before.Machine.Counters.Sessions
	}) != nil {
		return
	}
	d.awaitTelemetry(ctx, seen, "telemetry after the cut")
}

func twinVersion(section any) int64 {
	b, err := json.Marshal(section)
	if err != nil {
		return 0
	}
	var v struct {
		Version int64 `json:"$version"`
	}
	if json.Unmarshal(b, &v) != nil {
		return 0
	}
	return v.Version
}

// summary compares what both sides counted.
func (d *demo) summary(s engine.Status) (demoSummary, error) {
	n := s.Machine.Counters
	uploaded := uint64(0)
	for _, u := range d.device.client.Uploads().List() {
		if u.State == core.UploadDone {
			uploaded++
		}
	}
	out := demoSummary{
		FilesUploaded:         uploaded,
		TelemetryAcknowledged: n.Acknowledged, MethodsAnswered: n.MethodsAnswered, C2DCompleted: n.MessagesCompleted,
		DesiredVersion: s.Machine.DesiredVersion, ReportedVersion: s.ReportedVersion, PluginPID: s.Plugins[1].PID,
		Reconnects: n.Sessions - 1 - n.Renewals, Seconds: time.Since(d.began).Seconds(),
	}
	messages, err := d.hub.Telemetry(api.MessageFilter{Device: demoDevice})
	if err != nil {
		return out, fmt.Errorf("read telemetry: %w", err)
	}
	ids := map[string]bool{}
	for _, m := range messages {
		ids[m.System["message-id"]] = true
	}
	h, err := d.hub.Counters(demoDevice)
	if err != nil {
		return out, fmt.Errorf("read counters: %w", err)
	}
	twin, err := d.hub.Twin(demoDevice)
	if err != nil {
		return out, fmt.Errorf("read twin: %w", err)
	}
	out.Hub = demoHub{
		TelemetryReceived: uint64(len(ids)), MethodsAnswered: uint64(h.MethodsAnswered), C2DCompleted: uint64(h.C2DCompleted),
		DesiredVersion: twinVersion(twin.Properties.Desired), ReportedVersion: twinVersion(twin.Properties.Reported),
		Reconnects: uint64(h.Connects) - 1 - n.Renewals, FilesUploaded: uint64(len(d.hub.FileNotifications(demoDevice))),
	}
	own := demoHub{out.TelemetryAcknowledged, out.MethodsAnswered, out.C2DCompleted, out.DesiredVersion, out.ReportedVersion, out.Reconnects, out.FilesUploaded}
	if own != out.Hub {
		d.miss("the same counts on both sides", fmt.Errorf("device %+v, hub %+v", own, out.Hub))
	}
	if out.Reconnects == 0 {
		d.miss("a reconnect", errors.New("the cut was not noticed"))
	}
	d.say("both", "%d telemetry messages acknowledged, %d methods answered, %d messages completed, desired version %d, reported version %d, %d reconnects, %d files uploaded",
		out.TelemetryAcknowledged, out.MethodsAnswered, out.C2DCompleted, out.DesiredVersion, out.ReportedVersion, out.Reconnects, out.FilesUploaded)
	out.Missing = d.missing
	out.OK = len(d.missing) == 0
	if !out.OK {
		return out, fmt.Errorf("the demo misses %d of its steps: %v", len(d.missing), d.missing)
	}
	return out, nil
}
