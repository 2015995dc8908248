package http //nolint:revive // see doc.go

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"syscall"
	"time"

	"github.com/fairlead-iot/fairlead/core"
	"github.com/fairlead-iot/fairlead/transports/netdial"
)

const (
	// unacknowledged is how long sent bytes may stay without an acknowledgement of the other side's TCP.
	unacknowledged = 30 * time.Second
	// writeStall is how long one write, of 64 KiB at most, may take: at less than 1 KiB/s nothing would be gained.
	writeStall = time.Minute
	// answerTimeout is how long the storage may take from the last byte of a request to its answer, and once more to the
	// answer's end.
	answerTimeout = time.Minute
	// idleTimeout is how long an unused connection is kept.
	idleTimeout = 30 * time.Second
	// writeBuffer is gathered before a write.
	writeBuffer = 64 << 10
	// defaultConnections is how many connections to a host are kept.
	defaultConnections = 4
)

// StorageConfig says how to reach storage accounts.
type StorageConfig struct {
	// TLS says whom to trust: the roots and ExtraCA. ServerVerificationCert is for a hub or a gateway, and has no say here.
	TLS netdial.TLSConfig
	// Proxy, if set, is the only way out.
	Proxy netdial.Proxy
	// DialContext, if set, takes the place of DNS and TCP.
	DialContext netdial.ContextDialer
	// Connections is how many are kept to a host, 4 if 0.
	Connections int
	// Now is the wall clock against which certificates are checked; nil is time.Now.
	Now func() time.Time
}

// Storage carries requests to storage accounts: an http.RoundTripper for https addresses of any host. The device's
// certificate is never shown there. Errors of connecting are *core.Error with their phase. Make it with NewStorage.
type Storage struct{ t *http.Transport }

var _ http.RoundTripper = (*Storage)(nil)

// noHost stands where a dialer wants a host of its own. No storage account has the name: the domain is reserved, RFC 2606.
const noHost = "storage.invalid"

// NewStorage checks the configuration. Its error wraps core.ErrInvalid.
func NewStorage(cfg StorageConfig) (*Storage, error) {
	d, err := netdial.New(netdial.Config{
		Host: noHost, Port: DefaultPort, TLS: netdial.TLSConfig{ExtraCA: cfg.TLS.ExtraCA, Ciphers: cfg.TLS.Ciphers}, Proxy: cfg.Proxy,
		UserTimeout: unacknowledged, DialContext: cfg.DialContext, Now: cfg.Now,
	})
	if err != nil {
		return nil, err
	}
	t := d.HTTPTransport(nil)
	dial := t.DialTLSContext
	t.DialTLSContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := dial(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		return &stallConn{conn}, nil
	}
	t.MaxIdleConnsPerHost = cmp.Or(cfg.Connections, defaultConnections)
	t.ResponseHeaderTimeout, t.IdleConnTimeout = answerTimeout, idleTimeout
	t.WriteBufferSize, t.DisableCompression = writeBuffer, true
	return &Storage{t}, nil
}

// RoundTrip implements http.RoundTripper. The answer's body ends with an error when it takes longer than a minute.
func (s *Storage) RoundTrip(r *http.Request) (*http.Response, error) {
	ctx, cancel := context.WithCancelCause(r.Context())
	resp, err := s.t.RoundTrip(r.WithContext(ctx))
	if err != nil {
		cancel(nil)
		return nil, broken(err)
	}
	resp.Body = &timedBody{resp.Body, cancel, time.AfterFunc(answerTimeout, func() { cancel(errAnswerStalled) })}
	return resp, nil
}

// brokenError is an error whose own text tells a reader what the program does with a connection that is no more.
type brokenError struct{ err error }

func (*brokenError) Error() string   { return "the connection broke off" }
func (e *brokenError) Unwrap() error { return e.err }

func broken(err error) error {
	if _, ok := errors.AsType[*core.Error](err); ok {
		return err // of connecting, with a text of its own
	}
	for _, end := range []error{net.ErrClosed, io.EOF, io.ErrUnexpectedEOF, io.ErrClosedPipe, syscall.EPIPE} {
		if errors.Is(err, end) {
			return &brokenError{err}
		}
	}
	return err
}

var errAnswerStalled = fmt.Errorf("the rest of the answer did not come within %v: %w", answerTimeout, core.ErrTimeout)

// timedBody is the body of an answer, which must end in time: a proxy that is well keeps the connection up when what is
// behind it has fallen silent.
type timedBody struct {
	io.ReadCloser
	cancel context.CancelCauseFunc
	limit  *time.Timer
}

// Close implements io.Closer.
func (b *timedBody) Close() error {
	b.limit.Stop()
	err := b.ReadCloser.Close()
	b.cancel(nil)
	return err
}

// CloseIdleConnections closes what is not in use.
func (s *Storage) CloseIdleConnections() { s.t.CloseIdleConnections() }

// stallConn ends a write that makes no progress.
type stallConn struct{ net.Conn }

func (c *stallConn) Write(p []byte) (int, error) {
	if err := c.SetWriteDeadline(time.Now().Add(writeStall)); err != nil {
		return 0, err
	}
	return c.Conn.Write(p)
}
