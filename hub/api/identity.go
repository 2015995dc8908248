package api

import (
	"encoding/json"
	"strings"
	"time"
)

// ID names an identity: a device, or a module of a device.
type ID struct {
	Device string
	Module string // "" for the device itself
}

// ParseID reads "device" or "device/module".
func ParseID(text string) ID {
	device, module, _ := strings.Cut(text, "/")
	return ID{device, module}
}

// String returns "device" or "device/module", which is also the MQTT client id.
func (id ID) String() string {
	if id.Module == "" {
		return id.Device
	}
	return id.Device + "/" + id.Module
}

// Status of an identity.
const (
	Enabled  = "enabled"
	Disabled = "disabled"
)

// ConnectionState of an identity.
const (
	Connected    = "Connected"
	Disconnected = "Disconnected"
)

// SymmetricKey holds two base64 keys; either may sign.
type SymmetricKey struct {
	PrimaryKey   string `json:"primaryKey"`
	SecondaryKey string `json:"secondaryKey"`
}

// X509Thumbprint holds two SHA-1 or SHA-256 thumbprints.
type X509Thumbprint struct {
	PrimaryThumbprint   *string `json:"primaryThumbprint"`
	SecondaryThumbprint *string `json:"secondaryThumbprint"`
}

// Types of authentication.
const (
	AuthSAS        = "sas"                  // a symmetric key
	AuthSelfSigned = "selfSigned"           // a certificate that is known by its thumbprint
	AuthCA         = "certificateAuthority" // a certificate of a registered CA
	AuthNone       = "none"
)

// Authentication says how an identity proves itself.
type Authentication struct {
	Type           string         `json:"type"`
	SymmetricKey   SymmetricKey   `json:"symmetricKey"`
	X509Thumbprint X509Thumbprint `json:"x509Thumbprint"`
}

// CA is a certificate authority whose devices the hub believes.
type CA struct {
	Name        string    `json:"name"`
	Subject     string    `json:"subject"`
	Thumbprint  string    `json:"thumbprint"` // SHA-256, in upper case
	NotAfter    time.Time `json:"notAfter"`
	Certificate string    `json:"certificate"` // PEM
}

// Capabilities of a device.
type Capabilities struct {
	IoTEdge bool `json:"iotEdge"`
}

// Device is a device or module identity of the registry. Never-set times are
// 0001-01-01T00:00:00Z.
type Device struct {
	DeviceID                   string         `json:"deviceId"`
	ModuleID                   string         `json:"moduleId,omitempty"`
	ManagedBy                  string         `json:"managedBy,omitempty"`
	GenerationID               string         `json:"generationId"`
	ETag                       string         `json:"etag"`
	ConnectionState            string         `json:"connectionState"`
	Status                     string         `json:"status"`
	StatusReason               *string        `json:"statusReason"`
	ConnectionStateUpdatedTime time.Time      `json:"connectionStateUpdatedTime"`
	StatusUpdatedTime          time.Time      `json:"statusUpdatedTime"`
	LastActivityTime           time.Time      `json:"lastActivityTime"`
	CloudToDeviceMessageCount  int            `json:"cloudToDeviceMessageCount"`
	Authentication             Authentication `json:"authentication"`
	Capabilities               Capabilities   `json:"capabilities"`
	DeviceScope                string         `json:"deviceScope,omitempty"`
	ParentScopes               []string       `json:"parentScopes,omitempty"`
}

// ID returns the identity's name.
func (d Device) ID() ID { return ID{d.DeviceID, d.ModuleID} }

// Twin is the document of an identity as the service sees it. Numbers in Tags
// and Properties are json.Number.
type Twin struct {
	DeviceID                  string         `json:"deviceId"`
	ModuleID                  string         `json:"moduleId,omitempty"`
	ETag                      string         `json:"etag"`
	DeviceETag                string         `json:"deviceEtag"`
	Status                    string         `json:"status"`
	StatusReason              *string        `json:"statusReason,omitempty"`
	StatusUpdateTime          time.Time      `json:"statusUpdateTime"`
	ConnectionState           string         `json:"connectionState"`
	LastActivityTime          time.Time      `json:"lastActivityTime"`
	CloudToDeviceMessageCount int            `json:"cloudToDeviceMessageCount"`
	AuthenticationType        string         `json:"authenticationType"`
	X509Thumbprint            X509Thumbprint `json:"x509Thumbprint"`
	ModelID                   string         `json:"modelId"`
	Version                   int64          `json:"version"`
	Tags                      map[string]any `json:"tags,omitempty"`
	Properties                TwinProperties `json:"properties"`
	Capabilities              Capabilities   `json:"capabilities"`
	DeviceScope               string         `json:"deviceScope,omitempty"`
	ParentScopes              []string       `json:"parentScopes,omitempty"`
}

// TwinProperties are the two halves; each holds $metadata and $version too.
type TwinProperties struct {
	Desired  map[string]any `json:"desired"`
	Reported map[string]any `json:"reported"`
}

// TwinPatch is what the service may change. In a patch a null deletes a member;
// in a replacement a section that is present replaces the whole section.
type TwinPatch struct {
	Tags       map[string]any       `json:"tags,omitempty"`
	Properties *TwinPatchProperties `json:"properties,omitempty"`
}

// TwinPatchProperties holds the desired half. Reported belongs to the device.
type TwinPatchProperties struct {
	Desired map[string]any `json:"desired,omitempty"`
}

// MethodRequest calls a direct method.
type MethodRequest struct {
	MethodName string `json:"methodName"`
	// Payload is JSON, nil for null; at most 128 KiB.
	Payload json.RawMessage `json:"payload,omitempty"`
	// ResponseTimeoutInSeconds is 5 to 300, nil for the default of 30.
	ResponseTimeoutInSeconds *int `json:"responseTimeoutInSeconds,omitempty"`
	// ConnectTimeoutInSeconds is 0 to 300: how long to wait for the device to appear.
	ConnectTimeoutInSeconds *int `json:"connectTimeoutInSeconds,omitempty"`
}

// MethodResponse is the device's answer.
type MethodResponse struct {
	Status  int             `json:"status"`
	Payload json.RawMessage `json:"payload"`
}
