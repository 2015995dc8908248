package doctor

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http/httptrace"
	"strings"
	"sync"
	"time"

	"github.com/fairlead-iot/fairlead/core"
	"github.com/fairlead-iot/fairlead/transports/mqtt"
	"github.com/fairlead-iot/fairlead/transports/mqttws"
	"github.com/fairlead-iot/fairlead/transports/netdial"
)

// walk is one route on its way down the layers.
type walk struct {
	route *Route
	// now judges certificates; system is the machine's clock.
	now    func() time.Time
	system func() time.Time
	way    Way
	checks []Check
	facts  facts
	proxy  netdial.Proxy
	trail  trail
	// asks is the question of a way of HTTPS, answer what the hub said.
	asks   *question
	answer *answer
}

func newWalk(r *Route, now, system func() time.Time, asks *question) *walk {
	host, to := r.endpoint()
	w := &walk{route: r, now: now, system: system, asks: asks, way: Way{Route: r.Name, To: to, Address: r.Dial.Address}, facts: facts{to: to, host: host}}
	if r.Use != UseMQTT {
		// As the transport does: HTTP/2 has no upgrade.
		r.Dial.TLS.NextProtos = []string{"http/1.1"}
	}
	return w
}

// run walks the route, and closes what it opened.
func (w *walk) run(ctx context.Context, c core.Credential) {
	dialer, err := w.route.Dial.Dialer(w.route.defaultPort())
	if err != nil {
		w.found("route-unusable", err.Error(), 0)
		return
	}
	w.proxy = dialer.Proxy()
	if !w.proxy.IsZero() {
		w.way.Proxy, w.facts.proxy = w.proxy.String(), net.JoinHostPort(w.proxy.Addr, fmt.Sprint(w.proxy.Port))
	}
	var opened time.Time // when TLS was up
	open := func(ctx context.Context, c core.Credential) (net.Conn, error) {
		conn, err := dialer.Dial(httptrace.WithClientTrace(ctx, w.trail.hooks()), c)
		opened = time.Now()
		w.below(err)
		if err != nil {
			return nil, err
		}
		return conn, nil
	}
	if w.route.Use == UseWebSocket {
		err = w.upgrade(ctx, c, open, &opened)
	} else {
		var conn net.Conn
		if conn, err = open(ctx, c); err == nil {
			if w.route.Use == UseHTTPS {
				err = w.request(ctx, conn, c)
			}
			closeNow(conn)
		}
	}
	w.way.Through = err == nil
}

// upgrade opens the route as the runtime does, and closes it before anything of MQTT is said.
func (w *walk) upgrade(ctx context.Context, c core.Credential, open mqtt.Opener, opened *time.Time) error {
	cfg := w.route.Dial
	cfg.Open = open
	transport, err := mqttws.New(cfg)
	if err != nil {
		w.found("route-unusable", err.Error(), 0)
		return err
	}
	link, err := transport.Open(ctx, c)
	if err == nil {
		w.passed(LayerWebSocket, "upgraded to MQTT", time.Since(*opened))
		_ = link.Close() // it served its purpose
		return nil
	}
	if e, ok := errors.AsType[*core.Error](err); ok && e.Phase == mqttws.PhaseWebSocket {
		w.found(diagnoseWebSocket(e), err.Error(), time.Since(*opened))
	}
	return err
}

// below writes down what was seen from DNS to TLS, where the dial ended with err or nil.
func (w *walk) below(err error) {
	t := &w.trail
	t.mu.Lock()
	defer t.mu.Unlock()
	end := time.Now()
	phase := ""
	if e, ok := errors.AsType[*core.Error](err); ok {
		phase = e.Phase
	}
	whose := ""
	if !w.proxy.IsZero() {
		whose = " (the proxy)"
	}
	if t.resolved != nil {
		w.passed(LayerDNS, strings.Join(t.resolved, ", ")+whose, t.dnsTook)
	}
	if t.connected != "" {
		w.passed(LayerTCP, "connected to "+t.connected+whose+t.others(), t.tcpTook)
	}
	var tlsBegan time.Time
	if len(t.shakes) > 0 {
		tlsBegan = t.shakes[0].began
	}
	if !w.proxy.IsZero() && phase != netdial.PhaseProxy {
		until := end
		if !tlsBegan.IsZero() {
			until = tlsBegan
		}
		w.passed(LayerProxy, w.proxy.String()+" opens the way to "+w.way.To, until.Sub(t.tcpDone))
	}
	if err != nil {
		code, issuer := w.diagnose(err)
		w.facts.issuer = issuer
		since := t.began
		switch phase {
		case netdial.PhaseTLS:
			since = tlsBegan
		case netdial.PhaseTCP:
			since = t.tcpBegan
		}
		if since.IsZero() {
			since = t.began
		}
		took := time.Duration(0)
		if !since.IsZero() {
			took = end.Sub(since)
		}
		w.found(code, err.Error(), took)
		return
	}
	last := t.shakes[len(t.shakes)-1]
	w.passed(LayerTLS, describe(&last.state, w.now()), last.ended.Sub(last.began))
	if len(t.shakes) > 1 {
		first := t.shakes[0]
		w.warn("tls-large-hello-stalled", fmt.Sprintf("a ClientHello of %s got no answer, a small one did", largeHello), first.ended.Sub(first.began))
	}
	w.look(&last.state)
}

const largeHello = "more than one packet"

// look looks at a chain that is trusted.
func (w *walk) look(state *tls.ConnectionState) {
	trust := &w.route.Dial.TLS
	pinned := len(trust.ServerVerificationCert) > 0
	if !pinned && isAzure(w.facts.host) && !isAzuresIssuer(state.PeerCertificates) {
		w.facts.issuer = issuerOf(state.PeerCertificates)
		w.warn("tls-intercepted", "the certificate is trusted here, but was issued by "+w.facts.issuer, 0)
	}
	if !pinned && !netdial.HasSystemRoots() {
		w.warn("tls-roots-missing", "this system has no roots; those that are built into this program were used", 0)
	}
}

func (w *walk) passed(layer, detail string, took time.Duration) {
	w.checks = append(w.checks, Check{Route: w.route.Name, Layer: layer, Severity: OK, Detail: detail, Took: milliseconds(took)})
}

func (w *walk) found(code, detail string, took time.Duration) {
	c := find(w.route.Name, code, detail, w.facts)
	c.Took = milliseconds(took)
	w.checks = append(w.checks, c)
}

func (w *walk) warn(code, detail string, took time.Duration) {
	w.found(code, detail, took)
	w.checks[len(w.checks)-1].Severity = Warning
}

// describe says what TLS came to.
func describe(state *tls.ConnectionState, now time.Time) string {
	text := tls.VersionName(state.Version)
	if len(state.PeerCertificates) > 0 {
		leaf := state.PeerCertificates[0]
		text += fmt.Sprintf(", certificate from %s, ends in %s", issuerOf(state.PeerCertificates), short(leaf.NotAfter.Sub(now)))
	}
	return text
}

// closeNow closes the innermost connection: the goodbye of TLS could wait.
func closeNow(conn net.Conn) {
	for {
		wrapper, ok := conn.(interface{ NetConn() net.Conn })
		if !ok || wrapper.NetConn() == nil {
			_ = conn.Close()
			return
		}
		conn = wrapper.NetConn()
	}
}

// trail is what a dial left behind. Its hooks are called from any goroutine.
type trail struct {
	mu        sync.Mutex
	began     time.Time
	dnsBegan  time.Time
	dnsTook   time.Duration
	resolved  []string // the addresses of the name that was asked for first
	tcpBegan  time.Time
	tcpDone   time.Time // when the first connection stood
	tcpTook   time.Duration
	connected string
	failed    []string // addresses that did not answer, with the reason
	shakes    []shake
}

// shake is a TLS handshake with the host that is meant.
type shake struct {
	began, ended time.Time
	state        tls.ConnectionState
}

func (t *trail) hooks() *httptrace.ClientTrace {
	t.mu.Lock()
	t.began = time.Now()
	t.mu.Unlock()
	locked := func(f func(now time.Time)) {
		now := time.Now()
		t.mu.Lock()
		defer t.mu.Unlock()
		f(now)
	}
	return &httptrace.ClientTrace{
		DNSStart: func(httptrace.DNSStartInfo) {
			locked(func(now time.Time) {
				if t.dnsBegan.IsZero() {
					t.dnsBegan = now
				}
			})
		},
		DNSDone: func(info httptrace.DNSDoneInfo) {
			locked(func(now time.Time) {
				if t.resolved != nil || info.Err != nil {
					return
				}
				t.dnsTook = now.Sub(t.dnsBegan)
				for _, a := range info.Addrs {
					t.resolved = append(t.resolved, a.String())
				}
			})
		},
		ConnectStart: func(_, _ string) {
			locked(func(now time.Time) {
				if t.tcpBegan.IsZero() {
					t.tcpBegan = now
				}
			})
		},
		ConnectDone: func(_, addr string, err error) {
			locked(func(now time.Time) {
				switch {
				case t.connected != "":
				case err != nil:
					if !errors.Is(err, context.Canceled) {
						t.failed = append(t.failed, addr+": "+reason(err))
					}
				default:
					t.connected, t.tcpDone, t.tcpTook = addr, now, now.Sub(t.tcpBegan)
				}
			})
		},
		TLSHandshakeStart: func() { locked(func(now time.Time) { t.shakes = append(t.shakes, shake{began: now}) }) },
		TLSHandshakeDone: func(state tls.ConnectionState, _ error) {
			locked(func(now time.Time) {
				last := &t.shakes[len(t.shakes)-1]
				last.ended, last.state = now, state
			})
		},
	}
}

// others says which addresses failed before one answered.
func (t *trail) others() string {
	if len(t.failed) == 0 {
		return ""
	}
	return "; not to " + strings.Join(t.failed, ", ")
}

// reason is the innermost error of the network.
func reason(err error) string {
	if e, ok := errors.AsType[*net.OpError](err); ok && e.Err != nil {
		return e.Err.Error()
	}
	return err.Error()
}
