package blob

import (
	"encoding/xml"
	"fmt"
	"net/http"
	"time"
)

// Error is a refusal in Azure's words: a name that clients branch on, and a
// status. https://learn.microsoft.com/rest/api/storageservices/blob-service-error-codes
type Error struct {
	Status  int
	Code    string
	Message string
	Detail  string // AuthenticationErrorDetail; may be empty
}

// Error implements error.
func (e *Error) Error() string { return fmt.Sprintf("blob: %s (%d): %s", e.Code, e.Status, e.Message) }

// Names of refusals.
const (
	codeAlreadyExists     = "BlobAlreadyExists"
	codeAuthentication    = "AuthenticationFailed"
	codeBlockCount        = "BlockCountExceedsLimit"
	codeBlockListTooLong  = "BlockListTooLong"
	codeCondition         = "ConditionNotMet"
	codeCRC64Mismatch     = "Crc64Mismatch"
	codeHeaderValue       = "InvalidHeaderValue"
	codeInternal          = "InternalError"
	codeInvalidBlobBlock  = "InvalidBlobOrBlock"
	codeInvalidBlockID    = "InvalidBlockId"
	codeInvalidBlockList  = "InvalidBlockList"
	codeInvalidInput      = "InvalidInput"
	codeInvalidMD5        = "InvalidMd5"
	codeInvalidRange      = "InvalidRange"
	codeInvalidURI        = "InvalidUri"
	codeInvalidXML        = "InvalidXmlDocument"
	codeMD5Mismatch       = "Md5Mismatch"
	codeMetadataTooLarge  = "MetadataTooLarge"
	codeMissingHeader     = "MissingRequiredHeader"
	codeMissingLength     = "MissingContentLengthHeader"
	codeNoAuthentication  = "NoAuthenticationInformation"
	codeNotFound          = "BlobNotFound"
	codePermission        = "AuthorizationPermissionMismatch"
	codeQueryValue        = "InvalidQueryParameterValue"
	codeServerBusy        = "ServerBusy"
	codeSourceAddress     = "AuthorizationSourceIPMismatch"
	codeSpace             = "InsufficientStorage" // ours: Azure's space has no end
	codeTimedOut          = "OperationTimedOut"
	codeTooLarge          = "RequestBodyTooLarge"
	codeUnsupportedHeader = "UnsupportedHeader"
	codeVerb              = "UnsupportedHttpVerb"
)

func refuse(status int, code, format string, args ...any) *Error {
	return &Error{Status: status, Code: code, Message: fmt.Sprintf(format, args...)}
}

func unauthenticated(detail string) *Error {
	return &Error{
		Status: http.StatusForbidden, Code: codeAuthentication, Detail: detail,
		Message: "Server failed to authenticate the request. Make sure the value of Authorization header is formed correctly including the signature.",
	}
}

func notFound() *Error {
	return refuse(http.StatusNotFound, codeNotFound, "The specified blob does not exist.")
}

// onOrder is the refusal that a fault asks for.
func onOrder(status int) *Error {
	switch status {
	case http.StatusForbidden:
		return unauthenticated("A fault was ordered.")
	case http.StatusInternalServerError:
		return refuse(status, codeInternal, "The server encountered an internal error. Please retry the request.")
	case http.StatusServiceUnavailable:
		return refuse(status, codeServerBusy, "The server is currently unable to receive requests. Please retry your request.")
	default:
		return refuse(status, "Fault", "%s: a fault was ordered.", http.StatusText(status))
	}
}

type errorBody struct {
	XMLName xml.Name `xml:"Error"`
	Code    string
	Message string
	Detail  string `xml:"AuthenticationErrorDetail,omitempty"`
}

// writeError writes Azure's XML. An answer to HEAD, and 304, have no body.
func writeError(w http.ResponseWriter, method, requestID string, e *Error, now time.Time) {
	w.Header().Set("x-ms-error-code", e.Code)
	if method == http.MethodHead || e.Status == http.StatusNotModified {
		w.WriteHeader(e.Status)
		return
	}
	writeXML(w, e.Status, errorBody{
		Code:    e.Code,
		Message: fmt.Sprintf("%s\nRequestId:%s\nTime:%s", e.Message, requestID, now.UTC().Format("2006-01-02T15:04:05.0000000Z")),
		Detail:  e.Detail,
	})
}

func writeXML(w http.ResponseWriter, status int, body any) {
	text, _ := xml.Marshal(body) // strings and numbers cannot fail
	w.Header().Set("Content-Type", "application/xml")
	w.WriteHeader(status)
	_, _ = w.Write(append([]byte(xml.Header), text...)) // the client may be gone
}
