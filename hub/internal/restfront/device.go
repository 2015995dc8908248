package restfront

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/fairlead-iot/fairlead/hub/api"
	"github.com/fairlead-iot/fairlead/hub/internal/iot"
	"github.com/fairlead-iot/fairlead/hub/internal/msglog"
)

// batchType marks a body that holds several messages.
const batchType = "application/vnd.microsoft.iothub.json"

// appHeader begins the headers of application properties.
const appHeader = "iothub-app-"

// deviceRoutes are what a device may do over HTTPS beside uploads:
// https://learn.microsoft.com/rest/api/iothub/device. Twins and direct methods it
// has over MQTT and AMQP only.
func (f *Front) deviceRoutes() {
	f.deviceRoute("POST /devices/{id}/messages/events", f.sendEvents)
	f.deviceRoute("POST /devices/{id}/modules/{module}/messages/events", f.sendEvents)
	f.deviceRoute("GET /devices/{id}/messages/devicebound", f.receiveC2D)
	f.deviceRoute("DELETE /devices/{id}/messages/devicebound/{lock}", f.completeC2D)
	f.deviceRoute("POST /devices/{id}/messages/devicebound/{lock}/abandon", f.abandonC2D)
}

// deviceRoute adds a handler behind the check of the device's own credential.
// What it returns is written as route does.
func (f *Front) deviceRoute(pattern string, handle func(r *http.Request, cred iot.Credential) (any, error)) {
	f.mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
		cred, err := f.authenticateDevice(r)
		if err != nil {
			f.writeError(w, r, err)
			return
		}
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		result, err := handle(r, cred)
		if err != nil {
			f.writeError(w, r, err)
			return
		}
		f.write(w, result)
	})
}

// authenticateDevice wants a token in Authorization, or none and a client
// certificate. Why it refuses is in the hub's log only.
func (f *Front) authenticateDevice(r *http.Request) (iot.Credential, error) {
	id, now := idOf(r), time.Now()
	var cred iot.Credential
	var err error
	if header := r.Header.Get("Authorization"); header == "" && r.TLS != nil && len(r.TLS.PeerCertificates) > 0 {
		cred, err = f.svc.AuthenticateCertificate(id, r.TLS.PeerCertificates, now)
	} else {
		cred, err = f.svc.AuthenticateDevice(id, header, now)
	}
	if err == nil {
		return cred, nil
	}
	f.log.Info("device refused over HTTPS", "device", id.String(), "reason", err)
	if iot.AsError(err).Code == api.CodeDeviceDisabled {
		return cred, err
	}
	return cred, api.Refuse(api.CodeUnauthorized, "Unauthorized")
}

// sendEvents takes one message, or a batch. It answers 204 once they are safe.
func (f *Front) sendEvents(r *http.Request, cred iot.Credential) (any, error) {
	body, err := readBody(r)
	if err != nil {
		return nil, err
	}
	var records []msglog.Record
	if kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type")); kind == batchType {
		records, err = decodeBatch(body)
	} else {
		records = []msglog.Record{{Bag: bagOf(headerProperties(r.Header)), Body: body}}
	}
	if err != nil {
		return nil, err
	}
	total := 0
	for _, m := range records {
		if err := iot.CheckMessage(m.Bag, m.Body); err != nil {
			return nil, err
		}
		total += len(m.Body)
	}
	if total > iot.MaxMessage {
		return nil, api.Refuse(api.CodeMessageTooLarge, "the batch has %d bytes, at most %d", total, iot.MaxMessage)
	}
	id := idOf(r)
	if _, hit := f.svc.Strike(api.FaultQuota, id); hit {
		return nil, api.Refuse(api.CodeQuotaExceeded, "Total number of messages on IotHub exceeded the allocated quota.")
	}
	if err := f.svc.SendTelemetry(id, cred, records); err != nil {
		return nil, err
	}
	for _, m := range records {
		f.svc.Inject(id, m.Bag)
	}
	return nil, nil
}

// batchItem is a message of a batch. Its body is base64 unless base64Encoded says
// no; its properties have the names of the headers.
type batchItem struct {
	Body          string            `json:"body"`
	Base64Encoded *bool             `json:"base64Encoded"`
	Properties    map[string]string `json:"properties"`
}

func decodeBatch(body []byte) ([]msglog.Record, error) {
	var items []batchItem
	if err := json.Unmarshal(body, &items); err != nil {
		return nil, api.Refuse(api.CodeArgumentInvalid, "the batch is not a JSON array of messages: %v", err)
	}
	if len(items) == 0 {
		return nil, api.Refuse(api.CodeArgumentInvalid, "the batch holds no message")
	}
	records := make([]msglog.Record, 0, len(items))
	for i, item := range items {
		data := []byte(item.Body)
		if item.Base64Encoded == nil || *item.Base64Encoded {
			var err error
			if data, err = base64.StdEncoding.DecodeString(item.Body); err != nil {
				return nil, api.Refuse(api.CodeArgumentInvalid, "body of message %d of the batch is not base64", i+1)
			}
		}
		records = append(records, msglog.Record{Bag: bagOf(item.Properties), Body: data})
	}
	return records, nil
}

// headerProperties are the headers that may be a message's properties. HTTP gives
// names no case: application properties come in lower case.
func headerProperties(h http.Header) map[string]string {
	properties := map[string]string{}
	for name, values := range h {
		properties[strings.ToLower(name)] = strings.Join(values, ",")
	}
	return properties
}

// bagOf writes the properties that HTTPS names by headers as a property bag, so
// that both ways into the hub meet the same rules. Other names do not concern it.
func bagOf(properties map[string]string) []byte {
	var parts []string
	for name, value := range properties {
		key, ok := bagKey(name)
		if ok {
			parts = append(parts, escape(key)+"="+escape(value))
		}
	}
	slices.Sort(parts)
	return []byte(strings.Join(parts, "&"))
}

// escape percent-encodes: a plus sign is literal in a bag.
func escape(text string) string { return strings.ReplaceAll(url.QueryEscape(text), "+", "%20") }

// bagKey is the bag's key for a header; the system properties stand in a table,
// https://learn.microsoft.com/rest/api/iothub/device/send-device-event.
func bagKey(header string) (string, bool) {
	lower := strings.ToLower(header)
	switch lower {
	case "iothub-messageid":
		return "$.mid", true
	case "iothub-correlationid":
		return "$.cid", true
	case "iothub-userid":
		return "$.uid", true
	case "iothub-contenttype":
		return "$.ct", true
	case "iothub-contentencoding":
		return "$.ce", true
	case "iothub-expiry":
		return "$.exp", true
	case "iothub-interface-id":
		return "$.ifid", true
	case "dt-subject":
		return "$.sub", true
	}
	if !strings.HasPrefix(lower, appHeader) || len(header) == len(appHeader) {
		return "", false
	}
	return header[len(appHeader):], true
}

// received is a cloud-to-device message on its way to a device.
type received struct {
	*iot.Received
	device string
}

func (f *Front) receiveC2D(r *http.Request, _ iot.Credential) (any, error) {
	got, err := f.svc.Receive(r.PathValue("id"), time.Now())
	if got == nil || err != nil {
		return nil, err
	}
	return received{got, r.PathValue("id")}, nil
}

// write writes the body, and the rest as headers, with the lock as the ETag:
// https://learn.microsoft.com/rest/api/iothub/device/receive-device-bound-notification.
func (m received) write(w http.ResponseWriter) {
	h := w.Header()
	set := func(name, value string) {
		if value != "" {
			h.Set(name, value)
		}
	}
	const form = "2006-01-02T15:04:05.0000000Z"
	h.Set("ETag", strconv.Quote(m.Lock))
	set("iothub-sequencenumber", strconv.FormatInt(m.Sequence, 10))
	set("iothub-enqueuedtime", m.Enqueued.UTC().Format(form))
	set("iothub-deliverycount", strconv.Itoa(m.DeliveryCount))
	set("iothub-to", fmt.Sprintf("/devices/%s/messages/devicebound", url.PathEscape(m.device)))
	set("iothub-expiry", m.Expires.UTC().Format(form))
	set("iothub-messageid", m.Message.MessageID)
	set("iothub-correlationid", m.Message.CorrelationID)
	set("iothub-userid", m.Message.UserID)
	set("iothub-ack", m.Message.Ack)
	set("iothub-contenttype", m.Message.ContentType)
	set("iothub-contentencoding", m.Message.ContentEncoding)
	for key, value := range m.Message.Properties {
		text := ""
		if value != nil {
			text = *value
		}
		h.Set(appHeader+key, text)
	}
	h.Set("Content-Type", "application/octet-stream")
	h.Set("Content-Length", strconv.Itoa(len(m.Message.Body)))
	_, _ = w.Write(m.Message.Body) // the device may be gone; the lock then ends by itself
}

func (f *Front) completeC2D(r *http.Request, _ iot.Credential) (any, error) {
	verdict := iot.Complete
	if r.URL.Query().Has("reject") {
		verdict = iot.Reject
	}
	return nil, f.svc.Settle(r.PathValue("id"), r.PathValue("lock"), verdict, time.Now())
}

func (f *Front) abandonC2D(r *http.Request, _ iot.Credential) (any, error) {
	return nil, f.svc.Settle(r.PathValue("id"), r.PathValue("lock"), iot.Abandon, time.Now())
}
