package control

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"syscall"
	"time"

	"github.com/fairlead-iot/fairlead/core"
	"github.com/fairlead-iot/fairlead/core/engine"
)

// ErrNotRunning is returned when nobody answers on the socket.
var ErrNotRunning = errors.New("no runtime is running here")

// Client talks to a running runtime.
type Client struct {
	socket string
	http   *http.Client
}

// NewClient makes a client of the socket at this path. It does not connect yet.
func NewClient(socket string) *Client {
	var d net.Dialer
	return &Client{socket: socket, http: &http.Client{Transport: &http.Transport{
		DialContext:       func(ctx context.Context, _, _ string) (net.Conn, error) { return d.DialContext(ctx, "unix", socket) },
		DisableKeepAlives: true,
	}}}
}

// Status asks what the runtime does.
func (c *Client) Status(ctx context.Context) (Status, error) {
	var s Status
	err := c.do(ctx, http.MethodGet, "/v1/status", nil, &s)
	return s, err
}

// Connect asks for a session and waits for it.
func (c *Client) Connect(ctx context.Context) error {
	return c.do(ctx, http.MethodPost, "/v1/connect", nil, nil)
}

// Disconnect ends the session until the next Connect.
func (c *Client) Disconnect(ctx context.Context) error {
	return c.do(ctx, http.MethodPost, "/v1/disconnect", nil, nil)
}

// Send sends a message and waits until the hub has it.
func (c *Client) Send(ctx context.Context, m *core.Message) error {
	return c.do(ctx, http.MethodPost, "/v1/send", m, nil)
}

// UpdateToken replaces the SAS token that the device was given.
func (c *Client) UpdateToken(ctx context.Context, token core.Secret) error {
	return c.do(ctx, http.MethodPost, "/v1/token", newToken{token.Reveal()}, nil)
}

// UseRoute moves the session to a route, or with engine.AutoRoute back to the order of preference, and waits for it.
func (c *Client) UseRoute(ctx context.Context, name string) error {
	return c.do(ctx, http.MethodPost, "/v1/transport", useRoute{name}, nil)
}

// Upload queues an upload.
func (c *Client) Upload(ctx context.Context, r NewUpload) (Upload, error) {
	var u Upload
	err := c.do(ctx, http.MethodPost, "/v1/uploads", r, &u)
	return u, err
}

// FollowUpload calls f with how an upload stands, now and after changes (a few times in a second at most), and returns how
// it ended. It ends before with ctx, with the runtime, or with an error of f.
func (c *Client) FollowUpload(ctx context.Context, id string, f func(Upload) error) (Upload, error) {
	var u Upload
	resp, err := c.send(ctx, http.MethodGet, "/v1/uploads/"+url.PathEscape(id), nil)
	if err != nil {
		return u, err
	}
	defer resp.Body.Close() //nolint:errcheck // it was read
	for dec := json.NewDecoder(resp.Body); !u.HasEnded(); {
		var now Upload // what is 0 is left out of the answer
		if err := dec.Decode(&now); err != nil {
			return u, fmt.Errorf("follow upload: %w", err)
		}
		u = now
		if err := f(u); err != nil {
			return u, err
		}
	}
	return u, nil
}

// CancelUpload calls an upload off.
func (c *Client) CancelUpload(ctx context.Context, id string) error {
	return c.do(ctx, http.MethodDelete, "/v1/uploads/"+url.PathEscape(id), nil, nil)
}

// Twin asks the hub for the twin.
func (c *Client) Twin(ctx context.Context) (json.RawMessage, error) {
	var t json.RawMessage
	err := c.do(ctx, http.MethodGet, "/v1/twin", nil, &t)
	return t, err
}

// Report changes the reported properties and returns their new version.
func (c *Client) Report(ctx context.Context, patch json.RawMessage) (int64, error) {
	var r Reported
	err := c.do(ctx, http.MethodPatch, "/v1/twin/reported", patch, &r)
	return r.Version, err
}

// Events calls f with the lines of the trace; with follow, until ctx ends, f fails or the runtime does.
func (c *Client) Events(ctx context.Context, follow bool, f func(engine.Line) error) error {
	path := "/v1/events"
	if follow {
		path += "?follow"
	}
	resp, err := c.send(ctx, http.MethodGet, path, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close() //nolint:errcheck // it was read
	for dec := json.NewDecoder(resp.Body); ; {
		var l engine.Line
		if err := dec.Decode(&l); errors.Is(err, io.EOF) || ctx.Err() != nil {
			return nil
		} else if err != nil {
			return fmt.Errorf("read events: %w", err)
		}
		if err := f(l); err != nil {
			return err
		}
	}
}

func (c *Client) do(ctx context.Context, method, path string, body, result any) error {
	resp, err := c.send(ctx, method, path, body)
	if err != nil {
		return err
	}
	defer resp.Body.Close() //nolint:errcheck // it was read
	if result == nil {
		return nil
	}
	if err := json.NewDecoder(resp.Body).Decode(result); err != nil {
		return fmt.Errorf("read answer: %w", err)
	}
	return nil
}

func (c *Client) send(ctx context.Context, method, path string, body any) (*http.Response, error) {
	var content io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return nil, fmt.Errorf("write request: %w", err)
		}
		if len(b) > maxBody { // the runtime would hang up in the middle of it
			return nil, fmt.Errorf("write request: it has %d bytes, and the runtime reads %d: %w", len(b), maxBody, core.ErrTooLarge)
		}
		content = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://fairlead"+path, content)
	if err != nil {
		return nil, fmt.Errorf("make request: %w", err)
	}
	resp, err := c.http.Do(req)
	switch {
	case errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED):
		return nil, fmt.Errorf("%w: nobody answers on %s (start one with fairlead run, or name its configuration with -c)", ErrNotRunning, c.socket)
	case errors.Is(err, context.DeadlineExceeded):
		return nil, fmt.Errorf("ask the runtime: %w", core.ErrTimeout)
	case err != nil:
		return nil, fmt.Errorf("ask the runtime: %w", err)
	case resp.StatusCode != http.StatusOK:
		defer resp.Body.Close() //nolint:errcheck // it is being given up
		return nil, problemError(resp)
	}
	return resp, nil
}

// remoteError is an error of the runtime: its text, and the sentinel that it was.
type remoteError struct {
	text string
	kind error
}

func (e *remoteError) Error() string { return e.text }
func (e *remoteError) Unwrap() error { return e.kind }

func problemError(resp *http.Response) error {
	var p problem
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxBody)).Decode(&p); err != nil || p.Error == "" {
		return fmt.Errorf("the runtime answered %s", resp.Status)
	}
	for _, k := range kinds {
		if k.name == p.Kind {
			return &remoteError{p.Error, k.err}
		}
	}
	return errors.New(p.Error)
}

// Status is what `fairlead status` shows.
type Status struct {
	Version  string `json:"version"`
	PID      int    `json:"pid"`
	Hostname string `json:"hostname"`
	DeviceID string `json:"device_id"`
	ModuleID string `json:"module_id,omitempty"`
	// Uptime and all other durations are in seconds.
	Uptime     float64    `json:"uptime_s"`
	Connection Connection `json:"connection"`
	Outbox     Outbox     `json:"outbox"`
	Desired    int64      `json:"desired_version"`
	Plugins    []Plugin   `json:"plugins"`
	Counters   Counters   `json:"counters"`
	// Uploads are those that have not ended, and the last that have, in order.
	Uploads []Upload `json:"uploads"`
	// DeadLetters counts those kept; the newest is shown in LastDeadLetter.
	DeadLetters    int    `json:"dead_letters"`
	LastDeadLetter string `json:"last_dead_letter,omitempty"`
	StateDir       string `json:"state_dir"`
	// Clock says what is odd about the device's clock; "" where nothing is.
	Clock string `json:"clock,omitempty"`
	// Provisioning is set for a device that a provisioning service assigns to its hub.
	Provisioning *Provisioning `json:"provisioning,omitempty"`
}

// Provisioning is where a provisioning service has sent the device.
type Provisioning struct {
	Host           string `json:"provisioning_host"`
	IDScope        string `json:"id_scope"`
	RegistrationID string `json:"registration_id"`
	// AssignedHub and DeviceID are "" until the service has answered for the first time.
	AssignedHub string `json:"assigned_hub,omitempty"`
	DeviceID    string `json:"device_id,omitempty"`
	// Since is when the service said so (RFC 3339, by the device's clock then); Kept: to an earlier run.
	Since string `json:"since,omitempty"`
	Kept  bool   `json:"kept,omitempty"`
	// LastError is why the last question came to nothing; "" after an answer.
	LastError string `json:"last_error,omitempty"`
}

// Connection is the state of the connection.
type Connection struct {
	State     string  `json:"state"`
	Reason    string  `json:"reason"`
	Since     float64 `json:"since_s"`
	Epoch     uint64  `json:"epoch"`
	Transport string  `json:"transport"`
	// Transports are all routes, in order of preference; Chosen is the one that an operator chose, "" for none.
	Transports []string `json:"transports"`
	Chosen     string   `json:"chosen,omitempty"`
	// Causes are what ended the last session and what each route has failed of since, newest last; none in a session.
	Causes []Cause `json:"causes,omitempty"`
	// NextProbe is when a better route is tried again beside the session at the earliest; absent where there is none.
	// ProbeReason is what the last try failed of.
	NextProbe   *float64 `json:"next_probe_s,omitempty"`
	ProbeReason string   `json:"probe_reason,omitempty"`
	// NextAttempt is when the next attempt is made; 0 where none is planned.
	NextAttempt float64 `json:"next_attempt_s,omitempty"`
	// Spared is how long nobody can have that attempt made sooner, since what stands on the route asked for the wait, as a
	// proxy that refused the user does; 0 where none did.
	Spared float64 `json:"spared_s,omitempty"`
	// CredentialLife is what is left of the credential's life; 0 where it has no end.
	CredentialLife float64 `json:"credential_life_s,omitempty"`
	// CredentialGiven: it is renewed by whoever gave it, not by the device.
	CredentialGiven bool `json:"credential_given,omitempty"`
	// CredentialDoubt is why the hub may refuse the newest credential; "" where nothing speaks against it.
	CredentialDoubt string `json:"credential_doubt,omitempty"`
}

// Cause is something that stands in the way of a session.
type Cause struct {
	Route  string `json:"route"`
	Kind   string `json:"kind"`
	Phase  string `json:"phase,omitempty"`
	Reason string `json:"reason"`
	Count  int    `json:"count"`
}

// Outbox is what waits for the hub.
type Outbox struct {
	Mode        string `json:"mode"`
	Messages    int    `json:"messages"`
	Bytes       int    `json:"bytes"`
	MaxMessages int    `json:"max_messages"`
	MaxBytes    int    `json:"max_bytes"`
}

// Plugin is one plugin.
type Plugin struct {
	Name     string   `json:"name"`
	State    string   `json:"state"`
	PID      int      `json:"pid,omitempty"`
	Start    uint64   `json:"start"`
	Restarts int      `json:"restarts"`
	Reason   string   `json:"reason,omitempty"`
	LastExit string   `json:"last_exit,omitempty"`
	Degraded bool     `json:"degraded,omitempty"`
	Methods  []string `json:"methods"`
	// Metrics are the newest values of what the plugin measures.
	Metrics map[string]float64 `json:"metrics,omitempty"`
}

// Counters count since the runtime's start.
type Counters struct {
	Attempts          uint64 `json:"attempts"`
	Sessions          uint64 `json:"sessions"`
	Losses            uint64 `json:"losses"`
	Renewals          uint64 `json:"renewals"`
	Swaps             uint64 `json:"route_swaps"`
	ProbesFailed      uint64 `json:"route_probes_failed"`
	Submitted         uint64 `json:"telemetry_submitted"`
	Acknowledged      uint64 `json:"telemetry_acknowledged"`
	MethodsCalled     uint64 `json:"methods_called"`
	MethodsAnswered   uint64 `json:"methods_answered"`
	MessagesReceived  uint64 `json:"c2d_received"`
	MessagesCompleted uint64 `json:"c2d_completed"`
	DeadLetters       uint64 `json:"c2d_dead_letters"`
	PluginExits       uint64 `json:"plugin_exits"`
}

// newToken is the body of an update of the token; a core.Secret would hide it from the socket too.
type newToken struct {
	Token string `json:"token"`
}

// useRoute is the body of a choice of a route.
type useRoute struct {
	Use string `json:"use"`
}

// Reported answers a report.
type Reported struct {
	Version int64 `json:"version"`
}

// Seconds rounds a duration to milliseconds, in seconds.
func Seconds(d time.Duration) float64 { return float64(d.Milliseconds()) / 1000 }
