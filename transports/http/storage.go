package http //nolint:revive // see doc.go

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/fairlead-iot/fairlead/core"
	"github.com/fairlead-iot/fairlead/transports/netdial"
)

const (
	// unacknowledged is how long sent bytes may stay without an acknowledgement of the other side's TCP.
	unacknowledged = 30 * time.Second
	// writeStall is how long one write, of 64 KiB at most, may take: at less than 1 KiB/s nothing would be gained.
	writeStall = time.Minute
	// answerTimeout is how long the storage may take from the last byte of a request to its answer.
	answerTimeout = time.Minute
	// idleTimeout is how long an unused connection is kept.
	idleTimeout = 30 * time.Second
	// writeBuffer is gathered before a write.
	writeBuffer = 64 << 10
	// maxDialers bounds how many storage hosts are remembered; a device has one or two.
	maxDialers = 8
)

// StorageConfig says how to reach storage accounts.
type StorageConfig struct {
	// TLS says whom to trust.
	TLS netdial.TLSConfig
	// DialContext, if set, takes the place of DNS and TCP.
	DialContext netdial.ContextDialer
	// Connections is how many are kept to a host, 4 if 0.
	Connections int
	// Now is the wall clock against which certificates are checked; nil is time.Now.
	Now func() time.Time
}

// Storage carries requests to storage accounts: an http.RoundTripper for https addresses of any host. The device's
// certificate is never shown there. Errors of connecting are *core.Error with their phase. Make it with NewStorage.
type Storage struct {
	cfg StorageConfig
	t   *http.Transport

	mu      sync.Mutex
	dialers map[string]*netdial.Dialer
}

var _ http.RoundTripper = (*Storage)(nil)

// NewStorage checks the configuration. Its error wraps core.ErrInvalid.
func NewStorage(cfg StorageConfig) (*Storage, error) {
	if cfg.Connections == 0 {
		cfg.Connections = 4
	}
	s := &Storage{cfg: cfg, dialers: map[string]*netdial.Dialer{}}
	s.t = &http.Transport{
		DialTLSContext:        s.dial,
		DialContext:           refusePlain,
		MaxIdleConnsPerHost:   cfg.Connections,
		IdleConnTimeout:       idleTimeout,
		ResponseHeaderTimeout: answerTimeout,
		ExpectContinueTimeout: time.Second,
		WriteBufferSize:       writeBuffer,
		DisableCompression:    true,
	}
	if _, err := s.dialer("localhost:443"); err != nil {
		return nil, err
	}
	return s, nil
}

// RoundTrip implements http.RoundTripper.
func (s *Storage) RoundTrip(r *http.Request) (*http.Response, error) { return s.t.RoundTrip(r) }

// CloseIdleConnections closes what is not in use.
func (s *Storage) CloseIdleConnections() { s.t.CloseIdleConnections() }

// refusePlain keeps an address with http:// from being used: the token in it is a secret.
func refusePlain(_ context.Context, _, addr string) (net.Conn, error) {
	return nil, &core.Error{Op: "dial " + addr, Kind: core.Fatal, Err: fmt.Errorf("storage is reached over https only: %w", core.ErrInvalid)}
}

func (s *Storage) dial(ctx context.Context, _, addr string) (net.Conn, error) {
	d, err := s.dialer(addr)
	if err != nil {
		return nil, err
	}
	conn, err := d.Dial(ctx, core.Credential{})
	if err != nil {
		return nil, err
	}
	return &stallConn{conn}, nil
}

func (s *Storage) dialer(addr string) (*netdial.Dialer, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if d := s.dialers[addr]; d != nil {
		return d, nil
	}
	host, portText, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, fmt.Errorf("dial storage: %w: %w", core.ErrInvalid, err)
	}
	port, err := strconv.Atoi(portText)
	if err != nil {
		return nil, fmt.Errorf("dial storage: %w: %w", core.ErrInvalid, err)
	}
	d, err := netdial.New(netdial.Config{Host: host, Port: port, TLS: s.cfg.TLS, UserTimeout: unacknowledged, DialContext: s.cfg.DialContext, Now: s.cfg.Now})
	if err != nil {
		return nil, err
	}
	if len(s.dialers) >= maxDialers {
		clear(s.dialers)
	}
	s.dialers[addr] = d
	return d, nil
}

// stallConn ends a write that makes no progress.
type stallConn struct{ net.Conn }

func (c *stallConn) Write(p []byte) (int, error) {
	if err := c.SetWriteDeadline(time.Now().Add(writeStall)); err != nil {
		return 0, err
	}
	return c.Conn.Write(p)
}
