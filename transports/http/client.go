package http //nolint:revive // see doc.go

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/fairlead-iot/fairlead/core"
	"github.com/fairlead-iot/fairlead/transports/netdial"
)

const (
	// DefaultPort is the hub's for HTTPS.
	DefaultPort = 443
	// PhaseHTTP is the phase of what goes wrong once TLS is up.
	PhaseHTTP = "http"

	apiVersion = "2021-04-12"
	// requestTimeout bounds a request, the connection included.
	requestTimeout = 30 * time.Second
	// maxAnswer bounds the body of an answer, in bytes.
	maxAnswer = 64 << 10
)

// Config says whose requests, and how to reach the hub. Identity and Credentials are required.
type Config struct {
	// Identity is whom the credentials prove, unless they say it themselves.
	Identity    core.Identity
	Credentials core.CredentialSource
	// UserAgent names the program, ProductInfo the product.
	UserAgent, ProductInfo string
	// Port is the hub's, 443 if 0. Address, if set, is dialed in place of the hub's name.
	Port    int
	Address string
	TLS     netdial.TLSConfig
	// Proxy, if set, is the only way out.
	Proxy netdial.Proxy
	// DialContext, if set, takes the place of DNS and TCP.
	DialContext netdial.ContextDialer
	// Now is the wall clock against which certificates are checked; nil is time.Now.
	Now func() time.Time
}

// Client asks the hub. It implements core.FileService.
type Client struct {
	cfg Config

	mu     sync.Mutex
	dialer *netdial.Dialer // to the host below
	host   string
}

var _ core.FileService = (*Client)(nil)

// New checks the configuration, certificates included. Its error wraps core.ErrInvalid.
func New(cfg Config) (*Client, error) {
	if cfg.Credentials == nil {
		return nil, fmt.Errorf("make https client: no credentials: %w", core.ErrInvalid)
	}
	if cfg.Port == 0 {
		cfg.Port = DefaultPort
	}
	if cfg.UserAgent == "" {
		cfg.UserAgent = "fairlead (" + runtime.Version() + "; " + runtime.GOOS + "; " + runtime.GOARCH + ")"
	}
	c := &Client{cfg: cfg}
	host := cfg.Identity.ConnectHost()
	if host == "" {
		host = "localhost" // who it is turns out later; what is wrong with the rest shows now
	}
	if _, err := c.dialerTo(host); err != nil {
		return nil, err
	}
	return c, nil
}

// StorageInfo implements core.FileService.
func (c *Client) StorageInfo(ctx context.Context, blobName string) (core.StorageInfo, error) {
	const op = "get storage info"
	if blobName == "" {
		return core.StorageInfo{}, fmt.Errorf("%s: the blob has no name: %w", op, core.ErrInvalid)
	}
	var answer struct {
		CorrelationID string `json:"correlationId"`
		HostName      string `json:"hostName"`
		ContainerName string `json:"containerName"`
		BlobName      string `json:"blobName"`
		SASToken      string `json:"sasToken"`
	}
	if err := c.post(ctx, op, "/files", "application/json", map[string]string{"blobName": blobName}, &answer); err != nil {
		return core.StorageInfo{}, err
	}
	if slices.Contains([]string{answer.CorrelationID, answer.HostName, answer.ContainerName, answer.BlobName, answer.SASToken}, "") {
		return core.StorageInfo{}, &core.Error{Op: op, Kind: core.Transient, Phase: PhaseHTTP, Err: errors.New("the hub's answer lacks a part of the address")}
	}
	token := answer.SASToken
	if !strings.HasPrefix(token, "?") {
		token = "?" + token
	}
	return core.StorageInfo{
		CorrelationID: answer.CorrelationID, HostName: answer.HostName, ContainerName: answer.ContainerName, BlobName: answer.BlobName,
		SASToken: core.Secret(token),
	}, nil
}

// NotifyUpload implements core.FileService.
func (c *Client) NotifyUpload(ctx context.Context, o core.UploadOutcome) error {
	const op = "notify of an upload"
	if o.CorrelationID == "" {
		return fmt.Errorf("%s: there is no correlation id: %w", op, core.ErrInvalid)
	}
	// The id goes into the body, as the Python client has it. The other form, in the address, is the one of clients that
	// ask the hub to decode a path, where a slash of the id may get lost in a proxy.
	return c.post(ctx, op, "/files/notifications", "application/json; charset=utf-8", struct {
		CorrelationID     string `json:"correlationId"`
		IsSuccess         bool   `json:"isSuccess"`
		StatusCode        int    `json:"statusCode"`
		StatusDescription string `json:"statusDescription"`
	}{o.CorrelationID, o.Success, o.StatusCode, o.Description}, nil)
}

// post sends one request about the device, and reads its answer as JSON into answer, if that is not nil.
func (c *Client) post(ctx context.Context, op, path, contentType string, body, answer any) error {
	text, err := json.Marshal(body)
	if err != nil {
		return fmt.Errorf("%s: %w: %w", op, core.ErrInvalid, err)
	}
	_, err = c.exchange(ctx, request{
		op: op, path: func(id core.Identity) string { return "/devices/" + nameOf(id) + path + "?api-version=" + apiVersion },
		contentType: contentType, body: text, limit: requestTimeout, most: maxAnswer, answer: answer,
	})
	return err
}

// request is a POST.
type request struct {
	op          string
	path        func(who core.Identity) string // with the query; who asks may be known by the credential only
	contentType string
	header      http.Header // besides those of every request
	body        []byte
	limit       time.Duration // for all of it, the connection included
	most        int           // bytes of the answer that are read, and one more if there is one
	answer      any           // what the JSON of the answer is read into; nil leaves it to the caller
	isOfOthers  bool          // an error is about somebody else than the device
}

// nameOf is how addresses name a device, or a module.
func nameOf(id core.Identity) string {
	name := escape(id.DeviceID)
	if id.ModuleID != "" {
		name += "/modules/" + escape(id.ModuleID)
	}
	return name
}

// exchange sends a request and returns the body of its answer, which is 2xx.
func (c *Client) exchange(ctx context.Context, r request) ([]byte, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, r.limit, fmt.Errorf("no answer within %v: %w", r.limit, core.ErrTimeout))
	defer cancel()
	credential, err := c.cfg.Credentials.Credential(ctx)
	if err != nil {
		return nil, err
	}
	id := c.cfg.Identity
	if credential.Identity != (core.Identity{}) {
		id = credential.Identity
	}
	op := r.op + " at " + id.Hostname
	dialer, err := c.dialerTo(id.ConnectHost())
	if err != nil {
		return nil, err
	}
	address := "https://" + net.JoinHostPort(withoutPort(id.ConnectHost()), strconv.Itoa(c.cfg.Port)) + r.path(id)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, address, bytes.NewReader(r.body))
	if err != nil {
		return nil, fmt.Errorf("%s: %w: %w", op, core.ErrInvalid, err)
	}
	maps.Copy(req.Header, r.header)
	// A gateway relays by the hub's name, as in the seed client.
	req.Host = withoutPort(id.Hostname)
	req.Header.Set("Content-Type", r.contentType)
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", c.userAgent())
	if credential.Token != "" {
		req.Header.Set("Authorization", credential.Token.Reveal())
	}
	t := dialer.HTTPTransport(func() core.Credential { return credential })
	t.ResponseHeaderTimeout = 0 // the limit is the request's
	t.DisableKeepAlives, t.DisableCompression = true, true
	resp, err := t.RoundTrip(req) // which follows no redirect: another host is not to be asked, nor shown the token
	if err != nil {
		return nil, failure(ctx, op, err)
	}
	defer resp.Body.Close() //nolint:errcheck // it was read
	content, err := io.ReadAll(io.LimitReader(resp.Body, int64(r.most)+1))
	switch {
	case resp.StatusCode/100 != 2:
		err = refusal(op, resp, content, c.now(), r.isOfOthers)
	case err != nil:
		err = failure(ctx, op, err)
	case r.answer != nil && json.Unmarshal(content, r.answer) != nil:
		err = &core.Error{Op: op, Kind: core.Transient, Phase: PhaseHTTP, Err: errors.New("the hub's answer is not the JSON that was expected")}
	}
	// A server, or a proxy, that sees the client go may still answer, and be read before the connection is closed.
	if cause := context.Cause(ctx); err != nil && cause != nil {
		err = failure(ctx, op, cause)
	}
	if err != nil {
		return nil, err
	}
	return content, nil
}

// Trust replaces whom the client trusts, for the requests from then on. Its error wraps core.ErrInvalid.
func (c *Client) Trust(t netdial.TLSConfig) error {
	c.mu.Lock()
	before, host := c.cfg.TLS, c.host
	c.cfg.TLS, c.dialer = t, nil
	c.mu.Unlock()
	if _, err := c.dialerTo(host); err != nil {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.cfg.TLS = before
		return err
	}
	return nil
}

// dialerTo returns the dialer to a hub, which may be another one after a reassignment.
func (c *Client) dialerTo(host string) (*netdial.Dialer, error) {
	host = withoutPort(host)
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.dialer != nil && c.host == host {
		return c.dialer, nil
	}
	d, err := netdial.New(netdial.Config{
		Host: host, Port: c.cfg.Port, Address: c.cfg.Address, TLS: c.cfg.TLS, Proxy: c.cfg.Proxy, Renegotiate: true, UserTimeout: unacknowledged,
		DialContext: c.cfg.DialContext, Now: c.cfg.Now,
	})
	if err != nil {
		return nil, err
	}
	c.dialer, c.host = d, host
	return d, nil
}

func (c *Client) userAgent() string {
	if c.cfg.ProductInfo == "" {
		return escape(c.cfg.UserAgent)
	}
	return escape(c.cfg.UserAgent + " " + c.cfg.ProductInfo)
}

func (c *Client) now() time.Time {
	if c.cfg.Now != nil {
		return c.cfg.Now()
	}
	return time.Now()
}

// withoutPort takes off the port that a hub's name may have: it is the one of MQTT.
func withoutPort(host string) string {
	if name, _, err := net.SplitHostPort(host); err == nil {
		return name
	}
	return host
}

// escape percent-encodes all but the unreserved characters.
func escape(s string) string {
	const digits = "0123456789ABCDEF"
	var b strings.Builder
	for i := range len(s) {
		c := s[i]
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("-._~", c) >= 0 {
			b.WriteByte(c)
			continue
		}
		b.WriteByte('%')
		b.WriteByte(digits[c>>4])
		b.WriteByte(digits[c&15])
	}
	return b.String()
}
