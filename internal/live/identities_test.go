package live

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/fairlead-iot/fairlead/credentials"
	"github.com/fairlead-iot/fairlead/device"
	"github.com/fairlead-iot/fairlead/hub/api"
)

func withKey(t *testing.T, h *hub, module string) {
	id, key := h.add(t, module)
	everything(t, h, h.client(t, id, key, unchanged))
}

func withToken(t *testing.T, h *hub) {
	id, key := h.add(t, "")
	sign, err := credentials.KeySigner(key)
	if err != nil {
		t.Fatal(err)
	}
	token, err := credentials.Sign(t.Context(), sign, credentials.Resource(id), "", time.Now().Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	c, err := device.FromSASToken(token.Reveal(), h.options)
	everything(t, h, h.own(t, c, err))
}

// withCertificate makes a device that the hub knows by its certificate's thumbprint.
func withCertificate(t *testing.T, h *hub) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	name := newName()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(der)
	thumbprint := strings.ToUpper(hex.EncodeToString(sum[:]))
	auth := api.Authentication{Type: api.AuthSelfSigned, X509Thumbprint: api.X509Thumbprint{PrimaryThumbprint: &thumbprint, SecondaryThumbprint: &thumbprint}}
	if _, err := h.CreateDevice(t.Context(), api.Device{DeviceID: name, Status: "enabled", Authentication: auth}); err != nil {
		t.Fatalf("make %s: %v", name, err)
	}
	h.deleteLater(t, name)
	c, err := device.FromX509(device.X509{Chain: [][]byte{der}, Signer: key}, h.hostname, name, h.options)
	everything(t, h, h.own(t, c, err))
}

// withGroupKey has a device register with the key that is derived from its group's, and go on to the hub.
func withGroupKey(t *testing.T, h *hub) {
	if h.dps.scope == "" {
		t.Skip("no provisioning service is named: set FAIRLEAD_LIVE_ID_SCOPE and FAIRLEAD_LIVE_GROUP_KEY")
	}
	name := newName()
	key, err := credentials.DeriveKey(h.dps.groupKey, name)
	if err != nil {
		t.Fatalf("FAIRLEAD_LIVE_GROUP_KEY: %v", err)
	}
	e := device.Enrollment{Host: h.dps.host, IDScope: h.dps.scope, RegistrationID: name, SymmetricKey: key.Reveal()}
	for round := range 2 { // it may be called again
		r, err := device.Provision(limited(t), e, h.options, func(o *device.Options) { o.Address, o.Port = splitAddress(h.dps.address) })
		if err != nil {
			t.Fatal(err)
		}
		if round == 0 {
			h.deleteLater(t, name)
		}
		saw(t, "%s at %s: %s, %s", r.State.DeviceID, r.State.AssignedHub, r.Status, r.State.Substatus)
		if r.State.AssignedHub != h.hostname || r.State.DeviceID != name {
			t.Fatalf("assigned to %s as %s, want %s and %s", r.State.AssignedHub, r.State.DeviceID, h.hostname, name)
		}
	}
	c, err := device.FromSymmetricKey(key.Reveal(), h.hostname, name, h.options)
	everything(t, h, h.own(t, c, err))
}
