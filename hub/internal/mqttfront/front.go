package mqttfront

import (
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"time"

	"github.com/fairlead-iot/fairlead/hub/api"
	"github.com/fairlead-iot/fairlead/hub/internal/dps"
	"github.com/fairlead-iot/fairlead/hub/internal/iot"
	"github.com/fairlead-iot/fairlead/hub/internal/lobby"
)

// Limits of the front. Those of IoT Hub name their source.
const (
	// "1.5 × client keepalive, at most 29.45 minutes", which is 1767 s:
	// https://learn.microsoft.com/azure/iot/iot-mqtt-connect-to-iot-hub#default-keep-alive-time-out
	maxKeepAlive = 1767 * time.Second

	// forever is longer than any session.
	forever = 100 * 365 * 24 * time.Hour

	packetLimit = iot.MaxMessage + (64 << 10) + 16
	// writeWithin is how long a client may leave its socket unread.
	writeWithin = 30 * time.Second
	// farewellWithin is the same for the last packets before the hub closes.
	farewellWithin = 5 * time.Second
	outLimit       = 8 << 20 // bytes waiting for a client that does not read; then it is dropped
	minBuffer      = 1 << 10 // of a connection at rest
	maxBuffer      = 64 << 10
	quietReads     = 8 // that brought little: the load is over
)

// Return codes of CONNACK, MQTT 3.1.1 section 3.2.2.3.
const (
	codeProtocol     = 1
	codeIdentifier   = 2
	codeUnavailable  = 3
	codeUnauthorized = 5
)

// Config of a Front.
type Config struct {
	Service *iot.Service
	// Provisioning is the provisioning service at the same ports, nil for none.
	Provisioning *dps.Service
	// DisabledCode is the CONNACK code for a disabled device, 0 for 3.
	DisabledCode byte
	// KeepAliveOff lets a client that asks for no keep-alive stay for ever.
	KeepAliveOff bool
	Logger       *slog.Logger
}

// Front serves MQTT connections.
type Front struct {
	cfg Config
	svc *iot.Service
	log *slog.Logger

	mu     sync.Mutex
	conns  map[*conn]struct{}
	held   map[net.Conn]struct{} // accepted and left silent
	closed bool
	wg     sync.WaitGroup
}

// New makes a front for a service.
func New(cfg Config) *Front {
	if cfg.DisabledCode == 0 {
		cfg.DisabledCode = codeUnavailable
	}
	return &Front{
		cfg: cfg, svc: cfg.Service, log: cfg.Logger,
		conns: map[*conn]struct{}{}, held: map[net.Conn]struct{}{},
	}
}

// Serve accepts connections until the listener is closed, which is no error.
func (f *Front) Serve(l net.Listener) error {
	for {
		nc, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			if temporary(err) {
				f.log.Warn("accept", "err", err)
				time.Sleep(50 * time.Millisecond) // out of files: what else is open must end first
				continue
			}
			return fmt.Errorf("accept MQTT connection: %w", err)
		}
		if f.refuse(nc) {
			continue
		}
		if !f.begin() {
			_ = nc.Close() // the hub stops
			continue
		}
		go func() {
			defer f.wg.Done()
			f.serve(nc)
		}()
	}
}

func temporary(err error) bool {
	var t interface{ Temporary() bool }
	return errors.As(err, &t) && t.Temporary()
}

// refuse applies a cut of all devices, before TLS.
func (f *Front) refuse(nc net.Conn) bool {
	fault, hit := f.svc.StrikeAll(api.FaultCut)
	if !hit {
		return false
	}
	if fault.Mode == "black-hole" {
		f.hold(nc, fault)
	} else {
		bareClose(nc)
	}
	return true
}

// hold keeps a connection open without a word until the fault ends.
func (f *Front) hold(nc net.Conn, fault api.Fault) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		bareClose(nc)
		return
	}
	f.held[nc] = struct{}{}
	lobby.Leave(rawConn(nc)) // it may stay for long
	if fault.Expires.IsZero() {
		return
	}
	time.AfterFunc(time.Until(fault.Expires), func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		delete(f.held, nc)
		bareClose(nc)
	})
}

// begin counts a connection, unless the front is closed.
func (f *Front) begin() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.closed {
		return false
	}
	f.wg.Add(1)
	return true
}

// Close ends every connection and waits for them.
func (f *Front) Close() {
	f.mu.Lock()
	f.closed = true
	for c := range f.conns {
		c.Drop("the hub stops")
	}
	for nc := range f.held {
		bareClose(nc)
	}
	clear(f.held)
	f.mu.Unlock()
	f.wg.Wait()
}

// bareClose closes the socket without a TLS farewell, as a hub does that throws
// a device out. It does not block.
func bareClose(nc net.Conn) {
	switch c := nc.(type) {
	case *tls.Conn:
		_ = c.NetConn().Close() // the connection is given up; there is nobody to tell
	case *wsConn:
		bareClose(c.ws.NetConn())
	default:
		_ = nc.Close() // as above
	}
}

// rawConn is what is below WebSocket.
func rawConn(nc net.Conn) net.Conn {
	if c, ok := nc.(*wsConn); ok {
		return c.ws.NetConn()
	}
	return nc
}
