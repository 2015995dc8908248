package api

import (
	"encoding/json"
	"fmt"
	"time"
	"unicode/utf8"
)

// Message is a device-to-cloud message as a reader of the hub's Event Hubs
// endpoint would see it.
type Message struct {
	// Sequence numbers the messages of the hub from 1, without gaps; events count
	// too.
	Sequence     int64
	EnqueuedTime time.Time
	DeviceID     string
	ModuleID     string
	// System holds the system properties: what the device set (message-id,
	// content-type …) and what the hub stamped (iothub-connection-device-id …).
	// https://learn.microsoft.com/azure/iot-hub/iot-hub-devguide-messages-construct
	System map[string]string
	// Properties are the application's own.
	Properties map[string]string
	Body       []byte
}

type messageJSON struct {
	Sequence     int64             `json:"sequence"`
	EnqueuedTime time.Time         `json:"enqueuedTime"`
	DeviceID     string            `json:"deviceId"`
	ModuleID     string            `json:"moduleId,omitempty"`
	System       map[string]string `json:"system"`
	Properties   map[string]string `json:"properties"`
	Body         *string           `json:"body,omitempty"`
	BodyBase64   []byte            `json:"bodyBase64,omitempty"`
}

// MarshalJSON writes a body of UTF-8 text as "body", any other as "bodyBase64".
func (m Message) MarshalJSON() ([]byte, error) {
	out := messageJSON{m.Sequence, m.EnqueuedTime, m.DeviceID, m.ModuleID, m.System, m.Properties, nil, nil}
	if utf8.Valid(m.Body) {
		text := string(m.Body)
		out.Body = &text
	} else {
		out.BodyBase64 = m.Body
	}
	return json.Marshal(out)
}

// UnmarshalJSON reads what MarshalJSON wrote.
func (m *Message) UnmarshalJSON(data []byte) error {
	var in messageJSON
	if err := json.Unmarshal(data, &in); err != nil {
		return fmt.Errorf("decode message: %w", err)
	}
	*m = Message{in.Sequence, in.EnqueuedTime, in.DeviceID, in.ModuleID, in.System, in.Properties, in.BodyBase64}
	if in.Body != nil {
		m.Body = []byte(*in.Body)
	}
	return nil
}

// Values of iothub-message-source: telemetry, and the events that a hub tells by
// itself. https://learn.microsoft.com/azure/iot-hub/iot-hub-non-telemetry-event-schema
const (
	SourceTelemetry   = "Telemetry"
	SourceTwinChanges = "twinChangeEvents"
	SourceLifecycle   = "deviceLifecycleEvents"
	SourceConnections = "deviceConnectionStateEvents"
	SourceAll         = "all" // for filters
)

// EventSources lists the events that a hub can be told to tell.
func EventSources() []string { return []string{SourceTwinChanges, SourceLifecycle, SourceConnections} }

// MessageFilter chooses device-to-cloud messages, and events where the hub tells
// them.
type MessageFilter struct {
	Source string    // one of the sources above, "" for telemetry
	Device string    // "" for all
	Module string    // "" for all of the device
	Since  time.Time // zero for the oldest that is kept
	From   int64     // lowest sequence number
}

// C2D is a cloud-to-device message. The zero values of its times mean now, and
// an hour from now.
type C2D struct {
	MessageID       string             `json:"messageId,omitempty"`
	CorrelationID   string             `json:"correlationId,omitempty"`
	UserID          string             `json:"userId,omitempty"`
	ContentType     string             `json:"contentType,omitempty"`
	ContentEncoding string             `json:"contentEncoding,omitempty"`
	Ack             string             `json:"ack,omitempty"` // none, positive, negative, full
	Expiry          time.Time          `json:"expiry,omitzero"`
	TTL             string             `json:"ttl,omitempty"` // a Go duration, instead of Expiry
	Properties      map[string]*string `json:"properties,omitempty"`
	Body            []byte             `json:"body"` // at most 64 KiB with the properties
}

// DeadLetter is a cloud-to-device message that was not completed.
type DeadLetter struct {
	Message  C2D       `json:"message"`
	Reason   string    `json:"reason"` // FeedbackExpired and its kin
	Enqueued time.Time `json:"enqueued"`
	Dead     time.Time `json:"dead"`
	// Attempts counts PUBLISH packets of it, by take-over and lock expiry.
	Attempts int `json:"attempts"`
}
