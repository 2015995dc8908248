package hub

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/fairlead-iot/fairlead/hub/api"
	"github.com/fairlead-iot/fairlead/hub/internal/account"
	"github.com/fairlead-iot/fairlead/hub/internal/blob"
	"github.com/fairlead-iot/fairlead/hub/internal/dps"
	"github.com/fairlead-iot/fairlead/hub/internal/dpsfront"
	"github.com/fairlead-iot/fairlead/hub/internal/iot"
	"github.com/fairlead-iot/fairlead/hub/internal/lobby"
	"github.com/fairlead-iot/fairlead/hub/internal/mqttfront"
	"github.com/fairlead-iot/fairlead/hub/internal/msglog"
	"github.com/fairlead-iot/fairlead/hub/internal/pki"
	"github.com/fairlead-iot/fairlead/hub/internal/restfront"
)

// ErrInUse is a directory that another hub has open.
var ErrInUse = errors.New("hub: the directory is in use by another hub")

// Config of a Hub. The zero value is a hub in memory at random loopback ports.
type Config struct {
	// Dir keeps the state, with mode 0700. Empty: memory only.
	Dir string
	// Hostnames are the names that the hub answers to; the first is its own and
	// stands in connection strings. Default localhost. The names localhost,
	// 127.0.0.1 and ::1 are always added.
	Hostnames []string
	// Bind is the address to listen on, default 127.0.0.1.
	Bind string
	// MQTTPort and HTTPSPort are TCP ports, 0 for any free one.
	MQTTPort  int
	HTTPSPort int
	// HTTPSFallbackPort is taken where HTTPSPort cannot be had; 0 for none.
	HTTPSFallbackPort int
	// MQTTListener and HTTPSListener, if set, are used instead of Bind and the
	// ports. They carry plain bytes: TLS is the hub's. Close closes them.
	MQTTListener  net.Listener
	HTTPSListener net.Listener
	// TokenGrace is how long a token is good after its end, default 0. The real
	// hub is said to allow 10 minutes.
	TokenGrace time.Duration
	// ProvisioningRetryAfter is what the provisioning service tells devices to wait
	// between two requests, in whole seconds; default 3 s.
	ProvisioningRetryAfter time.Duration
	// Events are the events that the hub tells beside telemetry, of
	// api.EventSources: as a real hub does that has a route for them. They stand
	// in the message log.
	Events []string
	// Unsettled decides what Microsoft's documents leave open.
	Unsettled Unsettled
	// MessageBytes and MessageAge bound the message log; defaults are 256 MiB (64
	// MiB in memory) and 7 days.
	MessageBytes int64
	MessageAge   time.Duration
	// Uploads says where devices upload files to.
	Uploads Uploads
	// Logger, nil for none.
	Logger *slog.Logger
}

// Unsettled decides what Microsoft's documents leave open, or where they
// contradict what people saw. The zero value is the likeliest; a client that
// works with either answer has nothing to fear. docs/hub.md has the table.
type Unsettled struct {
	// DisabledCode is the CONNACK code for a disabled device, 0 for 3.
	DisabledCode byte
	// MaxTLS is the newest version of TLS that the hub offers, such as
	// tls.VersionTLS12; 0 for 1.3. 1.2 is the oldest, always.
	MaxTLS uint16
	// KeepAliveOff lets a client that asks for no keep-alive stay for ever.
	// Otherwise the longest one, 1767 s, holds for it too.
	KeepAliveOff bool
	// RetainValue is the value of the property mqtt-retain, "" for "true".
	RetainValue string
	// MethodsInFlight is how many direct methods may wait for one identity, 0 for
	// 100; more are 429.
	MethodsInFlight int
	// C2DNeedsSession refuses cloud-to-device messages for a device that is not
	// connected and has no persistent session.
	C2DNeedsSession bool
	// ReportedETag changes a twin's etag with its reported properties too.
	ReportedETag bool
	// RefuseReported refuses a service's twin patch that touches reported
	// properties. Otherwise they are left out of it.
	RefuseReported bool
	// QueryPage is how many results a query gives without x-ms-max-item-count, 0
	// for 100.
	QueryPage int
}

// Hub is a running hub.
type Hub struct {
	cfg      Config
	log      *slog.Logger
	svc      *iot.Service
	dps      *dps.Service
	mqtt     *mqttfront.Front
	identity pki.Identity
	blobs    *blob.Endpoint   // nil when uploads go elsewhere
	account  *account.Account // where they go then
	unlock   func() error

	mu       sync.Mutex
	started  bool
	http     *http.Server
	mqttL    net.Listener
	httpsL   net.Listener
	serving  sync.WaitGroup
	failed   chan error // the first failure of a listener
	closing  sync.Once
	closeErr error
}

// New opens the state and makes what is missing: keys, certificates. It does not
// listen. A directory of another running hub is ErrInUse. Close the hub even if
// it was never started.
func New(cfg Config) (*Hub, error) {
	if err := cfg.Uploads.Check(); err != nil {
		return nil, err
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	for _, name := range cfg.Events {
		if !slices.Contains(api.EventSources(), name) {
			return nil, fmt.Errorf("hub: no events %q; there are %s", name, strings.Join(api.EventSources(), ", "))
		}
	}
	cfg.Bind = cmp.Or(cfg.Bind, "127.0.0.1")
	cfg.Hostnames = hostnames(cfg.Hostnames)
	if cfg.Dir == "" && cfg.MessageBytes == 0 {
		cfg.MessageBytes = 64 << 20
	}
	h := &Hub{cfg: cfg, log: cfg.Logger, unlock: func() error { return nil }, failed: make(chan error, 2)}
	if cfg.Dir != "" {
		if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
			return nil, fmt.Errorf("make hub directory: %w", err)
		}
		unlock, err := lockDir(cfg.Dir)
		if err != nil {
			return nil, err
		}
		h.unlock = unlock
	}
	if err := h.open(); err != nil {
		return nil, errors.Join(err, h.unlock())
	}
	return h, nil
}

func hostnames(names []string) []string {
	all := slices.Clone(names)
	if len(all) == 0 {
		all = []string{"localhost"}
	}
	for _, name := range []string{"localhost", "127.0.0.1", "::1"} {
		if !slices.Contains(all, name) {
			all = append(all, name)
		}
	}
	return all
}

func (h *Hub) open() error {
	u := h.cfg.Unsettled
	// The state first: a directory of a newer version stays as it is.
	var err error
	h.svc, err = iot.Open(iot.Config{
		Dir: h.cfg.Dir, Hostnames: h.cfg.Hostnames, Grace: h.cfg.TokenGrace, Logger: h.log,
		Events:     h.cfg.Events,
		Messages:   msglog.Limits{Bytes: h.cfg.MessageBytes, Age: h.cfg.MessageAge},
		UploadLife: h.cfg.Uploads.Life,
		Unsettled: iot.Unsettled{
			RetainValue: u.RetainValue, MethodsInFlight: u.MethodsInFlight, C2DNeedsSession: u.C2DNeedsSession,
			ReportedETag: u.ReportedETag, RefuseReported: u.RefuseReported,
		},
	})
	if err != nil {
		return err
	}
	if h.identity, err = pki.Load(h.cfg.Dir, h.cfg.Hostnames, time.Now()); err != nil {
		return errors.Join(err, h.svc.Close())
	}
	if h.dps, err = dps.Open(dps.Config{Hub: h.svc, RetryAfter: h.cfg.ProvisioningRetryAfter, Logger: h.log}); err != nil {
		return errors.Join(err, h.svc.Close())
	}
	if err := h.openUploads(); err != nil {
		return errors.Join(err, h.svc.Close())
	}
	h.mqtt = mqttfront.New(mqttfront.Config{
		Service: h.svc, Provisioning: h.dps, DisabledCode: u.DisabledCode, KeepAliveOff: u.KeepAliveOff, Logger: h.log,
	})
	return nil
}

// Start listens and returns once connections are accepted.
func (h *Hub) Start() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.started {
		return errors.New("hub: started already")
	}
	var err error
	if h.mqttL, err = h.listen(h.cfg.MQTTListener, h.cfg.MQTTPort); err != nil {
		return fmt.Errorf("listen for MQTT: %w", err)
	}
	h.httpsL, err = h.listen(h.cfg.HTTPSListener, h.cfg.HTTPSPort)
	if err != nil && h.cfg.HTTPSFallbackPort != 0 {
		h.log.Warn("the HTTPS port cannot be had, taking another; clients that cannot be told a port will not find it",
			"port", h.cfg.HTTPSPort, "other", h.cfg.HTTPSFallbackPort, "err", err)
		h.httpsL, err = h.listen(nil, h.cfg.HTTPSFallbackPort)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("listen for HTTPS: %w", err), h.mqttL.Close())
	}
	h.started = true
	h.mqttL, h.httpsL = lobby.Listen(h.mqttL, iot.MaxStrangers), lobby.Listen(h.httpsL, iot.MaxStrangers)
	h.http = &http.Server{
		Handler: greeted(h.withBlobs(boundBodies(dpsfront.New(dpsfront.Config{
			Provisioning: h.dps, Hub: h.svc, Logger: h.log,
			Next: restfront.New(restfront.Config{Service: h.svc, MQTT: h.mqtt, QueryPage: h.cfg.Unsettled.QueryPage, Logger: h.log}),
		})))),
		ReadHeaderTimeout: iot.ConnectWithin / 2, // of the TLS handshake too
		MaxHeaderBytes:    iot.MaxHeader,
		IdleTimeout:       2 * time.Minute,
		ConnContext:       withConn,
		ErrorLog:          slog.NewLogLogger(h.log.Handler(), slog.LevelDebug), // such as handshakes of clients that do not trust the CA
	}
	h.serving.Go(func() {
		h.fail(h.mqtt.Serve(tls.NewListener(h.mqttL, h.tlsConfig())))
	})
	h.serving.Go(func() {
		if err := h.http.Serve(tls.NewListener(h.httpsL, h.tlsConfig())); !errors.Is(err, http.ErrServerClosed) && !errors.Is(err, net.ErrClosed) {
			h.fail(fmt.Errorf("serve HTTPS: %w", err))
		}
	})
	return nil
}

func (h *Hub) fail(err error) {
	if err != nil {
		select {
		case h.failed <- err:
		default:
		}
	}
}

func (h *Hub) listen(given net.Listener, port int) (net.Listener, error) {
	if given != nil {
		return given, nil
	}
	return net.Listen("tcp", net.JoinHostPort(h.cfg.Bind, strconv.Itoa(port))) //nolint:noctx // a loopback listen does not block
}

func (h *Hub) tlsConfig() *tls.Config {
	return &tls.Config{
		Certificates: h.identity.Certificates,
		MinVersion:   tls.VersionTLS12,
		MaxVersion:   h.cfg.Unsettled.MaxTLS,
		// The hub "asks for a client certificate in the first handshake"; who has
		// none sends none.
		ClientAuth: tls.RequestClientCert,
		NextProtos: []string{"http/1.1"}, // WebSocket needs it, and MQTT clients offer nothing
	}
}

// Serve starts the hub, runs it until the context ends or a listener fails, and
// closes it. It returns nil after the context's end.
func (h *Hub) Serve(ctx context.Context) error {
	if err := h.Start(); err != nil {
		return errors.Join(err, h.Close(ctx))
	}
	return h.Wait(ctx)
}

// Wait runs a started hub until the context ends or a listener fails, and closes
// it. It returns nil after the context's end.
func (h *Hub) Wait(ctx context.Context) error {
	var err error
	select {
	case <-ctx.Done():
	case err = <-h.failed:
	}
	return errors.Join(err, h.Close(context.WithoutCancel(ctx)))
}

// Close ends every connection without a word, as a hub that goes away does, and
// closes the files. Requests that are under way get the context's time to end.
func (h *Hub) Close(ctx context.Context) error {
	h.closing.Do(func() {
		h.mu.Lock()
		started := h.started
		h.started = true // Start is refused from here on
		h.mu.Unlock()
		if started {
			_ = h.mqttL.Close() // its end is what we want
			_ = h.httpsL.Close()
		}
		h.closeErr = h.svc.Close() // ends waiting calls and monitors too
		h.mqtt.Close()
		if started {
			// Requests under way may finish. A connection that has asked nothing yet is not waited for: Shutdown alone
			// would give it 5 seconds, and clients open one to spare now and then.
			ctx, cancel := context.WithTimeout(ctx, httpGrace)
			if err := h.http.Shutdown(ctx); err != nil && !errors.Is(err, net.ErrClosed) {
				h.closeErr = errors.Join(h.closeErr, h.http.Close())
			}
			cancel()
			h.serving.Wait()
		}
		if h.account != nil {
			h.account.Close()
		}
		h.closeErr = errors.Join(h.closeErr, h.unlock())
	})
	return h.closeErr
}

// MQTTAddr is where devices connect by MQTT over TLS. Only after Start.
func (h *Hub) MQTTAddr() net.Addr { return h.mqttL.Addr() }

// HTTPSAddr is where REST and WebSocket are. Only after Start.
func (h *Hub) HTTPSAddr() net.Addr { return h.httpsL.Addr() }

// CAPEM is the certificate of the hub's own authority.
func (h *Hub) CAPEM() []byte { return slices.Clone(h.identity.CA) }

// Hostname is the hub's own name.
func (h *Hub) Hostname() string { return h.svc.Hostname() }

// httpGrace is how long Close waits for HTTP requests under way.
const httpGrace = time.Second

// CAFile is the name of the authority's certificate below Config.Dir.
const CAFile = pki.CAFile
