package control

import (
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"github.com/fairlead-iot/fairlead/core"
)

// progressEvery is how often the progress of an upload is told at most.
const progressEvery = 200 * time.Millisecond

// NewUpload says what to upload: a file of the runtime's machine, which the runtime must be able to read.
type NewUpload struct {
	Path string `json:"path"` // absolute
	Name string `json:"name"` // of the blob, without the device's id
}

// Upload is how an upload stands.
type Upload struct {
	ID    string `json:"id"`
	Name  string `json:"name"`
	Path  string `json:"path,omitempty"` // "" for what a plugin streams
	Owner string `json:"owner,omitempty"`
	State string `json:"state"`
	Size  int64  `json:"size"` // bytes
	// Sent are bytes that the storage has confirmed, or that are on their way there; Rate bytes per second, Left seconds at
	// this pace.
	Sent   int64   `json:"sent"`
	Rate   float64 `json:"rate,omitempty"`
	Left   float64 `json:"left_s,omitempty"`
	Reason string  `json:"reason,omitempty"`
	// NextAttempt is in seconds; 0 where none is waited for.
	NextAttempt float64 `json:"next_attempt_s,omitempty"`
}

// UploadOf gives an upload the form of the wire.
func UploadOf(u core.Upload) Upload {
	return Upload{
		ID: u.ID, Name: u.BlobName, Path: u.Path, Owner: u.Owner, State: u.State.String(), Size: u.Size, Sent: u.Sent,
		Rate: u.Rate, Left: Seconds(u.Left), Reason: u.Reason, NextAttempt: Seconds(u.NextAttempt),
	}
}

// HasEnded reports whether nothing more becomes of it.
func (u Upload) HasEnded() bool {
	var s core.UploadState
	return s.UnmarshalText([]byte(u.State)) == nil && s.Ended()
}

// Percent is how much of it is there.
func (u Upload) Percent() int {
	if u.Size == 0 {
		if u.State == core.UploadDone.String() {
			return 100
		}
		return 0
	}
	return int(100 * (float64(u.Sent) / float64(u.Size)))
}

func uploadRoutes(mux *http.ServeMux, b Backend) {
	mux.HandleFunc("POST /v1/uploads", func(w http.ResponseWriter, r *http.Request) {
		var in NewUpload
		if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody)).Decode(&in); err != nil {
			answer(w, nil, fmt.Errorf("read upload: %w: %w", core.ErrInvalid, err))
			return
		}
		u, err := b.Upload(r.Context(), in)
		answer(w, u, err)
	})
	mux.HandleFunc("GET /v1/uploads/{id}", func(w http.ResponseWriter, r *http.Request) { serveUpload(w, r, b) })
	mux.HandleFunc("DELETE /v1/uploads/{id}", func(w http.ResponseWriter, r *http.Request) {
		answer(w, struct{}{}, b.CancelUpload(r.PathValue("id")))
	})
}

// serveUpload writes how an upload stands, a JSON object a line, until it has ended or the client leaves.
func serveUpload(w http.ResponseWriter, r *http.Request, b Backend) {
	u, changed, err := b.UploadState(r.PathValue("id"))
	if err != nil {
		answer(w, nil, err)
		return
	}
	w.Header().Set("Content-Type", "application/jsonl")
	enc := json.NewEncoder(w)
	pause := time.NewTimer(0)
	defer pause.Stop()
	for last := (Upload{}); ; {
		if u != last {
			if enc.Encode(u) != nil || http.NewResponseController(w).Flush() != nil {
				return // the client has left
			}
			last = u
		}
		if u.HasEnded() {
			return
		}
		pause.Reset(progressEvery)
		select {
		case <-pause.C:
		case <-r.Context().Done():
			return
		}
		select {
		case <-changed:
		case <-r.Context().Done():
			return
		}
		if u, changed, err = b.UploadState(r.PathValue("id")); err != nil {
			return // forgotten meanwhile
		}
	}
}
