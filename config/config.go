package config

import (
	"fmt"
	"strings"
	"time"

	"github.com/fairlead-iot/fairlead/core"
)

// CurrentVersion is the version of the file's format that this package writes and the newest that it reads.
const CurrentVersion = 1

// DefaultPath is where the command looks without -c.
const DefaultPath = "/etc/fairlead/fairlead.yaml"

// Config is the whole configuration, checked, with defaults filled in and names of files made absolute. It must not be changed
// while others read it. What each key means stands once, in schema.go; `fairlead config explain` prints it.
type Config struct {
	Version    int         `koanf:"version"`
	Device     Device      `koanf:"device"`
	Connection Connection  `koanf:"connection"`
	TLS        TLS         `koanf:"tls"`
	Transports []Transport `koanf:"transports"` // in order of preference, never empty
	Uploads    Uploads     `koanf:"uploads"`
	Outbox     Outbox      `koanf:"outbox"`
	Plugins    []Plugin    `koanf:"-"` // in file order, which decides between plugins that match one message
	StateDir   string      `koanf:"state_dir"`
	Log        Log         `koanf:"log"`

	files []string       // what was read, in order
	at    map[string]Pos // where each key that was given stands
}

// Device says who the device is. Of ConnectionString, SymmetricKey, SASToken, X509, Provisioning and EdgeEnvironment
// exactly one is set.
type Device struct {
	ConnectionString Source        `koanf:"connection_string"`
	SymmetricKey     *SymmetricKey `koanf:"symmetric_key"`
	SASToken         Source        `koanf:"sastoken"`
	X509             *X509         `koanf:"x509"`
	Provisioning     *Provisioning `koanf:"provisioning"`
	EdgeEnvironment  bool          `koanf:"edge_environment"`
	// GatewayHostname is the host to connect to in the hub's place; "" means the hub itself, or the gateway that the
	// connection string names.
	GatewayHostname string        `koanf:"gateway_hostname"`
	ProductInfo     string        `koanf:"product_info"`
	SASTokenTTL     time.Duration `koanf:"sastoken_ttl"`
}

// SymmetricKey is an identity with a key.
type SymmetricKey struct {
	Hostname string `koanf:"hostname"`
	DeviceID string `koanf:"device_id"`
	ModuleID string `koanf:"module_id"`
	Key      Source `koanf:"key"` // Base64
}

// X509 is an identity with a certificate.
type X509 struct {
	Hostname   string `koanf:"hostname"`
	DeviceID   string `koanf:"device_id"`
	ModuleID   string `koanf:"module_id"`
	CertFile   string `koanf:"cert_file"`
	KeyFile    string `koanf:"key_file"`
	PassPhrase Source `koanf:"pass_phrase"`
}

// Provisioning is an identity that the Device Provisioning Service hands out. Exactly one of X509, SymmetricKey and
// GroupSymmetricKey is set.
type Provisioning struct {
	Host              string           `koanf:"provisioning_host"`
	Port              int              `koanf:"port"`
	Address           string           `koanf:"address"` // "" means what DNS says
	IDScope           string           `koanf:"id_scope"`
	RegistrationID    string           `koanf:"registration_id"`
	SymmetricKey      Source           `koanf:"symmetric_key"`       // Base64
	GroupSymmetricKey Source           `koanf:"group_symmetric_key"` // Base64
	X509              *CertificateFile `koanf:"x509"`
	Payload           JSON             `koanf:"payload"`
	Reprovision       string           `koanf:"reprovision"` // one of the constants
}

// When a device asks the provisioning service again.
const (
	ReprovisionRefused = "when_refused"
	ReprovisionAtStart = "at_start"
	ReprovisionNever   = "never"
)

// CertificateFile is a certificate with its key, without an identity.
type CertificateFile struct {
	CertFile   string `koanf:"cert_file"`
	KeyFile    string `koanf:"key_file"`
	PassPhrase Source `koanf:"pass_phrase"`
}

// Connection says how the connection is kept.
type Connection struct {
	AutoConnect             bool          `koanf:"auto_connect"`
	Retry                   bool          `koanf:"connection_retry"`
	RetryInterval           time.Duration `koanf:"connection_retry_interval"`
	RetryMax                time.Duration `koanf:"connection_retry_max"`
	EnsureDesiredProperties bool          `koanf:"ensure_desired_properties"`
	KeepAlive               time.Duration `koanf:"keep_alive"` // whole seconds
}

// TLS says whom the device trusts.
type TLS struct {
	ServerVerificationCert PEM    `koanf:"server_verification_cert"`
	ExtraCA                PEM    `koanf:"extra_ca"`
	Cipher                 string `koanf:"cipher"` // OpenSSL names, joined with ":"
}

// What a transport is made of.
const (
	UseMQTT      = "mqtt"
	UseWebSocket = "mqttws"
)

// Transport is one way to the hub.
type Transport struct {
	Use     string `koanf:"use"` // one of the constants
	Port    int    `koanf:"port"`
	Address string `koanf:"address"` // "" means what DNS says
	Proxy   Proxy  `koanf:"proxy_options"`
}

// Proxy modes.
const (
	ProxyNone        = "none"
	ProxyEnvironment = "environment"
	ProxyFixed       = "fixed"
)

// Proxy says by which proxy to go. Mode is one of the constants; the other fields are set with ProxyFixed only.
type Proxy struct {
	Mode     string
	Type     string // HTTP, HTTPS, SOCKS4 or SOCKS5
	Addr     string
	Port     int
	Username string
	Password Source
	NoProxy  string // hosts that are reached directly, as NO_PROXY has them
}

// Uploads says how files are uploaded.
type Uploads struct {
	Proxy      Proxy  `koanf:"proxy_options"`
	Port       int    `koanf:"port"`        // the hub's
	Address    string `koanf:"address"`     // "" means what DNS says
	Files      int    `koanf:"files"`       // uploads at once
	Blocks     int    `koanf:"blocks"`      // of an upload, at once
	Bandwidth  int64  `koanf:"bandwidth"`   // bytes per second; 0 means without limit
	MaxStreams int64  `koanf:"max_streams"` // bytes of streams on disk
}

// Outbox says what becomes of messages that the hub has not acknowledged.
type Outbox struct {
	Mode        string        `koanf:"mode"` // memory or disk
	Linger      time.Duration `koanf:"linger"`
	MaxBytes    int64         `koanf:"max_bytes"`
	MaxMessages int           `koanf:"max_messages"`
	MaxAge      time.Duration `koanf:"max_age"` // 0 means without limit
	OnFull      string        `koanf:"on_full"` // block, drop_oldest or drop_newest
}

// Plugin is one plugin. Exactly one of Builtin and Command is set.
type Plugin struct {
	Name          string        `koanf:"-"`
	Builtin       string        `koanf:"builtin"`
	Command       []string      `koanf:"command"`
	Methods       []string      `koanf:"methods"`  // nil means what the plugin registers
	Messages      *Messages     `koanf:"messages"` // nil means that the file does not route messages to it
	TwinKeys      []string      `koanf:"twin_keys"`
	Uploads       []string      `koanf:"uploads"` // directories, absolute
	MethodTimeout time.Duration `koanf:"method_timeout"`
	Env           StringMap     `koanf:"env"`
	Settings      Settings      `koanf:"settings"`
}

// Messages picks cloud-to-device messages.
type Messages struct {
	Match StringMap `koanf:"match"` // every property must be there with this value
}

// Log says what is logged, to stderr.
type Log struct {
	Level  string `koanf:"level"`  // debug, info, warn or error
	Format string `koanf:"format"` // text, json or journald
}

// StringMap is a map of texts that a later layer replaces as a whole.
type StringMap map[string]string

// Settings are a plugin's own: what JSON can hold (nil, bool, int64, float64, string, []any, map[string]any). A later
// layer replaces them as a whole.
type Settings map[string]any

// JSON is a value of the user's, of whatever JSON can hold: see Settings. A later layer replaces it as a whole.
type JSON struct {
	Value any // nil means that there is none
}

// Files returns the files that were read, the main one first, then those of conf.d in order.
func (c *Config) Files() []string { return append([]string(nil), c.files...) }

// Where returns the position of a key, "device.connection_string", "transports[0].port", "plugins.NAME.command". A key
// that was not given yields the position of the nearest section around it, so that a problem always has a place.
func (c *Config) Where(key string) Pos {
	for k := key; ; {
		if p, ok := c.at[k]; ok {
			return p
		}
		up := parentKey(k)
		if up == k {
			break
		}
		k = up
	}
	p := Pos{Line: 1, Col: 1}
	if len(c.files) > 0 {
		p.File = c.files[0]
	}
	return p
}

// IsSet reports whether a key was given, in whatever layer, rather than left to its default.
func (c *Config) IsSet(key string) bool {
	_, ok := c.at[key]
	return ok
}

// Problem makes a problem of a key, with its position. The core.ErrInvalid that ends the text of an error is left out: a
// problem is one of the input already.
func (c *Config) Problem(key, format string, args ...any) Problem {
	text := strings.TrimSuffix(fmt.Sprintf(format, args...), ": "+core.ErrInvalid.Error())
	return Problem{Pos: c.Where(key), Key: key, Text: text}
}

// parentKey cuts the last part of "a.b[0].c"; "" is the parent of the top keys and of itself.
func parentKey(key string) string {
	for i := len(key) - 1; i >= 0; i-- {
		if key[i] == '.' || key[i] == '[' {
			return key[:i]
		}
	}
	return ""
}
