package api

import "time"

// What a hub sees of a device, and does to it.
const (
	SawConnected    = "connected"       // detail: "new session" or "session present"
	SawRefused      = "refused"         // a CONNECT; detail: why
	SawDisconnected = "disconnected"    //
	SawSubscribed   = "subscribed"      // detail: the topic filter
	SawUnsubscribed = "unsubscribed"    // detail: the topic filter
	SawTelemetry    = "telemetry"       // detail: the body
	SawTwinGet      = "twin get"        //
	SawReported     = "reported"        // detail: the patch
	SawDesired      = "desired pushed"  // detail: the patch, $version included
	SawMethod       = "method called"   // detail: name and payload
	SawAnswer       = "method answered" // detail: status and payload
	SawC2DSent      = "c2d sent"        // detail: the body
	SawC2DCompleted = "c2d completed"   // detail: the body
	SawC2DDead      = "c2d dead"        // detail: the reason and the body
	SawUpload       = "upload begun"    // detail: the blob's name
	SawUploaded     = "upload done"     // detail: the blob's name
	SawUploadFailed = "upload failed"   // detail: the blob's name
	SawFault        = "fault struck"    // detail: the fault's name
)

// Sighting is one thing that the hub saw of an identity, or did to it.
type Sighting struct {
	Time   time.Time `json:"time"`
	ID     string    `json:"id"` // "device" or "device/module"
	What   string    `json:"what"`
	Detail string    `json:"detail,omitempty"`
}

// String is the sighting without its time and identity: for comparing.
func (s Sighting) String() string {
	if s.Detail == "" {
		return s.What
	}
	return s.What + " " + s.Detail
}
