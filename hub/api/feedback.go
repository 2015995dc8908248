package api

import "time"

// Status codes of feedback, and the reasons of dead letters.
// https://learn.microsoft.com/azure/iot-hub/iot-hub-devguide-messages-c2d#message-feedback
const (
	FeedbackSuccess    = "Success"
	FeedbackExpired    = "Expired"
	FeedbackDeliveries = "DeliveryCountExceeded"
	FeedbackRejected   = "Rejected"
	FeedbackPurged     = "Purged"
)

// Feedback says what became of a cloud-to-device message whose sender asked for
// it by C2D.Ack.
type Feedback struct {
	OriginalMessageID  string    `json:"originalMessageId"`
	Description        string    `json:"description"`
	DeviceGenerationID string    `json:"deviceGenerationId"`
	DeviceID           string    `json:"deviceId"`
	EnqueuedTimeUTC    time.Time `json:"enqueuedTimeUtc"` // of the outcome, not of the message
	StatusCode         string    `json:"statusCode"`
}

// FeedbackBatch is feedback that is locked for whoever received it.
type FeedbackBatch struct {
	Lock    string
	Records []Feedback
}
