package hubtest

import (
	"crypto/tls"
	"fmt"
	"time"

	"github.com/fairlead-iot/fairlead/hub"
	"github.com/fairlead-iot/fairlead/hub/api"
	"github.com/fairlead-iot/fairlead/hub/service"
)

// Device is a registered device or module: what its client needs in order to
// connect, and what the hub has of it.
type Device struct {
	// ID is "device" or "device/module". It is the MQTT client id.
	ID string
	// ConnectionString is what Microsoft's SDKs take.
	ConnectionString string

	h    *Hub
	cert *tls.Certificate // nil for one with a key
}

// NewDevice registers a device, or a module ("device/module"; its device must be
// there), with keys that the hub makes.
func (h *Hub) NewDevice(id string) *Device {
	h.t.Helper()
	return &Device{ID: id, ConnectionString: h.AddDevice(id), h: h}
}

// NewCertificateDevice registers a device, or a module, that proves itself by a
// certificate. With a CA its certificate is signed by it, and the CA is
// registered if it is not yet; with nil it is known by its thumbprint.
func (h *Hub) NewCertificateDevice(id string, ca *CA) *Device {
	h.t.Helper()
	d := &Device{ID: id, h: h}
	auth := api.Authentication{Type: api.AuthCA}
	if ca != nil {
		cert := ca.Issue(id)
		d.cert = &cert
		if _, err := h.AddCA(ca.cert.Subject.CommonName, ca.PEM()); err != nil {
			h.t.Fatalf("register CA: %v", err)
		}
	} else {
		cert := SelfSigned(h.t, id)
		d.cert = &cert
		thumbprint := Thumbprint(cert)
		auth = api.Authentication{Type: api.AuthSelfSigned, X509Thumbprint: api.X509Thumbprint{PrimaryThumbprint: &thumbprint}}
	}
	parsed := api.ParseID(id)
	if _, err := h.CreateDevice(api.Device{DeviceID: parsed.Device, ModuleID: parsed.Module, Authentication: auth}); err != nil {
		h.t.Fatalf("add device %s: %v", id, err)
	}
	text, err := h.ConnectionString(id)
	if err != nil {
		h.t.Fatalf("connection string of %s: %v", id, err)
	}
	d.ConnectionString = text
	return d
}

// Broker is the address for MQTT clients, such as tls://127.0.0.1:41234.
func (d *Device) Broker() string { return "tls://" + d.h.MQTTAddr().String() }

// Username is the MQTT user name.
func (d *Device) Username() string {
	return d.h.Hostname() + "/" + d.ID + "/?api-version=2021-04-12"
}

// Password is the MQTT password, a token for that long; "" for a device with a
// certificate.
func (d *Device) Password(ttl time.Duration) string {
	d.h.t.Helper()
	if d.cert != nil {
		return ""
	}
	text, err := hub.DeviceToken(d.ConnectionString, ttl)
	if err != nil {
		d.h.t.Fatalf("token of %s: %v", d.ID, err)
	}
	return text
}

// TLSConfig trusts the hub, and holds the device's certificate if it has one.
func (d *Device) TLSConfig() *tls.Config {
	cfg := &tls.Config{RootCAs: d.h.CAPool(), ServerName: "localhost", MinVersion: tls.VersionTLS12}
	if d.cert != nil {
		cfg.Certificates = []tls.Certificate{*d.cert}
	}
	return cfg
}

// Events is the topic of telemetry with a property bag, such as "unit=celsius".
func (d *Device) Events(bag string) string {
	id := api.ParseID(d.ID)
	if id.Module != "" {
		return fmt.Sprintf("devices/%s/modules/%s/messages/events/%s", id.Device, id.Module, bag)
	}
	return fmt.Sprintf("devices/%s/messages/events/%s", id.Device, bag)
}

// Telemetry is what the hub has kept of the device's messages.
func (d *Device) Telemetry() []api.Message {
	d.h.t.Helper()
	id := api.ParseID(d.ID)
	all, err := d.h.Telemetry(api.MessageFilter{Device: id.Device, Module: id.Module})
	if err != nil {
		d.h.t.Fatalf("telemetry of %s: %v", d.ID, err)
	}
	return all
}

// Reported is what the device has reported, without metadata and version. Numbers
// are json.Number.
func (d *Device) Reported() map[string]any {
	d.h.t.Helper()
	twin, err := d.h.Twin(d.ID)
	if err != nil {
		d.h.t.Fatalf("twin of %s: %v", d.ID, err)
	}
	delete(twin.Properties.Reported, "$metadata")
	delete(twin.Properties.Reported, "$version")
	return twin.Properties.Reported
}

// Service returns a client of the hub's REST API with every right: what a service
// sees, through the wire. It is closed with the test.
func (h *Hub) Service() *service.Client {
	h.t.Helper()
	cs, err := h.ServiceConnectionString("iothubowner")
	if err != nil {
		h.t.Fatalf("service connection string: %v", err)
	}
	c, err := service.New(cs, service.Options{CAPEM: h.CAPEM(), Address: h.HTTPSAddr().String(), DialContext: h.DialContext})
	if err != nil {
		h.t.Fatalf("service client: %v", err)
	}
	h.t.Cleanup(c.Close)
	return c
}
