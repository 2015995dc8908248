package device_test

import (
	"encoding/json"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fairlead-iot/fairlead/credentials"
	"github.com/fairlead-iot/fairlead/device"
	"github.com/fairlead-iot/fairlead/hub/api"
	"github.com/fairlead-iot/fairlead/hub/hubtest"
)

// atHub points options at a hub in the bubble.
func atHub(h *hubtest.Hub) func(*device.Options) {
	return func(o *device.Options) { o.ServerVerificationCert, o.DialContext = h.CAPEM(), h.DialContext }
}

func TestProvisionTellsWhereTheDeviceBelongs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := hubtest.StartPipe(t)
		e := h.AddEnrollment(api.Enrollment{RegistrationID: "reg1", DeviceID: "dev1", EnrollmentSettings: api.EnrollmentSettings{
			ReturnPayload: json.RawMessage(`{"welcome":1}`),
		}})
		enrollment := device.Enrollment{
			Host: "localhost", IDScope: h.IDScope(), RegistrationID: "reg1", SymmetricKey: e.Attestation.SymmetricKey.PrimaryKey,
			Payload: map[string]string{"model": "x1"},
		}
		r, err := device.Provision(t.Context(), enrollment, atHub(h))
		if err != nil {
			t.Fatal(err)
		}
		if r.Status != "assigned" || r.OperationID == "" || r.State.AssignedHub != "localhost" || r.State.DeviceID != "dev1" || string(r.State.Payload) != `{"welcome":1}` {
			t.Errorf("told %+v", r)
		}
		// # The result makes a client.
		c, err := device.FromSymmetricKey(enrollment.SymmetricKey, r.State.AssignedHub, r.State.DeviceID, atHub(h))
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Send(t.Context(), text("1")); err != nil {
			t.Error(err)
		}
		if err := c.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
		// # A wrong key is refused, in words and numbers; a gateway may stand in the service's place.
		enrollment.SymmetricKey = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
		enrollment.Host = "elsewhere.test"
		_, err = device.Provision(t.Context(), enrollment, atHub(h), func(o *device.Options) { o.GatewayHostname = "localhost" })
		re, ok := errors.AsType[*device.RegistrationError](err)
		if !ok || re.Code != 401002 || re.TrackingID == "" || !errors.Is(err, device.ErrCredential) || !errors.Is(err, device.ErrService) {
			t.Errorf("a wrong key: %v", err)
		}
	})
}

func TestProvisionWithACertificate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := hubtest.StartPipe(t)
		cert := hubtest.SelfSigned(t, "gw")
		certPEM, keyPEM := hubtest.CertificatePEM(t, cert)
		h.AddEnrollment(api.Enrollment{RegistrationID: "gw", Attestation: api.Attestation{X509: &api.X509Attestation{
			ClientCertificates: &api.X509Certificates{Primary: &api.X509Certificate{Certificate: string(certPEM)}},
		}}})
		own, err := credentials.ParseCertificate(certPEM, keyPEM, "")
		if err != nil {
			t.Fatal(err)
		}
		proof, err := credentials.NewX509Signer(own.Chain, own.Signer, time.Now)
		if err != nil {
			t.Fatal(err)
		}
		r, err := device.Provision(t.Context(), device.Enrollment{Host: "localhost", IDScope: h.IDScope(), RegistrationID: "gw", Proof: proof}, atHub(h))
		if err != nil || r.State.DeviceID != "gw" {
			t.Errorf("told %+v, %v", r, err)
		}
	})
}

func TestProvisionRefusesWhatCannotBe(t *testing.T) {
	const key = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
	for name, e := range map[string]device.Enrollment{
		"no proof":      {IDScope: "s", RegistrationID: "r"},
		"two proofs":    {IDScope: "s", RegistrationID: "r", SymmetricKey: key, Proof: proofOfNothing{}},
		"no scope":      {RegistrationID: "r", SymmetricKey: key},
		"no id":         {IDScope: "s", SymmetricKey: key},
		"a cut key":     {IDScope: "s", RegistrationID: "r", SymmetricKey: key[1:]},
		"a bad payload": {IDScope: "s", RegistrationID: "r", SymmetricKey: key, Payload: func() {}},
	} {
		if _, err := device.Provision(t.Context(), e); !errors.Is(err, device.ErrInvalid) {
			t.Errorf("%s: %v, want ErrInvalid", name, err)
		}
	}
}

// proofOfNothing is never asked.
type proofOfNothing struct{ device.CredentialSource }
