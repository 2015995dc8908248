package device

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"time"

	"github.com/fairlead-iot/fairlead/core"
	"github.com/fairlead-iot/fairlead/credentials"
	"github.com/fairlead-iot/fairlead/transports/http"
	"github.com/fairlead-iot/fairlead/transports/mqtt"
	"github.com/fairlead-iot/fairlead/transports/mqttws"
	"github.com/fairlead-iot/fairlead/transports/netdial"
	"github.com/fairlead-iot/fairlead/uploads"
)

// Options is what a constructor may be told. They have the names of the Python client's options; a constructor fills in
// the defaults, and hands them to the functions that change them:
//
//	device.FromConnectionString(text, func(o *device.Options) { o.KeepAlive = 30 * time.Second })
type Options struct {
	// ServerVerificationCert, PEM, replaces the roots against which the hub's (or gateway's) certificate is checked.
	ServerVerificationCert []byte
	// GatewayHostname is the host to connect to in the hub's place (an IoT Edge gateway). A connection string has its own.
	GatewayHostname string
	// Cipher lists the suites of TLS 1.2 by OpenSSL's names, as in "ECDHE-RSA-AES256-GCM-SHA384:…"; "" is Go's choice. TLS 1.3
	// stays allowed unless "!TLSv1.3" is among them.
	Cipher string
	// ProductInfo is told to the hub as part of the user agent; one that begins with "dtmi:" is the device's Plug and Play
	// model. https://learn.microsoft.com/azure/iot/concepts-developer-guide-device
	ProductInfo string
	// SASTokenTTL is the life of a token that is signed with a key: 10 s to 365 days, an hour if not set. It is renewed at
	// 80 to 85 % of it, unnoticed.
	SASTokenTTL time.Duration
	// Proxy, if set, is the only way to the hub, and to the storage of uploads.
	Proxy ProxyOptions
	// KeepAlive is the longest silence before a ping: 1 s to 1740 s, a minute if not set.
	KeepAlive time.Duration
	// WebSockets: MQTT goes through a WebSocket on port 443, where only HTTPS gets out. The provisioning service is spoken
	// with in the same way.
	WebSockets bool
	// AutoConnect: an operation that needs a session makes one. True if not set.
	AutoConnect bool
	// ConnectionRetry: a lost session is made again, a failed attempt repeated. True if not set.
	ConnectionRetry bool
	// ConnectionRetryInterval is the longest wait between attempts in the first 5 minutes of an outage, 10 s if not set;
	// ConnectionRetryMax later, 10 minutes if not set.
	ConnectionRetryInterval, ConnectionRetryMax time.Duration
	// EnsureDesiredProperties: each session begins with a look at the twin, so that no change is missed. True if not set.
	EnsureDesiredProperties bool

	// What follows is not among the Python client's options.

	// ExtraCA, PEM, is trusted beside the roots.
	ExtraCA []byte
	// Port is the hub's, 8883 if not set, or 443 with WebSockets; HTTPSPort is the one for uploads, and the Edge hub's for
	// InvokeMethod, 443 if not set. Address, if set, is dialed in place of the hub's name.
	Port, HTTPSPort int
	Address         string
	// DialContext, if set, takes the place of DNS and TCP, to a proxy too.
	DialContext func(ctx context.Context, network, addr string) (net.Conn, error)
	// UserAgent names the program to the hub, before ProductInfo; it has a default.
	UserAgent string
	// OutboxMessages and OutboxBytes bound what waits for the hub; 0 means 10 000 messages and 64 MiB.
	OutboxMessages, OutboxBytes int
	// Logger gets what happens, at level debug everything but payloads and secrets; nil is none.
	Logger *slog.Logger
}

// FromConnectionString makes a client of the connection string of a device or a module, as the portal or
// `az iot hub device-identity connection-string show` prints it. It starts no connection. Its errors wrap ErrInvalid, say
// what to mend, and never contain a key.
//
// https://learn.microsoft.com/azure/iot-hub/iot-hub-devguide-security
func FromConnectionString(text string, change ...func(*Options)) (*Client, error) {
	cs, err := credentials.ParseConnectionString(text)
	if err != nil {
		return nil, fmt.Errorf("device: %w", err)
	}
	if cs.X509 {
		return nil, fmt.Errorf("device: the connection string says x509=true: the certificate comes from elsewhere, "+
			"so make the client with FromX509: %w", ErrInvalid)
	}
	return fromKey(cs.Identity, cs.Key, change)
}

// FromSymmetricKey makes a client of a device's key (base64), its hub's name and its id; for a module the id is
// "device/module". Its errors wrap ErrInvalid and never contain the key.
func FromSymmetricKey(key, hostname, deviceID string, change ...func(*Options)) (*Client, error) {
	return fromKey(parseID(hostname, deviceID), core.Secret(key), change)
}

func fromKey(id Identity, key core.Secret, change []func(*Options)) (*Client, error) {
	o := newOptions(change)
	if err := o.complete(&id); err != nil {
		return nil, err
	}
	source, err := credentials.NewSharedKey(id, key, o.SASTokenTTL, time.Now)
	if err != nil {
		return nil, fmt.Errorf("device: %w", err)
	}
	return o.client(id, source)
}

func newOptions(change []func(*Options)) *Options {
	d := DefaultConfig()
	o := &Options{
		SASTokenTTL: time.Hour, KeepAlive: time.Minute, AutoConnect: d.AutoConnect, ConnectionRetry: d.ConnectionRetry,
		ConnectionRetryInterval: d.ConnectionRetryInterval, ConnectionRetryMax: d.ConnectionRetryMax,
		EnsureDesiredProperties: d.EnsureDesiredProperties,
	}
	for _, f := range change {
		f(o)
	}
	return o
}

// complete checks the options that no part checks by itself, and adds to the identity what they say of it.
func (o *Options) complete(id *Identity) error {
	switch {
	case o.KeepAlive <= 0:
		return fmt.Errorf("device: KeepAlive is %v: %w: give it 1s to 1740s", o.KeepAlive, ErrInvalid)
	case o.ConnectionRetryInterval <= 0:
		return fmt.Errorf("device: ConnectionRetryInterval is %v: %w: it must be above 0", o.ConnectionRetryInterval, ErrInvalid)
	case o.ConnectionRetryMax < o.ConnectionRetryInterval:
		return fmt.Errorf("device: ConnectionRetryMax (%v) is below ConnectionRetryInterval (%v): %w: raise the one or lower the other",
			o.ConnectionRetryMax, o.ConnectionRetryInterval, ErrInvalid)
	case o.OutboxMessages < 0 || o.OutboxBytes < 0:
		return fmt.Errorf("device: OutboxMessages and OutboxBytes cannot be negative: %w", ErrInvalid)
	case id.Gateway != "" && o.GatewayHostname != "" && id.Gateway != o.GatewayHostname:
		return fmt.Errorf("device: GatewayHostname is not the GatewayHostName of the connection string: %w: keep one of them", ErrInvalid)
	case o.GatewayHostname != "":
		id.Gateway = o.GatewayHostname
	}
	return nil
}

// client puts the parts together.
func (o *Options) client(id Identity, source CredentialSource) (*Client, error) {
	routes, err := o.transports(id)
	if err != nil {
		return nil, err
	}
	return o.clientBy(id, source, routes, o.files)
}

// transports makes the routes to the hub.
func (o *Options) transports(id Identity) ([]core.Transport, error) {
	trust, err := o.tls()
	if err != nil {
		return nil, err
	}
	newTransport := mqtt.New
	if o.WebSockets {
		newTransport = mqttws.New
	}
	t, err := newTransport(mqtt.Config{
		Identity: id, ProductInfo: o.ProductInfo, UserAgent: o.UserAgent, KeepAlive: o.KeepAlive, Port: o.Port, Address: o.Address,
		TLS: trust, Proxy: o.Proxy, DialContext: o.DialContext, Logger: o.Logger,
	})
	if err != nil {
		return nil, fmt.Errorf("device: %w", err)
	}
	return []core.Transport{t}, nil
}

// tls says whom to trust, and by which suites.
func (o *Options) tls() (netdial.TLSConfig, error) {
	ciphers, err := netdial.ParseCiphers(o.Cipher)
	if err != nil {
		return netdial.TLSConfig{}, fmt.Errorf("device: Cipher: %w: %w", err, ErrInvalid)
	}
	return netdial.TLSConfig{ServerVerificationCert: o.ServerVerificationCert, ExtraCA: o.ExtraCA, Ciphers: ciphers}, nil
}

// filesBy makes what asks a hub about uploads.
type filesBy func(Identity, CredentialSource) (core.FileService, error)

func (o *Options) clientBy(id Identity, source CredentialSource, routes []core.Transport, files filesBy) (*Client, error) {
	trust, err := o.tls()
	if err != nil {
		return nil, err
	}
	storage, err := http.NewStorage(http.StorageConfig{TLS: trust, Proxy: o.Proxy, DialContext: o.DialContext})
	if err != nil {
		return nil, fmt.Errorf("device: %w", err)
	}
	return New(Config{
		Uploads:  &uploads.Config{Storage: storage},
		Identity: id, Credentials: source, Transports: routes, Files: files,
		AutoConnect: o.AutoConnect, ConnectionRetry: o.ConnectionRetry,
		ConnectionRetryInterval: o.ConnectionRetryInterval, ConnectionRetryMax: o.ConnectionRetryMax,
		EnsureDesiredProperties: o.EnsureDesiredProperties,
		OutboxMessages:          o.OutboxMessages, OutboxBytes: o.OutboxBytes, Logger: o.Logger,
	})
}

// files makes what asks the hub about uploads.
func (o *Options) files(id Identity, source CredentialSource) (core.FileService, error) {
	client, err := o.https(id, source)
	if err != nil {
		return nil, err // not a *http.Client that is nil
	}
	return client, nil
}

// https makes what asks the hub over HTTPS.
func (o *Options) https(id Identity, source CredentialSource) (*http.Client, error) {
	trust, err := o.tls()
	if err != nil {
		return nil, err
	}
	client, err := http.New(http.Config{
		Identity: id, Credentials: source, UserAgent: o.UserAgent, ProductInfo: o.ProductInfo, Port: o.HTTPSPort, Address: o.Address,
		TLS: trust, Proxy: o.Proxy, DialContext: o.DialContext,
	})
	if err != nil {
		return nil, fmt.Errorf("device: %w", err)
	}
	return client, nil
}

// parseID takes a module's id off its device's. What has a slash and no module keeps it, and is refused for that.
func parseID(hostname, id string) Identity {
	deviceID, moduleID, _ := strings.Cut(id, "/")
	if moduleID == "" {
		deviceID = id
	}
	return Identity{Hostname: hostname, DeviceID: deviceID, ModuleID: moduleID}
}
