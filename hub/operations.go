package hub

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/fairlead-iot/fairlead/hub/api"
	"github.com/fairlead-iot/fairlead/hub/internal/iot"
	"github.com/fairlead-iot/fairlead/hub/internal/sas"
)

// CreateDevice registers a device or module (its device must be there) with the
// keys in d, or new ones. Errors are *api.Error.
func (h *Hub) CreateDevice(d api.Device) (api.Device, error) { return h.svc.PutDevice(d, "") }

// UpdateDevice changes status, keys and capabilities of an identity. A connected
// device that becomes disabled is thrown out.
func (h *Hub) UpdateDevice(d api.Device) (api.Device, error) { return h.svc.PutDevice(d, "*") }

// DeleteDevice removes an identity, with a device its modules.
func (h *Hub) DeleteDevice(id string) error { return h.svc.DeleteDevice(api.ParseID(id), "*") }

// Device returns an identity; id is "device" or "device/module".
func (h *Hub) Device(id string) (api.Device, error) { return h.svc.Device(api.ParseID(id)) }

// Devices lists the devices in the order of their ids.
func (h *Hub) Devices() []api.Device { return h.svc.Devices(0) }

// ConnectionString returns the connection string of a device or module. It
// carries no port and no CA: those reach a client by its configuration.
func (h *Hub) ConnectionString(id string) (string, error) {
	d, err := h.Device(id)
	if err != nil {
		return "", err
	}
	return DeviceConnectionString(h.Hostname(), d), nil
}

// DeviceConnectionString writes the connection string of an identity: with its
// primary key, or with "x509=true" where a certificate takes the key's place.
func DeviceConnectionString(hostname string, d api.Device) string {
	text := "HostName=" + hostname + ";DeviceId=" + d.DeviceID
	if d.ModuleID != "" {
		text += ";ModuleId=" + d.ModuleID
	}
	if t := d.Authentication.Type; t == api.AuthSelfSigned || t == api.AuthCA {
		return text + ";x509=true"
	}
	return text + ";SharedAccessKey=" + d.Authentication.SymmetricKey.PrimaryKey
}

// ServiceConnectionString returns the connection string of a shared access
// policy: iothubowner, service, device, registryRead or registryReadWrite.
func (h *Hub) ServiceConnectionString(policy string) (string, error) {
	key, err := h.svc.PolicyKey(policy)
	if err != nil {
		return "", err
	}
	return "HostName=" + h.Hostname() + ";SharedAccessKeyName=" + policy + ";SharedAccessKey=" + key, nil
}

// Twin returns the twin of an identity.
func (h *Hub) Twin(id string) (api.Twin, error) { return h.svc.Twin(api.ParseID(id)) }

// PatchTwin merges a patch in the service's form,
// {"tags":{…},"properties":{"desired":{…}}}, and pushes desired changes.
func (h *Hub) PatchTwin(id string, patch []byte) (api.Twin, error) {
	p, err := h.svc.DecodeTwinPatch(patch)
	if err != nil {
		return api.Twin{}, err
	}
	return h.svc.PatchTwin(api.ParseID(id), p, "")
}

// ReplaceTwin replaces tags and desired, each if present.
func (h *Hub) ReplaceTwin(id string, document []byte) (api.Twin, error) {
	p, err := h.svc.DecodeTwinPatch(document)
	if err != nil {
		return api.Twin{}, err
	}
	return h.svc.ReplaceTwin(api.ParseID(id), p, "")
}

// InvokeMethod calls a direct method with the default timeouts. payload is any
// value that encodes as JSON.
func (h *Hub) InvokeMethod(ctx context.Context, id, name string, payload any) (api.MethodResponse, error) {
	text, err := json.Marshal(payload)
	if err != nil {
		return api.MethodResponse{}, fmt.Errorf("encode payload of %s: %w", name, err)
	}
	return h.CallMethod(ctx, id, api.MethodRequest{MethodName: name, Payload: text})
}

// CallMethod calls a direct method. Errors are *api.Error: 404103 not online,
// 504101 no answer in time, 400004 bad request.
func (h *Hub) CallMethod(ctx context.Context, id string, r api.MethodRequest) (api.MethodResponse, error) {
	return h.svc.InvokeMethod(ctx, api.ParseID(id), r)
}

// SendC2D queues a cloud-to-device message.
func (h *Hub) SendC2D(device string, m api.C2D) error { return h.svc.SendC2D(device, m) }

// DeadLetters returns the newest cloud-to-device messages that were not
// completed.
func (h *Hub) DeadLetters(device string) ([]api.DeadLetter, error) { return h.svc.DeadLetters(device) }

// ReceiveFeedback locks the feedback that waits, up to 64 records, for 60 s, and
// gives it; nil when there is none. Only messages whose C2D.Ack asks for it have
// feedback.
func (h *Hub) ReceiveFeedback() *api.FeedbackBatch { return h.svc.ReceiveFeedback(time.Now()) }

// CompleteFeedback removes a batch that ReceiveFeedback gave.
func (h *Hub) CompleteFeedback(lock string) error {
	return h.svc.SettleFeedback(lock, iot.Complete, time.Now())
}

// ReadTelemetry calls f for every device-to-cloud message that the filter
// chooses, in order, and goes on until the context ends, f returns an error, or
// the hub closes (nil).
func (h *Hub) ReadTelemetry(ctx context.Context, filter api.MessageFilter, f func(api.Message) error) error {
	return h.svc.ReadMessages(ctx, filter, f, nil)
}

// Telemetry returns what the filter chooses of the messages that are there now.
func (h *Hub) Telemetry(filter api.MessageFilter) ([]api.Message, error) {
	return h.svc.Messages(filter)
}

// Counters returns what the hub saw of an identity since it started.
func (h *Hub) Counters(id string) (api.Counters, error) { return h.svc.Counters(api.ParseID(id)) }

// AddCA registers a certificate authority, in PEM, under a name: devices of the
// type api.AuthCA may connect with certificates that lead to it and whose common
// name is the device's id. Errors are *api.Error.
func (h *Hub) AddCA(name string, certificate []byte) (api.CA, error) {
	return h.svc.AddCA(name, certificate, time.Now())
}

// CAs lists the registered certificate authorities.
func (h *Hub) CAs() []api.CA { return h.svc.CAs() }

// RemoveCA forgets a certificate authority; sessions that began with it go on.
func (h *Hub) RemoveCA(name string) error { return h.svc.RemoveCA(name) }

// Statistics counts the devices of the registry; modules do not count.
func (h *Hub) Statistics() api.Statistics { return h.svc.Statistics() }

// Observe has see called for everything that the hub sees of devices from now on,
// in order, until the returned function is called. see runs under the hub's
// lock: it must return at once, and call nothing of the hub.
// hubtest.Hub.Record is what a test wants.
func (h *Hub) Observe(see func(api.Sighting)) (stop func()) { return h.svc.Observe(see) }

// AddFault makes something go wrong; see api.Fault.
func (h *Hub) AddFault(f api.Fault) (api.Fault, error) { return h.svc.AddFault(f) }

// Faults lists what goes wrong now.
func (h *Hub) Faults() []api.Fault { return h.svc.Faults() }

// RemoveFault ends a fault by its id, or every one with "all".
func (h *Hub) RemoveFault(id string) error { return h.svc.RemoveFault(id) }

// DeviceToken makes a shared access signature, the password of MQTT, from a
// device's or module's connection string: for tests and tools.
func DeviceToken(connectionString string, ttl time.Duration) (string, error) {
	fields := map[string]string{}
	for part := range strings.SplitSeq(connectionString, ";") {
		key, value, _ := strings.Cut(part, "=")
		fields[key] = value
	}
	if fields["HostName"] == "" || fields["DeviceId"] == "" || fields["SharedAccessKey"] == "" {
		return "", errors.New("hub: not a device's connection string")
	}
	resource := fields["HostName"] + "/devices/" + fields["DeviceId"]
	if fields["ModuleId"] != "" {
		resource += "/modules/" + fields["ModuleId"]
	}
	return sas.New(resource, "", fields["SharedAccessKey"], time.Now().Add(ttl))
}
