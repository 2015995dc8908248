package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"time"

	"github.com/fairlead-iot/fairlead/config"
	"github.com/fairlead-iot/fairlead/core"
	"github.com/fairlead-iot/fairlead/internal/clock"
	"github.com/fairlead-iot/fairlead/transports/netdial"
)

const (
	// dateLimit bounds a question for the time, with what it takes to reach the hub.
	dateLimit = 15 * time.Second
	// datePort is that of the hub's HTTPS.
	datePort = 443
)

// timeSource is where the time comes from.
type timeSource struct {
	system func() time.Time // the system's wall clock
	built  time.Time        // when the program was made; zero where that is not known
	port   int              // of the hub's HTTPS
	look   time.Duration    // how often jumps are looked for; 0 means as clock.Config.Look
}

func realTime() timeSource {
	// The commit's time, where the toolchain stamped it: no clock that is right can be earlier.
	built, _ := time.Parse(time.RFC3339, readVersion().Time) // zero where there is none
	return timeSource{system: time.Now, built: built, port: datePort}
}

// dateAsker asks the hub, or whoever else the device talks to first, what time it is: by the header Date of an answer by HTTPS,
// from a server whose certificate is good. A device that has no clock of its own could make no token otherwise.
// https://www.rfc-editor.org/rfc/rfc9110#name-date
type dateAsker struct {
	host   string
	port   int // of HTTPS
	clock  *clock.Clock
	log    *slog.Logger
	https  []*netdial.Dialer // one for each way
	others []*netdial.Dialer // where HTTPS is blocked, the certificate alone still says something
}

// newDateAsker makes an asker of a host, which is dialed as the routes to it are, by their proxies. endpoint says where a
// route goes.
func (rt *running) newDateAsker(host string, trust netdial.TLSConfig, endpoint func(config.Transport) (address string, port int)) (*dateAsker, error) {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	a := &dateAsker{host: host, port: rt.time.port, clock: rt.clock, log: rt.log}
	type way struct {
		port    int
		address string
		proxy   netdial.Proxy
	}
	isKnown := map[way]bool{}
	for i, t := range rt.cfg.Transports {
		proxy, err := routeProxy(rt.cfg, i)
		if err != nil {
			return nil, err
		}
		address, port := endpoint(t)
		for _, port := range []int{rt.time.port, port} {
			w := way{port, address, proxy}
			if isKnown[w] {
				continue
			}
			isKnown[w] = true
			d, err := netdial.New(netdial.Config{
				Host: host, Port: port, Address: address, Proxy: proxy, TLS: trust, Now: rt.clock.Now, Learn: rt.clock.Learn,
			})
			switch {
			case err != nil:
				return nil, fmt.Errorf("ask %s for the time: %w", host, err)
			case port == rt.time.port:
				a.https = append(a.https, d)
			default:
				a.others = append(a.others, d)
			}
		}
	}
	return a, nil
}

// ask asks, and tells the clock. That nobody answers is no trouble of its own: the attempt that follows says more.
func (a *dateAsker) ask(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, dateLimit)
	defer cancel()
	before := a.clock.Now()
	date, err := a.date(ctx)
	if err != nil && a.clock.Now().Sub(before) > dateLimit { // a certificate has moved the clock: once more, by that
		date, err = a.date(ctx)
	}
	if err == nil {
		a.clock.Hear(date)
		a.log.InfoContext(ctx, "asked the hub what time it is", "host", a.host, "time", date.UTC().Format(time.RFC3339))
		return
	}
	a.log.InfoContext(ctx, "the hub does not say what time it is", "host", a.host, "error", err)
	for _, d := range a.others {
		conn, err := d.Dial(ctx, core.Credential{})
		if err == nil {
			_ = conn.Close() // it has served
		}
	}
}

// date asks once by each way, until there is an answer.
func (a *dateAsker) date(ctx context.Context) (date time.Time, err error) {
	for _, d := range a.https {
		if date, err = a.dateBy(ctx, d); err == nil {
			return date, nil
		}
	}
	return time.Time{}, err
}

func (a *dateAsker) dateBy(ctx context.Context, d *netdial.Dialer) (time.Time, error) {
	transport := d.HTTPTransport(nil)
	transport.DisableKeepAlives = true
	r, err := http.NewRequestWithContext(ctx, http.MethodHead, "https://"+net.JoinHostPort(a.host, strconv.Itoa(a.port))+"/", nil)
	if err != nil {
		return time.Time{}, err
	}
	resp, err := transport.RoundTrip(r) // which follows no redirect
	if err != nil {
		return time.Time{}, err
	}
	_ = resp.Body.Close() // HEAD has none
	text := resp.Header.Get("Date")
	if text == "" {
		return time.Time{}, errNoDate
	}
	return http.ParseTime(text)
}

var errNoDate = errors.New("the answer has no Date")
