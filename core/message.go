package core

import (
	"fmt"
	"sort"
	"strings"
	"time"
)

// MaxMessageSize is the most that the hub takes in one device-to-cloud message, in bytes as Message.Size counts them.
//
// https://learn.microsoft.com/azure/iot-hub/iot-hub-devguide-messages-construct
const MaxMessageSize = 256 << 10

// Message is one device-to-cloud message, one cloud-to-device message, or one input message of a module. A message
// that has been handed to another component is shared and must not be changed.
//
// The system properties are those of
// https://learn.microsoft.com/azure/iot-hub/iot-hub-devguide-messages-construct
type Message struct {
	ID              string // message-id, at most 128 characters; filled in at acceptance when empty
	CorrelationID   string
	UserID          string
	ContentType     string // for example application/json
	ContentEncoding string // for example utf-8; the hub's routing reads bodies of utf-8, utf-16 and utf-32 only
	// Expiry is the absolute time after which the message is of no use; the zero value means never.
	Expiry time.Time
	// CreationTime is iothub-creation-time-utc; the zero value leaves it out.
	CreationTime time.Time
	InterfaceID  string // iothub-interface-id, as for security messages
	Component    string // dt-subject: the Plug and Play component
	Output       string // a module's output; only outward
	Input        string // a module's input; only inward
	To           string // only inward
	Ack          string // iothub-ack: none, positive, negative or full; only inward
	// Properties are the application's properties. Keys and values may be any UTF-8.
	Properties map[string]string
	Payload    []byte
}

// Size returns what the hub counts against MaxMessageSize, in bytes: the body, the values of the system properties,
// and the names and values of the application's properties.
//
// https://learn.microsoft.com/azure/iot-hub/iot-hub-devguide-messages-construct
func (m *Message) Size() int {
	n := len(m.Payload) + len(m.ID) + len(m.CorrelationID) + len(m.UserID) + len(m.ContentType) + len(m.ContentEncoding) +
		len(m.InterfaceID) + len(m.Component) + len(m.Output)
	if !m.Expiry.IsZero() {
		n += len(TimeFormat)
	}
	if !m.CreationTime.IsZero() {
		n += len(TimeFormat)
	}
	for k, v := range m.Properties {
		n += len(k) + len(v)
	}
	return n
}

// TimeFormat is how times stand in system properties: ISO 8601, UTC, milliseconds.
const TimeFormat = "2006-01-02T15:04:05.000Z"

// Check refuses what the hub would answer by closing the connection, so that it is never accepted. The error wraps
// ErrTooLarge or ErrInvalid.
func (m *Message) Check() error {
	if n := m.Size(); n > MaxMessageSize {
		return fmt.Errorf("message of %d bytes: %w: the hub takes at most %d (body and properties)", n, ErrTooLarge, MaxMessageSize)
	}
	if len(m.ID) > 128 {
		return fmt.Errorf("message id of %d characters: %w: at most 128", len(m.ID), ErrInvalid)
	}
	for _, k := range sortedKeys(m.Properties) {
		if k == "" {
			return fmt.Errorf("message property without a name: %w", ErrInvalid)
		}
		if strings.HasPrefix(k, "$.") {
			return fmt.Errorf("message property %q: %w: names that begin with $. are the hub's own; set the message's field instead", k, ErrInvalid)
		}
	}
	return nil
}

func sortedKeys(m map[string]string) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	return keys
}
