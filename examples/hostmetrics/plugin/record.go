package plugin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/fairlead-iot/fairlead/plugins/sdk"
)

// Limits of a recording.
const (
	maxSamples     = 10_000
	minSampleEvery = 10 * time.Millisecond
	maxSampleEvery = time.Hour
	// uploadReportEvery is how often the progress of an upload is reported at most.
	uploadReportEvery = time.Second
)

// recording is what the method record asks for.
type recording struct {
	Samples  int          `json:"samples"`
	Interval sdk.Duration `json:"interval"`
	Name     string       `json:"name"`
}

// uploadReport is what the twin says of the last recording.
type uploadReport struct {
	Name    string `json:"name"`
	State   string `json:"state"`
	Percent int    `json:"percent"`
	Reason  any    `json:"reason"` // a text, or null, which takes that of an earlier one away
}

// record takes a recording on, and answers before it is made: a file may take longer than a caller waits.
func (m *metrics) record(_ context.Context, req *sdk.MethodRequest) (any, error) {
	r := recording{Samples: 10, Interval: sdk.Duration(time.Second), Name: "figures-" + time.Now().UTC().Format("20060102T150405.000Z") + ".jsonl"}
	if err := req.Decode(&r); err != nil {
		return nil, err
	}
	switch {
	case r.Samples < 1 || r.Samples > maxSamples:
		return nil, sdk.Errorf(http.StatusBadRequest, "samples: %d is not between 1 and %d", r.Samples, maxSamples)
	case r.Interval.D() < minSampleEvery || r.Interval.D() > maxSampleEvery:
		return nil, sdk.Errorf(http.StatusBadRequest, "interval: %v is not between %v and %v", r.Interval.D(), minSampleEvery, maxSampleEvery)
	case r.Name == "":
		return nil, sdk.Errorf(http.StatusBadRequest, "name: it is empty")
	}
	select {
	case m.recordings <- r:
		return sdk.Response{Status: http.StatusAccepted, Payload: map[string]string{"name": r.Name}}, nil
	default:
		return nil, sdk.Errorf(http.StatusConflict, "another recording is being made, and one waits")
	}
}

// makeRecordings makes one recording after the other until ctx ends.
func (m *metrics) makeRecordings(ctx context.Context) {
	for {
		select {
		case r := <-m.recordings:
			if err := m.makeRecording(ctx, r); err != nil && ctx.Err() == nil {
				m.dev.Log().Warn("recording not uploaded", "name", r.Name, "error", err)
			}
		case <-ctx.Done():
			return
		}
	}
}

// makeRecording uploads a recording while it is being made, and reports how far that has come.
func (m *metrics) makeRecording(ctx context.Context, r recording) error {
	from, to := io.Pipe()
	go func() { _ = to.CloseWithError(m.sample(ctx, to, r)) }() // what it could not write nobody reads
	defer from.Close()                                          //nolint:errcheck // it ends the sampling
	progress := make(chan sdk.UploadProgress, 1)
	ended := make(chan error, 1)
	go func() {
		ended <- m.dev.UploadFrom(ctx, r.Name, from, func(p sdk.UploadProgress) {
			select { // the newest counts
			case <-progress:
			default:
			}
			progress <- p
		})
	}()
	var last time.Time
	for {
		select {
		case p := <-progress:
			if time.Since(last) < uploadReportEvery {
				continue
			}
			last = time.Now()
			report := uploadReport{Name: r.Name, State: p.State.String()}
			if p.Size > 0 {
				report.Percent = int(100 * p.Sent / p.Size)
			}
			if err := m.reportUpload(ctx, report); err != nil {
				m.dev.Log().Debug("progress not reported", "error", err)
			}
		case err := <-ended:
			report := uploadReport{Name: r.Name, State: "done", Percent: 100}
			if err != nil {
				report = uploadReport{Name: r.Name, State: "failed", Reason: err.Error()}
			}
			return errors.Join(err, m.reportUpload(ctx, report))
		}
	}
}

func (m *metrics) reportUpload(ctx context.Context, u uploadReport) error {
	_, err := m.dev.Report(ctx, map[string]any{twinKey: map[string]any{"upload": u}})
	return err
}

// sample writes figures, a JSON object on each line.
func (m *metrics) sample(ctx context.Context, w io.Writer, r recording) error {
	out := json.NewEncoder(w)
	tick := time.NewTicker(r.Interval.D())
	defer tick.Stop()
	for n := range r.Samples {
		if n > 0 {
			select {
			case <-tick.C:
			case <-ctx.Done():
				return context.Cause(ctx)
			}
		}
		s, err := m.collector.take(ctx, m.current().Select)
		if err != nil {
			m.dev.Log().Debug("some figures could not be read", "error", err)
		}
		if err := out.Encode(s); err != nil {
			return fmt.Errorf("write sample %d: %w", n+1, err)
		}
	}
	return nil
}
