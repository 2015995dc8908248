package api

import (
	"fmt"
	"net/http"
)

// Error is a refusal of the hub. Callers branch on Code, IoT Hub's error number.
// https://learn.microsoft.com/azure/iot-hub/troubleshoot-error-codes
type Error struct {
	HTTPStatus int    // of the REST front and of twin topics
	Code       int    // IoT Hub's number
	Name       string // IoT Hub's word for it
	Message    string
}

// Error implements error.
func (e *Error) Error() string {
	return fmt.Sprintf("hub: %s (%d): %s", e.Name, e.Code, e.Message)
}

// Error numbers that the hub uses.
const (
	CodeArgumentInvalid    = 400004
	CodeUnknownUpload      = 400015
	CodeExpiredUpload      = 400016
	CodeStorage            = 400020
	CodeMessageTooLarge    = 413001
	CodeUnauthorized       = 401003
	CodeQuotaExceeded      = 403002
	CodeQueueFull          = 403004
	CodeTooManyUploads     = 403006
	CodeDeviceDisabled     = 403012
	CodeFileNotFound       = 404000 // ours
	CodeDeviceNotFound     = 404001
	CodeModuleNotFound     = 404010
	CodeNoSuchRoute        = 404901 // ours
	CodeCANotFound         = 404900 // ours: the real hub manages CAs elsewhere
	CodeNotOnline          = 404103
	CodeDeviceExists       = 409001
	CodeModuleExists       = 409301
	CodeCAExists           = 409900 // ours, as above
	CodePreconditionFailed = 412001
	CodeLockLost           = 412002
	CodeThrottled          = 429001
	CodeServerError        = 500001
	CodeGatewayTimeout     = 504101
)

// Refuse makes an *Error for one of the numbers above; an unknown number is 500.
func Refuse(code int, format string, args ...any) *Error {
	e := &Error{Code: code, Message: fmt.Sprintf(format, args...), HTTPStatus: code / 1000}
	switch code {
	case CodeArgumentInvalid:
		e.Name = "ArgumentInvalid"
	case CodeUnknownUpload:
		e.Name = "InvalidFileUploadCorrelationId"
	case CodeExpiredUpload:
		e.Name = "ExpiredFileUploadCorrelationId"
	case CodeStorage:
		e.Name = "InvalidStorageEndpointOrBlob"
	case CodeMessageTooLarge:
		e.Name = "MessageTooLarge"
	case CodeUnauthorized:
		e.Name = "IotHubUnauthorizedAccess"
	case CodeQuotaExceeded:
		e.Name = "IotHubQuotaExceeded"
	case CodeQueueFull:
		e.Name = "DeviceMaximumQueueDepthExceeded"
	case CodeTooManyUploads:
		e.Name = "DeviceMaximumActiveFileUploadLimitExceeded"
	case CodeDeviceDisabled:
		e.Name = "DeviceDisabled"
	case CodeFileNotFound:
		e.Name = "BlobNotFound"
	case CodeDeviceNotFound:
		e.Name = "DeviceNotFound"
	case CodeModuleNotFound:
		e.Name = "ModuleNotFound"
	case CodeNoSuchRoute:
		e.Name = "GenericNotFound"
	case CodeCANotFound:
		e.Name = "CertificateAuthorityNotFound"
	case CodeCAExists:
		e.Name = "CertificateAuthorityConflict"
	case CodeNotOnline:
		e.Name = "DeviceNotOnline"
	case CodeDeviceExists:
		e.Name = "DeviceAlreadyExists"
	case CodeModuleExists:
		e.Name = "ModuleAlreadyExistsOnDevice"
	case CodePreconditionFailed:
		e.Name = "PreconditionFailed"
	case CodeLockLost:
		e.Name = "DeviceMessageLockLost"
	case CodeThrottled:
		e.Name = "ThrottlingException"
	case CodeGatewayTimeout:
		e.Name = "GatewayTimeout"
	default:
		e.Name, e.HTTPStatus = "ServerError", http.StatusInternalServerError
	}
	return e
}
