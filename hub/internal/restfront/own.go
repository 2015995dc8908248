package restfront

import (
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/fairlead-iot/fairlead/hub/api"
	"github.com/fairlead-iot/fairlead/hub/internal/iot"
)

// ownRoutes are what a real hub does over AMQP, or not at all.
func (f *Front) ownRoutes() {
	f.route("POST /fairlead/devices/{id}/messages/devicebound", iot.ServiceConnect, f.sendC2D)
	f.route("GET /fairlead/devices/{id}/deadletters", iot.ServiceConnect, f.deadLetters)
	f.route("GET /fairlead/devices/{id}/counters", iot.ServiceConnect, f.counters)
	f.route("GET /fairlead/devices/{id}/modules/{module}/counters", iot.ServiceConnect, f.counters)
	f.route("GET /fairlead/counters", iot.ServiceConnect, f.allCounters)
	f.route("GET /fairlead/faults", iot.ServiceConnect, f.listFaults)
	f.route("POST /fairlead/faults", iot.ServiceConnect, f.addFault)
	f.route("DELETE /fairlead/faults/{fault}", iot.ServiceConnect, f.removeFault)
	f.route("GET /fairlead/cas", iot.RegistryRead, f.listCAs)
	f.route("PUT /fairlead/cas/{name}", iot.RegistryRead|iot.RegistryWrite, f.addCA)
	f.route("DELETE /fairlead/cas/{name}", iot.RegistryRead|iot.RegistryWrite, f.removeCA)
	f.mux.HandleFunc("GET /fairlead/messages", f.monitor)
}

func (f *Front) sendC2D(r *http.Request) (any, error) {
	var m api.C2D
	if err := decode(r, &m); err != nil {
		return nil, err
	}
	return nil, f.svc.SendC2D(r.PathValue("id"), m)
}

func (f *Front) deadLetters(r *http.Request) (any, error) {
	letters, err := f.svc.DeadLetters(r.PathValue("id"))
	if letters == nil {
		letters = []api.DeadLetter{}
	}
	return letters, err
}

func (f *Front) counters(r *http.Request) (any, error) { return f.svc.Counters(idOf(r)) }

func (f *Front) allCounters(*http.Request) (any, error) { return f.svc.AllCounters(), nil }

func (f *Front) listFaults(*http.Request) (any, error) { return f.svc.Faults(), nil }

func (f *Front) addFault(r *http.Request) (any, error) {
	var fault api.Fault
	if err := decode(r, &fault); err != nil {
		return nil, err
	}
	return f.svc.AddFault(fault)
}

func (f *Front) removeFault(r *http.Request) (any, error) {
	return nil, f.svc.RemoveFault(r.PathValue("fault"))
}

func (f *Front) listCAs(*http.Request) (any, error) { return f.svc.CAs(), nil }

// addCA takes {"certificate": PEM}.
func (f *Front) addCA(r *http.Request) (any, error) {
	var in struct {
		Certificate string `json:"certificate"`
	}
	if err := decode(r, &in); err != nil {
		return nil, err
	}
	return f.svc.AddCA(r.PathValue("name"), []byte(in.Certificate), time.Now())
}

func (f *Front) removeCA(r *http.Request) (any, error) {
	return nil, f.svc.RemoveCA(r.PathValue("name"))
}

// monitor streams device-to-cloud messages, a JSON object a line. follow=false
// ends with what is there. Without since and from it begins with what comes.
func (f *Front) monitor(w http.ResponseWriter, r *http.Request) {
	if !f.authorize(w, r, iot.ServiceConnect) {
		return
	}
	q := r.URL.Query()
	filter := api.MessageFilter{Source: q.Get("source"), Device: q.Get("device"), Module: q.Get("module"), From: f.svc.NextSequence()}
	follow := q.Get("follow") != "false"
	if known := append(api.EventSources(), "", api.SourceTelemetry, api.SourceAll); !slices.Contains(known, filter.Source) {
		f.writeError(w, r, api.Refuse(api.CodeArgumentInvalid, "source %q is none of %s, %s, %s", filter.Source, api.SourceTelemetry, strings.Join(api.EventSources(), ", "), api.SourceAll))
		return
	}
	if text := q.Get("since"); text != "" {
		since, err := time.Parse(time.RFC3339Nano, text)
		if err != nil {
			f.writeError(w, r, api.Refuse(api.CodeArgumentInvalid, "since: %v", err))
			return
		}
		filter.Since, filter.From = since, 0
	}
	if text := q.Get("from"); text != "" {
		from, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			f.writeError(w, r, api.Refuse(api.CodeArgumentInvalid, "from must be a sequence number, not %q", text))
			return
		}
		filter.From = from
	}
	w.Header().Set("Content-Type", "application/x-ndjson")
	out := http.NewResponseController(w)
	defer f.endWithHub(r, out)()
	write := func(m api.Message) error {
		line, err := json.Marshal(m)
		if err != nil {
			return err
		}
		_, err = w.Write(append(line, '\n'))
		return err
	}
	if !follow {
		all, err := f.svc.Messages(filter)
		if err != nil {
			f.writeError(w, r, err)
			return
		}
		for _, m := range all {
			if write(m) != nil {
				return // the client is gone
			}
		}
		return
	}
	if out.Flush() != nil { // the status, so that the client knows that it listens
		return
	}
	err := f.svc.ReadMessages(r.Context(), filter, write, out.Flush)
	if err != nil && r.Context().Err() == nil {
		f.log.Warn("monitor ended", "err", err)
	}
}

// endWithHub makes writes fail once the hub stops: a client that does not read
// would hold up its end. The returned function ends that.
func (f *Front) endWithHub(r *http.Request, out *http.ResponseController) (done func()) {
	ctx, cancel := context.WithCancel(r.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		select {
		case <-f.svc.Done():
			_ = out.SetWriteDeadline(time.Now()) // the connection is given up
		case <-ctx.Done():
		}
	}()
	return func() {
		cancel()
		<-ended
	}
}
