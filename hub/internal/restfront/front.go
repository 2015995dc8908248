package restfront

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gorilla/websocket"

	"github.com/fairlead-iot/fairlead/hub/api"
	"github.com/fairlead-iot/fairlead/hub/internal/iot"
	"github.com/fairlead-iot/fairlead/hub/internal/mqttfront"
)

const maxBody = 1 << 20

// Config of a Front.
type Config struct {
	Service *iot.Service
	MQTT    *mqttfront.Front
	// QueryPage is how many results a query gives unless asked for another number;
	// 0 for the default.
	QueryPage int
	Logger    *slog.Logger
}

// Front is the HTTPS front.
type Front struct {
	cfg  Config
	svc  *iot.Service
	mqtt *mqttfront.Front
	log  *slog.Logger
	mux  *http.ServeMux
}

var _ http.Handler = (*Front)(nil)

// New makes a front.
func New(cfg Config) *Front {
	cfg.QueryPage = cmp.Or(cfg.QueryPage, defaultPage)
	f := &Front{cfg: cfg, svc: cfg.Service, mqtt: cfg.MQTT, log: cfg.Logger, mux: http.NewServeMux()}
	f.mux.HandleFunc(mqttfront.WebSocketPath, f.serveWebSocket)

	const registry = iot.RegistryRead | iot.RegistryWrite
	f.route("GET /devices", iot.RegistryRead, f.listDevices)
	f.route("GET /devices/{$}", iot.RegistryRead, f.listDevices)
	f.route("POST /devices", registry, f.bulk)
	f.route("POST /devices/{$}", registry, f.bulk)
	f.route("POST /devices/query", iot.ServiceConnect, f.query)
	f.route("GET /devices/{id}", iot.RegistryRead, f.getDevice)
	f.route("PUT /devices/{id}", registry, f.putDevice)
	f.route("DELETE /devices/{id}", registry, f.deleteDevice)
	f.route("GET /devices/{id}/modules", iot.RegistryRead, f.listModules)
	f.route("GET /devices/{id}/modules/{module}", iot.RegistryRead, f.getDevice)
	f.route("PUT /devices/{id}/modules/{module}", registry, f.putDevice)
	f.route("DELETE /devices/{id}/modules/{module}", registry, f.deleteDevice)
	f.route("DELETE /devices/{id}/commands", iot.ServiceConnect, f.purge)
	for _, path := range []string{"/twins/{id}", "/twins/{id}/modules/{module}"} {
		f.route("GET "+path, iot.ServiceConnect, f.getTwin)
		f.route("PATCH "+path, iot.ServiceConnect, f.changeTwin(f.svc.PatchTwin))
		f.route("PUT "+path, iot.ServiceConnect, f.changeTwin(f.svc.ReplaceTwin))
		f.methodRoute("POST " + path + "/methods")
	}
	f.route("GET /statistics/devices", iot.RegistryRead, f.deviceStatistics)
	f.route("GET /statistics/service", iot.ServiceConnect, f.serviceStatistics)
	f.feedbackRoutes()
	f.deviceRoutes()
	f.fileRoutes()
	f.ownRoutes()
	f.mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		f.writeError(w, r, api.Refuse(api.CodeNoSuchRoute, "this hub has no %s %s; docs/hub.md says what it models", r.Method, r.URL.Path))
	})
	return f
}

// ServeHTTP implements http.Handler.
func (f *Front) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.log.Debug("request", "method", r.Method, "path", r.URL.Path, "remote", r.RemoteAddr)
	if err := f.fault(r); err != nil {
		f.writeError(w, r, err)
		return
	}
	f.mux.ServeHTTP(w, r)
}

// fault is what a fault answers a request with, nil for none. Our own routes are
// spared: a fault must remain removable.
func (f *Front) fault(r *http.Request) error {
	parts := strings.Split(strings.TrimPrefix(r.URL.Path, "/"), "/")
	if parts[0] == "fairlead" {
		return nil
	}
	var id api.ID
	if len(parts) > 1 && (parts[0] == "devices" || parts[0] == "twins") {
		id.Device = parts[1]
		if len(parts) > 3 && parts[2] == "modules" {
			id.Module = parts[3]
		}
	}
	if fault, hit := f.svc.Strike(api.FaultHTTPStatus, id); hit {
		name := strings.ReplaceAll(http.StatusText(fault.Code), " ", "")
		return &api.Error{HTTPStatus: fault.Code, Code: fault.Code * 1000, Name: name, Message: "fault: http-status"}
	}
	if r.URL.Path == mqttfront.WebSocketPath {
		return nil
	}
	if _, hit := f.svc.Strike(api.FaultThrottle, id); hit {
		return api.Refuse(api.CodeThrottled, "The request has been throttled. Wait 10 seconds and try again. Operation type: fault")
	}
	return nil
}

// serveWebSocket chooses by subprotocol; AMQP (AMQPWSB10) shares the path.
func (f *Front) serveWebSocket(w http.ResponseWriter, r *http.Request) {
	if slices.Contains(websocket.Subprotocols(r), mqttfront.Subprotocol) {
		f.mqtt.ServeWebSocket(w, r)
		return
	}
	w.Header().Set("Connection", "close") // a stranger has one try
	http.Error(w, "no subprotocol that the hub speaks; it speaks "+mqttfront.Subprotocol, http.StatusBadRequest)
}

// route adds a handler behind the check of a right. What it returns is written
// as JSON with status 200; nil as 204.
func (f *Front) route(pattern string, right iot.Right, handle func(r *http.Request) (any, error)) {
	f.mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
		if !f.authorize(w, r, right) {
			return
		}
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		result, err := handle(r)
		if err != nil {
			f.writeError(w, r, err)
			return
		}
		f.write(w, result)
	})
}

func (f *Front) authorize(w http.ResponseWriter, r *http.Request, right iot.Right) bool {
	err := f.svc.AuthenticateService(r.Header.Get("Authorization"), r.URL.Path, right, time.Now())
	if err != nil {
		f.writeError(w, r, err)
	}
	return err == nil
}

// tagged is a result with an entity tag.
type tagged struct {
	value any
	etag  string
}

// withStatus is a result that is not 200.
type withStatus struct {
	value  any
	status int
}

// listed is a query's page.
type listed struct {
	value        any
	kind         string // x-ms-item-type
	continuation string
}

func (f *Front) write(w http.ResponseWriter, result any) {
	status := http.StatusOK
	switch v := result.(type) {
	case nil:
		w.WriteHeader(http.StatusNoContent)
		return
	case received:
		v.write(w)
		return
	case withStatus:
		result, status = v.value, v.status
	case tagged:
		w.Header().Set("ETag", strconv.Quote(v.etag))
		result = v.value
	case listed:
		w.Header().Set("x-ms-item-type", v.kind)
		if v.continuation != "" {
			w.Header().Set("x-ms-continuation", v.continuation)
		}
		result = v.value
	}
	body, err := json.Marshal(result)
	if err != nil {
		f.log.Error("encode answer", "err", err)
		w.WriteHeader(http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	_, _ = w.Write(body) // the client may be gone
}

// writeError writes a refusal in the envelope that IoT Hub uses for it: modules
// have one of their own, methods put that one into the other as text.
func (f *Front) writeError(w http.ResponseWriter, r *http.Request, err error) {
	e := iot.AsError(err)
	// A context that has ended is no trouble of ours. Whoever stalled may still read the answer.
	if e.Code == api.CodeServerError && r.Context().Err() == nil {
		f.log.Error("answer request", "method", r.Method, "path", r.URL.Path, "err", err)
	}
	now, tracking := time.Now().UTC(), iot.TrackingID()
	var body any
	type envelope struct {
		Message          string
		ExceptionMessage string
	}
	switch {
	case e.Code == api.CodeModuleNotFound || e.Code == api.CodeModuleExists:
		body = iot.NewErrorBody(e)
	case strings.HasSuffix(r.URL.Path, "/methods") && e.Code != api.CodeUnauthorized:
		type withInfo struct {
			iot.ErrorBody
			Info any `json:"info"`
		}
		text, _ := json.Marshal(withInfo{iot.NewErrorBody(e), nil}) // strings and a number cannot fail
		body = envelope{string(text), ""}
	default:
		body = envelope{
			"ErrorCode:" + e.Name + ";" + e.Message,
			fmt.Sprintf("Tracking ID:%s-G:0-TimeStamp:%s", tracking, now.Format("01/02/2006 15:04:05")),
		}
	}
	text, _ := json.Marshal(body) // as above
	w.Header().Set("iothub-errorcode", e.Name)
	w.Header().Set("x-ms-request-id", tracking)
	w.Header().Set("Content-Type", "application/json; charset=utf-8")
	// Who is refused does not hold a connection by asking again.
	if e.HTTPStatus == http.StatusUnauthorized || e.Code == api.CodeNoSuchRoute {
		w.Header().Set("Connection", "close")
	}
	w.WriteHeader(e.HTTPStatus)
	_, _ = w.Write(text) // the client may be gone
}

// decode reads a JSON body.
func decode(r *http.Request, into any) error {
	data, err := readBody(r)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(data, into); err != nil {
		return api.Refuse(api.CodeArgumentInvalid, "the body is not the JSON that is expected: %v", err)
	}
	return nil
}

func readBody(r *http.Request) ([]byte, error) {
	data, err := io.ReadAll(r.Body)
	if tooLarge, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return nil, api.Refuse(api.CodeMessageTooLarge, "the body has more than %d bytes", tooLarge.Limit)
	}
	if err != nil {
		return nil, api.Refuse(api.CodeArgumentInvalid, "read body: %v", err)
	}
	return data, nil
}

func idOf(r *http.Request) api.ID {
	return api.ID{Device: r.PathValue("id"), Module: r.PathValue("module")}
}

func matchOf(r *http.Request) iot.Match { return iot.Match(r.Header.Get("If-Match")) }
