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

// MaxMethodPayload is the most that the hub takes in the answer to a direct method, in bytes.
//
// https://learn.microsoft.com/azure/iot-hub/iot-hub-devguide-direct-methods
const MaxMethodPayload = 128 << 10

// maxProperties is what a message's properties may take, percent-encoded, in bytes: they stand in the MQTT topic, which
// holds 65 535 bytes (the length is two bytes on the wire), and whose beginning names the device.
const maxProperties = 65_535 - 512

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
	if n := m.propertiesSize(); n > maxProperties {
		return fmt.Errorf("message with properties of %d bytes: %w: percent-encoded, as they are sent, they may take at most %d", n, ErrTooLarge, maxProperties)
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

// propertiesSize returns what the properties take as name=value&name=value, percent-encoded, in bytes. For a system
// property it counts the longest name, and for an id that is still to be made up what one takes.
func (m *Message) propertiesSize() int {
	const name, id = len("%24.cid=&") + len("iothub-creation-time-utc"), 48
	n := 0
	for _, v := range []string{m.ID, m.CorrelationID, m.UserID, m.ContentType, m.ContentEncoding, m.InterfaceID, m.Component, m.Output} {
		if v != "" {
			n += name + escapedSize(v)
		}
	}
	if m.ID == "" {
		n += name + id
	}
	for _, t := range []time.Time{m.Expiry, m.CreationTime} {
		if !t.IsZero() {
			n += name + escapedSize(TimeFormat)
		}
	}
	for k, v := range m.Properties {
		n += escapedSize(k) + escapedSize(v) + len("=&")
	}
	return n
}

// escapedSize returns the length of a text in which all but RFC 3986's unreserved characters are percent-encoded.
func escapedSize(s string) int {
	n := len(s)
	for i := range len(s) {
		switch c := s[i]; {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', c == '_', c == '.', c == '-', c == '~':
		default:
			n += 2
		}
	}
	return n
}

func sortedKeys(m map[string]string) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	return keys
}
