package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/fairlead-iot/fairlead/core"
	"github.com/fairlead-iot/fairlead/core/engine"
)

// SocketName is the socket's name in the state directory.
const SocketName = "fairlead.sock"

// SocketPath is the socket of a state directory.
func SocketPath(dir string) string { return filepath.Join(dir, SocketName) }

// maxSocketPath is what fits into sockaddr_un with its closing zero, on the strictest system.
const maxSocketPath = 103

// maxBody bounds a request's body: a message of the largest size in base64, and room for its properties.
const maxBody = 1 << 20

// Backend is what a runtime offers.
type Backend interface {
	Status(ctx context.Context) (Status, error)
	// Trace is engine.Engine.Trace.
	Trace(from uint64) ([]engine.Line, <-chan struct{})
	Connect(ctx context.Context) error
	Disconnect(ctx context.Context) error
	Send(ctx context.Context, m *core.Message) error
	Twin(ctx context.Context) (json.RawMessage, error)
	Report(ctx context.Context, patch json.RawMessage) (version int64, err error)
	UpdateToken(ctx context.Context, token core.Secret) error
	// UseRoute is engine.Engine.UseRoute.
	UseRoute(ctx context.Context, name string) error
	// Upload queues an upload; UploadState tells how one stands, with a channel that is closed at the next change of any;
	// CancelUpload calls one off.
	Upload(ctx context.Context, r NewUpload) (Upload, error)
	UploadState(id string) (Upload, <-chan struct{}, error)
	CancelUpload(id string) error
}

// CheckDir says what keeps a directory, whether it is there yet or not, from holding the socket.
func CheckDir(dir string) error {
	if path := filepath.Join(dir, SocketName); len(path) > maxSocketPath {
		return fmt.Errorf("the socket's path %s would have %d characters, and at most %d are possible: choose a shorter directory", path, len(path), maxSocketPath)
	}
	return nil
}

// Listen opens the socket in a directory, which must exist and be private. It replaces a socket that a killed runtime
// left behind: the caller holds the directory's lock.
func Listen(dir string) (net.Listener, error) {
	if err := CheckDir(dir); err != nil {
		return nil, err
	}
	path := filepath.Join(dir, SocketName)
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("remove old socket: %w", err)
	}
	l, err := net.Listen("unix", path) //nolint:noctx // it is local and does not wait
	if err != nil {
		return nil, fmt.Errorf("open socket: %w", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(fmt.Errorf("protect socket: %w", err), l.Close())
	}
	return l, nil
}

// Serve answers on the listener until ctx ends.
func Serve(ctx context.Context, l net.Listener, b Backend, log *slog.Logger) error {
	s := &http.Server{
		Handler: routes(b), ReadHeaderTimeout: 5 * time.Second, BaseContext: func(net.Listener) context.Context { return ctx },
		ErrorLog: slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	stop := context.AfterFunc(ctx, func() { _ = s.Close() })
	defer stop()
	if err := s.Serve(l); err != nil && !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve socket: %w", err)
	}
	return nil
}

func routes(b Backend) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/status", func(w http.ResponseWriter, r *http.Request) {
		s, err := b.Status(r.Context())
		answer(w, s, err)
	})
	mux.HandleFunc("GET /v1/events", func(w http.ResponseWriter, r *http.Request) { serveEvents(w, r, b) })
	mux.HandleFunc("POST /v1/connect", func(w http.ResponseWriter, r *http.Request) {
		answer(w, struct{}{}, b.Connect(r.Context()))
	})
	mux.HandleFunc("POST /v1/disconnect", func(w http.ResponseWriter, r *http.Request) {
		answer(w, struct{}{}, b.Disconnect(r.Context()))
	})
	mux.HandleFunc("POST /v1/send", func(w http.ResponseWriter, r *http.Request) {
		var m core.Message
		if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody)).Decode(&m); err != nil {
			answer(w, nil, fmt.Errorf("read message: %w: %w", core.ErrInvalid, err))
			return
		}
		err := b.Send(r.Context(), &m)
		answer(w, struct{}{}, err)
	})
	mux.HandleFunc("POST /v1/token", func(w http.ResponseWriter, r *http.Request) {
		var t newToken
		if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody)).Decode(&t); err != nil {
			answer(w, nil, fmt.Errorf("read token: %w", core.ErrInvalid)) // the decoder's own words may hold some of it
			return
		}
		answer(w, struct{}{}, b.UpdateToken(r.Context(), core.Secret(t.Token)))
	})
	mux.HandleFunc("POST /v1/transport", func(w http.ResponseWriter, r *http.Request) {
		var t useRoute
		if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody)).Decode(&t); err != nil {
			answer(w, nil, fmt.Errorf("read route: %w: %w", core.ErrInvalid, err))
			return
		}
		answer(w, struct{}{}, b.UseRoute(r.Context(), t.Use))
	})
	mux.HandleFunc("GET /v1/twin", func(w http.ResponseWriter, r *http.Request) {
		t, err := b.Twin(r.Context())
		answer(w, t, err)
	})
	mux.HandleFunc("PATCH /v1/twin/reported", func(w http.ResponseWriter, r *http.Request) {
		patch, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
		if err != nil {
			answer(w, nil, fmt.Errorf("read patch: %w: %w", core.ErrInvalid, err))
			return
		}
		version, err := b.Report(r.Context(), patch)
		answer(w, Reported{version}, err)
	})
	uploadRoutes(mux, b)
	return mux
}

// serveEvents writes the trace as JSON lines; with ?follow it goes on until the client leaves.
func serveEvents(w http.ResponseWriter, r *http.Request, b Backend) {
	from, _ := strconv.ParseUint(r.URL.Query().Get("from"), 10, 64) // none is 0
	w.Header().Set("Content-Type", "application/jsonl")
	enc := json.NewEncoder(w)
	for {
		lines, more := b.Trace(from)
		for _, l := range lines {
			if enc.Encode(l) != nil {
				return // the client has left
			}
			from = l.Number + 1
		}
		if !r.URL.Query().Has("follow") {
			return
		}
		_ = http.NewResponseController(w).Flush() // a client that left shows at the next write
		select {
		case <-more:
		case <-r.Context().Done():
			return
		}
	}
}

// problem is an error's form on the wire.
type problem struct {
	Error string `json:"error"`
	Kind  string `json:"kind"`
}

// kinds are the errors that a client can tell apart, with their names and statuses.
var kinds = []struct {
	err    error
	name   string
	status int
}{
	{core.ErrInvalid, "invalid", http.StatusBadRequest},
	{core.ErrTooLarge, "too-large", http.StatusBadRequest},
	{core.ErrUnsupported, "unsupported", http.StatusBadRequest},
	{core.ErrCredential, "credential", http.StatusBadGateway},
	{core.ErrService, "service", http.StatusBadGateway},
	{core.ErrNotConnected, "not-connected", http.StatusConflict},
	{core.ErrConnectionFailed, "connection-failed", http.StatusBadGateway},
	{core.ErrConnectionDropped, "connection-dropped", http.StatusBadGateway},
	{core.ErrTimeout, "timeout", http.StatusGatewayTimeout},
	{core.ErrCancelled, "cancelled", http.StatusConflict},
	{core.ErrClosed, "closed", http.StatusConflict},
}

func answer(w http.ResponseWriter, v any, err error) {
	status := http.StatusOK
	if err != nil {
		p := problem{Error: err.Error()}
		status = http.StatusInternalServerError
		for _, k := range kinds {
			if errors.Is(err, k.err) {
				p.Kind, status = k.name, k.status
				break
			}
		}
		v = p
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v) // a client that left does not want it
}
