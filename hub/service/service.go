package service

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/fairlead-iot/fairlead/hub/api"
	"github.com/fairlead-iot/fairlead/hub/internal/sas"
)

const (
	apiVersion = "2021-04-12"
	tokenTTL   = time.Hour
	// maxAnswer bounds what is read of an answer that is not a stream.
	maxAnswer = 64 << 20
)

// ConnectionString is a service connection string, taken apart.
type ConnectionString struct {
	HostName string
	Policy   string
	Key      string // base64; a secret
}

// ParseConnectionString reads
// "HostName=…;SharedAccessKeyName=…;SharedAccessKey=…". Errors never contain the
// text.
func ParseConnectionString(text string) (ConnectionString, error) {
	var c ConnectionString
	for part := range strings.SplitSeq(strings.TrimSpace(text), ";") {
		key, value, _ := strings.Cut(part, "=")
		switch key {
		case "HostName":
			c.HostName = value
		case "SharedAccessKeyName":
			c.Policy = value
		case "SharedAccessKey":
			c.Key = value
		case "DeviceId":
			return ConnectionString{}, errors.New("service: this is a device's connection string; a service needs one with SharedAccessKeyName")
		}
	}
	if c.HostName == "" || c.Policy == "" || c.Key == "" {
		return ConnectionString{}, errors.New("service: the connection string needs HostName, SharedAccessKeyName and SharedAccessKey")
	}
	if _, err := base64.StdEncoding.DecodeString(c.Key); err != nil {
		return ConnectionString{}, errors.New("service: SharedAccessKey is not base64")
	}
	return c, nil
}

// Options of a Client.
type Options struct {
	// CAPEM replaces the system's roots.
	CAPEM []byte
	// Address is dialed instead of HostName:443.
	Address string
	// DialContext is used instead of a net.Dialer.
	DialContext func(ctx context.Context, network, addr string) (net.Conn, error)
}

// Client talks to one hub.
type Client struct {
	cs   ConnectionString
	http *http.Client
}

// New makes a client. It does not connect.
func New(connectionString string, o Options) (*Client, error) {
	cs, err := ParseConnectionString(connectionString)
	if err != nil {
		return nil, err
	}
	tlsConfig := &tls.Config{MinVersion: tls.VersionTLS12}
	if o.CAPEM != nil {
		tlsConfig.RootCAs = x509.NewCertPool()
		if !tlsConfig.RootCAs.AppendCertsFromPEM(o.CAPEM) {
			return nil, errors.New("service: the CA file holds no certificate")
		}
	}
	dial := o.DialContext
	if dial == nil {
		dial = (&net.Dialer{Timeout: 10 * time.Second}).DialContext
	}
	transport := &http.Transport{
		TLSClientConfig:     tlsConfig,
		TLSHandshakeTimeout: 10 * time.Second,
		IdleConnTimeout:     30 * time.Second,
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			if o.Address != "" {
				addr = o.Address
			}
			return dial(ctx, network, addr)
		},
	}
	if o.Address == "" {
		transport.Proxy = http.ProxyFromEnvironment
	}
	return &Client{cs: cs, http: &http.Client{Transport: transport}}, nil
}

// Close lets go of idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// HostName returns the hub's name.
func (c *Client) HostName() string { return c.cs.HostName }

// request is one call.
type request struct {
	method  string
	path    string // escaped
	query   url.Values
	body    any
	ifMatch string
	header  http.Header // further headers; may be nil
}

// do sends a request and gives the answer of status 2xx; the caller closes its
// body.
func (c *Client) do(ctx context.Context, r request) (*http.Response, error) {
	where := fmt.Sprintf("%s https://%s%s", r.method, c.cs.HostName, r.path)
	if r.query == nil {
		r.query = url.Values{}
	}
	if !r.query.Has("api-version") {
		r.query.Set("api-version", apiVersion)
	}
	var body io.Reader
	if r.body != nil {
		text, err := json.Marshal(r.body)
		if err != nil {
			return nil, fmt.Errorf("%s: encode body: %w", where, err)
		}
		body = bytes.NewReader(text)
	}
	req, err := http.NewRequestWithContext(ctx, r.method, "https://"+c.cs.HostName+r.path+"?"+r.query.Encode(), body)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", where, err)
	}
	token, err := sas.New(c.cs.HostName, c.cs.Policy, c.cs.Key, time.Now().Add(tokenTTL))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", where, err)
	}
	req.Header.Set("Authorization", token)
	req.Header.Set("User-Agent", "fairlead")
	if body != nil {
		req.Header.Set("Content-Type", "application/json; charset=utf-8")
	}
	for name := range r.header {
		req.Header.Set(name, r.header.Get(name))
	}
	if r.ifMatch != "" {
		req.Header.Set("If-Match", r.ifMatch)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", where, err)
	}
	if resp.StatusCode/100 == 2 {
		return resp, nil
	}
	defer resp.Body.Close()                                   //nolint:errcheck // read to its end or given up
	text, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20)) // an error's text
	if err != nil {
		return nil, fmt.Errorf("%s: read answer: %w", where, err)
	}
	return nil, fmt.Errorf("%s: %w", where, readError(resp, text))
}

// call is do with a JSON answer, and gives its header; into nil ignores the
// answer. Numbers keep their form.
func (c *Client) call(ctx context.Context, r request, into any) (http.Header, error) {
	resp, err := c.do(ctx, r)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close() //nolint:errcheck // read to its end
	if into == nil {
		_, err := io.Copy(io.Discard, io.LimitReader(resp.Body, maxAnswer))
		return resp.Header, err
	}
	d := json.NewDecoder(io.LimitReader(resp.Body, maxAnswer))
	d.UseNumber()
	if err := d.Decode(into); err != nil {
		return nil, fmt.Errorf("%s %s: decode answer: %w", r.method, r.path, err)
	}
	return resp.Header, nil
}

// readError reads the envelopes that IoT Hub uses.
func readError(resp *http.Response, text []byte) *api.Error {
	e := &api.Error{HTTPStatus: resp.StatusCode, Code: resp.StatusCode * 1000, Message: resp.Status}
	// The provisioning service has no such header.
	e.Name = cmp.Or(resp.Header.Get("iothub-errorcode"), strings.ReplaceAll(http.StatusText(resp.StatusCode), " ", ""))
	// Both envelopes: names are matched without regard to case.
	var body struct {
		ErrorCode int    `json:"errorCode"`
		Message   string `json:"Message"`
	}
	if json.Unmarshal(text, &body) != nil || body.Message == "" {
		return e
	}
	var inner struct {
		ErrorCode int    `json:"errorCode"`
		Message   string `json:"message"`
	}
	if json.Unmarshal([]byte(body.Message), &inner) == nil && inner.ErrorCode != 0 {
		body.ErrorCode, body.Message = inner.ErrorCode, inner.Message
	}
	if name, rest, ok := strings.Cut(strings.TrimPrefix(body.Message, "ErrorCode:"), ";"); ok && strings.HasPrefix(body.Message, "ErrorCode:") {
		e.Name, body.Message = name, rest
	}
	e.Message = body.Message
	if body.ErrorCode != 0 {
		e.Code = body.ErrorCode
	}
	return e
}

func devicePath(root, id string) string {
	parsed := api.ParseID(id)
	path := root + "/" + url.PathEscape(parsed.Device)
	if parsed.Module != "" {
		path += "/modules/" + url.PathEscape(parsed.Module)
	}
	return path
}

// CreateDevice registers a device, or a module.
func (c *Client) CreateDevice(ctx context.Context, d api.Device) (api.Device, error) {
	if d.Authentication.Type == "" {
		d.Authentication.Type = "sas"
	}
	if d.Status == "" {
		d.Status = api.Enabled
	}
	var out api.Device
	_, err := c.call(ctx, request{method: http.MethodPut, path: devicePath("/devices", d.ID().String()), body: d}, &out)
	return out, err
}

// UpdateDevice changes an identity, whatever its entity tag.
func (c *Client) UpdateDevice(ctx context.Context, d api.Device) (api.Device, error) {
	var out api.Device
	_, err := c.call(ctx, request{method: http.MethodPut, path: devicePath("/devices", d.ID().String()), body: d, ifMatch: `"*"`}, &out)
	return out, err
}

// Device returns an identity; id is "device" or "device/module".
func (c *Client) Device(ctx context.Context, id string) (api.Device, error) {
	var out api.Device
	_, err := c.call(ctx, request{method: http.MethodGet, path: devicePath("/devices", id)}, &out)
	return out, err
}

// Devices lists up to 1000 devices.
func (c *Client) Devices(ctx context.Context) ([]api.Device, error) {
	var out []api.Device
	_, err := c.call(ctx, request{method: http.MethodGet, path: "/devices", query: url.Values{"top": {"1000"}}}, &out)
	return out, err
}

// DeleteDevice removes an identity.
func (c *Client) DeleteDevice(ctx context.Context, id string) error {
	_, err := c.call(ctx, request{method: http.MethodDelete, path: devicePath("/devices", id), ifMatch: `"*"`}, nil)
	return err
}

// Twin returns a twin as the hub writes it: JSON.
func (c *Client) Twin(ctx context.Context, id string) (json.RawMessage, error) {
	var out json.RawMessage
	_, err := c.call(ctx, request{method: http.MethodGet, path: devicePath("/twins", id)}, &out)
	return out, err
}

// PatchTwin merges a patch in the service's form and returns the twin.
func (c *Client) PatchTwin(ctx context.Context, id string, patch json.RawMessage) (json.RawMessage, error) {
	var out json.RawMessage
	_, err := c.call(ctx, request{method: http.MethodPatch, path: devicePath("/twins", id), body: patch, ifMatch: `"*"`}, &out)
	return out, err
}

// ReplaceTwin replaces tags and desired, each if present.
func (c *Client) ReplaceTwin(ctx context.Context, id string, document json.RawMessage) (json.RawMessage, error) {
	var out json.RawMessage
	_, err := c.call(ctx, request{method: http.MethodPut, path: devicePath("/twins", id), body: document, ifMatch: `"*"`}, &out)
	return out, err
}

// InvokeMethod calls a direct method.
func (c *Client) InvokeMethod(ctx context.Context, id string, r api.MethodRequest) (api.MethodResponse, error) {
	var out api.MethodResponse
	_, err := c.call(ctx, request{method: http.MethodPost, path: devicePath("/twins", id) + "/methods", body: r}, &out)
	return out, err
}

// Query runs a query and returns every page's items.
func (c *Client) Query(ctx context.Context, text string) ([]json.RawMessage, error) {
	r := request{method: http.MethodPost, path: "/devices/query", body: map[string]string{"query": text}, header: http.Header{}}
	r.header.Set("x-ms-max-item-count", "1000")
	var all []json.RawMessage
	for {
		var page []json.RawMessage
		header, err := c.call(ctx, r, &page)
		if err != nil {
			return nil, err
		}
		all = append(all, page...)
		next := header.Get("x-ms-continuation")
		if next == "" {
			return all, nil
		}
		r.header.Set("x-ms-continuation", next)
	}
}

// SendC2D queues a cloud-to-device message; the embedded hub only.
func (c *Client) SendC2D(ctx context.Context, device string, m api.C2D) error {
	_, err := c.call(ctx, request{method: http.MethodPost, path: devicePath("/fairlead/devices", device) + "/messages/devicebound", body: m}, nil)
	return err
}

// Counters returns what the embedded hub saw of an identity.
func (c *Client) Counters(ctx context.Context, id string) (api.Counters, error) {
	var out api.Counters
	_, err := c.call(ctx, request{method: http.MethodGet, path: devicePath("/fairlead/devices", id) + "/counters"}, &out)
	return out, err
}

// AddFault makes something go wrong in the embedded hub.
func (c *Client) AddFault(ctx context.Context, f api.Fault) (api.Fault, error) {
	var out api.Fault
	_, err := c.call(ctx, request{method: http.MethodPost, path: "/fairlead/faults", body: f}, &out)
	return out, err
}

// Faults lists what goes wrong now.
func (c *Client) Faults(ctx context.Context) ([]api.Fault, error) {
	var out []api.Fault
	_, err := c.call(ctx, request{method: http.MethodGet, path: "/fairlead/faults"}, &out)
	return out, err
}

// RemoveFault ends a fault by its id, or every one with "all".
func (c *Client) RemoveFault(ctx context.Context, id string) error {
	_, err := c.call(ctx, request{method: http.MethodDelete, path: "/fairlead/faults/" + url.PathEscape(id)}, nil)
	return err
}

// Monitor calls f for every device-to-cloud message that the filter chooses, and
// follows until the context ends, f returns an error (which Monitor returns), or
// the hub closes (nil). With neither Since nor From it begins with what comes.
// With follow false it ends with what is there. The embedded hub only.
func (c *Client) Monitor(ctx context.Context, filter api.MessageFilter, follow bool, f func(api.Message) error) error {
	q := url.Values{"follow": {strconv.FormatBool(follow)}}
	if filter.Device != "" {
		q.Set("device", filter.Device)
	}
	if filter.Source != "" {
		q.Set("source", filter.Source)
	}
	if filter.Module != "" {
		q.Set("module", filter.Module)
	}
	if !filter.Since.IsZero() {
		q.Set("since", filter.Since.UTC().Format(time.RFC3339Nano))
	}
	if filter.From != 0 {
		q.Set("from", strconv.FormatInt(filter.From, 10))
	}
	reading, cancel := context.WithCancel(ctx)
	defer cancel()
	resp, err := c.do(reading, request{method: http.MethodGet, path: "/fairlead/messages", query: q})
	if err != nil {
		return err
	}
	defer resp.Body.Close() //nolint:errcheck // a stream that is given up
	lines := bufio.NewReaderSize(resp.Body, 64<<10)
	for {
		line, err := lines.ReadBytes('\n')
		if err != nil && ctx.Err() != nil {
			return fmt.Errorf("read messages: %w", ctx.Err())
		}
		if errors.Is(err, io.EOF) && len(line) == 0 {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read messages: %w", err)
		}
		var m api.Message
		if err := json.Unmarshal(line, &m); err != nil {
			return err
		}
		if err := f(m); err != nil {
			return err
		}
	}
}
