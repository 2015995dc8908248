package api

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"
)

// Kinds of attestation: how a device proves to the provisioning service who it
// is. https://learn.microsoft.com/azure/iot-dps/concepts-service#attestation-mechanism
const (
	AttestationSymmetricKey = "symmetricKey"
	AttestationX509         = "x509"
)

// Status of a registration.
const (
	RegistrationUnassigned = "unassigned"
	RegistrationAssigning  = "assigning"
	RegistrationAssigned   = "assigned"
	RegistrationFailed     = "failed"
	RegistrationDisabled   = "disabled"
)

// Substatus of a registration that is assigned.
// https://learn.microsoft.com/rest/api/iot-dps/service/device-registration-state/get
const (
	SubstatusInitial       = "initialAssignment"
	SubstatusReset         = "deviceDataReset"
	SubstatusReprovisioned = "reprovisionedToInitialAssignment"
)

// Enrollment lets one device register. The zero values of all but RegistrationID
// mean: a symmetric key that the hub makes, enabled, no initial twin, and
// re-provisioning that keeps the device's data.
type Enrollment struct {
	// RegistrationID is a "case-insensitive string (up to 128 characters long) of
	// alphanumeric characters plus the special characters: '-', '.', '_', ':'",
	// https://learn.microsoft.com/azure/iot-dps/concepts-service#registration-id.
	// A certificate's common name must be the same.
	RegistrationID string `json:"registrationId"`
	// DeviceID is the device's id in the hub, by default RegistrationID.
	DeviceID    string      `json:"deviceId,omitempty"`
	Attestation Attestation `json:"attestation"`
	// RegistrationState is what became of it, nil before the device has registered.
	// It is the hub's to write.
	RegistrationState *RegistrationState `json:"registrationState,omitempty"`
	EnrollmentSettings
}

// EnrollmentGroup lets many devices register: those whose key is derived from
// the group's, or whose certificate is signed by the group's authority. Each
// device gets its registration id as its id in the hub.
type EnrollmentGroup struct {
	EnrollmentGroupID string      `json:"enrollmentGroupId"`
	Attestation       Attestation `json:"attestation"`
	EnrollmentSettings
}

// EnrollmentSettings are what single enrollments and groups have in common.
// https://learn.microsoft.com/rest/api/iot-dps/service/individual-enrollment/create-or-update
type EnrollmentSettings struct {
	// ProvisioningStatus is Enabled (default) or Disabled.
	ProvisioningStatus string        `json:"provisioningStatus,omitempty"`
	Capabilities       *Capabilities `json:"capabilities,omitempty"`
	// InitialTwin is what the device's twin begins with, nil for nothing.
	InitialTwin *TwinPatch `json:"initialTwin,omitempty"`
	// ReprovisionPolicy says what a further registration does, nil for
	// "re-provision and migrate data".
	ReprovisionPolicy *ReprovisionPolicy `json:"reprovisionPolicy,omitempty"`
	// AllocationPolicy is hashed, geoLatency or static: whichever, the device comes
	// to this hub. IoTHubs and IoTHubHostName, if given, must name it.
	AllocationPolicy string   `json:"allocationPolicy,omitempty"`
	IoTHubs          []string `json:"iotHubs,omitempty"`
	IoTHubHostName   string   `json:"iotHubHostName,omitempty"`
	// ReturnPayload is any JSON that an assigned device is given as its payload. In
	// Azure a custom allocation's webhook makes it; here the enrollment has it.
	ReturnPayload json.RawMessage `json:"returnPayload,omitempty"`

	// The hub writes these.
	ETag                   string    `json:"etag,omitempty"`
	CreatedDateTimeUTC     time.Time `json:"createdDateTimeUtc,omitzero"`
	LastUpdatedDateTimeUTC time.Time `json:"lastUpdatedDateTimeUtc,omitzero"`
}

// ReprovisionPolicy of an enrollment.
// https://learn.microsoft.com/azure/iot-dps/concepts-device-reprovision
//
//	UpdateHubAssignment  MigrateDeviceData
//	true                 true   the device's twin stays (default)
//	true                 false  the device begins anew, with the initial twin
//	false                any    the device stays as it is
type ReprovisionPolicy struct {
	UpdateHubAssignment bool `json:"updateHubAssignment"`
	MigrateDeviceData   bool `json:"migrateDeviceData"`
}

// Attestation says how a device proves who it is. Without a Type it is
// AttestationX509 if X509 is there, else AttestationSymmetricKey.
type Attestation struct {
	Type string `json:"type"`
	// SymmetricKey holds the keys in base64; empty ones are made, or stay as they
	// are in an update. It is given back by what creates or updates, and by the
	// attestation route; not by lists.
	SymmetricKey *SymmetricKey    `json:"symmetricKey,omitempty"`
	X509         *X509Attestation `json:"x509,omitempty"`
}

// X509Attestation holds certificates: of the device itself in a single
// enrollment, of the authority in a group.
type X509Attestation struct {
	ClientCertificates  *X509Certificates `json:"clientCertificates,omitempty"`
	SigningCertificates *X509Certificates `json:"signingCertificates,omitempty"`
	// CAReferences name certificates that were uploaded by Azure's management API.
	// The embedded hub has none and refuses them.
	CAReferences json.RawMessage `json:"caReferences,omitempty"`
}

// X509Certificates are up to two, either of which is good.
type X509Certificates struct {
	Primary   *X509Certificate `json:"primary,omitempty"`
	Secondary *X509Certificate `json:"secondary,omitempty"`
}

// X509Certificate is a certificate.
type X509Certificate struct {
	// Certificate is PEM, or PEM or DER in base64. It is not given back.
	Certificate string `json:"certificate,omitempty"`
	// Info is what the hub read in it. In a single enrollment a thumbprint here does
	// instead of a certificate; that is this hub's own.
	Info *CertificateInfo `json:"info,omitempty"`
}

// CertificateInfo describes a certificate; thumbprints are in upper-case hex.
type CertificateInfo struct {
	SubjectName      string    `json:"subjectName,omitempty"`
	SHA1Thumbprint   string    `json:"sha1Thumbprint,omitempty"`
	SHA256Thumbprint string    `json:"sha256Thumbprint,omitempty"`
	IssuerName       string    `json:"issuerName,omitempty"`
	NotBeforeUTC     time.Time `json:"notBeforeUtc,omitzero"`
	NotAfterUTC      time.Time `json:"notAfterUtc,omitzero"`
	SerialNumber     string    `json:"serialNumber,omitempty"`
	Version          int       `json:"version,omitempty"`
}

// RegistrationState is what became of a device's registration.
// https://learn.microsoft.com/rest/api/iot-dps/device/runtime-registration/register-device
type RegistrationState struct {
	// X509 or SymmetricKey is there for the device, by its attestation.
	X509                   *RegistrationProof `json:"x509,omitempty"`
	SymmetricKey           *RegistrationProof `json:"symmetricKey,omitempty"`
	RegistrationID         string             `json:"registrationId"`
	CreatedDateTimeUTC     time.Time          `json:"createdDateTimeUtc,omitzero"`
	AssignedHub            string             `json:"assignedHub,omitempty"`
	DeviceID               string             `json:"deviceId,omitempty"`
	Status                 string             `json:"status"`
	Substatus              string             `json:"substatus,omitempty"`
	ErrorCode              int                `json:"errorCode,omitempty"`
	ErrorMessage           string             `json:"errorMessage,omitempty"`
	LastUpdatedDateTimeUTC time.Time          `json:"lastUpdatedDateTimeUtc,omitzero"`
	ETag                   string             `json:"etag,omitempty"`
	// Payload is what the device is given: the enrollment's ReturnPayload.
	Payload json.RawMessage `json:"payload,omitempty"`

	// For the service only, and this hub's own: what the device sent as its payload,
	// and the group that let it in, "" for an enrollment of its own.
	DevicePayload     json.RawMessage `json:"devicePayload,omitempty"`
	EnrollmentGroupID string          `json:"enrollmentGroupId,omitempty"`
}

// RegistrationProof says what let a device in.
type RegistrationProof struct {
	EnrollmentGroupID string `json:"enrollmentGroupId,omitempty"`
}

// OperationStatus is what a device is told of its registration.
type OperationStatus struct {
	OperationID       string             `json:"operationId"`
	Status            string             `json:"status"`
	RegistrationState *RegistrationState `json:"registrationState,omitempty"`
}

// Error numbers of the provisioning service. Its documentation has HTTP statuses
// only (https://learn.microsoft.com/azure/iot-dps/how-to-troubleshoot-dps); where
// a number was seen on the wire it stands here, else it is the status with three
// zeros, as in the numbers that were seen.
const (
	// CodeProvisioningUnauthorized is that of a wrong key or certificate.
	CodeProvisioningUnauthorized = 401002
	// CodeEnrollmentNotFound and CodeRegistrationNotFound were seen both; which is
	// which is not known.
	CodeEnrollmentNotFound   = 404201
	CodeRegistrationNotFound = 404202
	// CodeScopeNotFound is an id scope that no provisioning service has, and an
	// address that means nothing.
	CodeScopeNotFound         = 404000
	CodeMethodNotAllowed      = 405000
	CodeEnrollmentExists      = 409000
	CodeEnrollmentETagInvalid = 412000
)

// RefuseProvisioning makes an *Error of the provisioning service: its HTTP
// status is the number's first three digits.
func RefuseProvisioning(code int, format string, args ...any) *Error {
	status := code / 1000
	return &Error{
		Code: code, HTTPStatus: status, Message: fmt.Sprintf(format, args...),
		Name: strings.ReplaceAll(http.StatusText(status), " ", ""),
	}
}
