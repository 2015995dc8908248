package device_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/fairlead-iot/fairlead/core"
	"github.com/fairlead-iot/fairlead/device"
	"github.com/fairlead-iot/fairlead/hub/api"
	"github.com/fairlead-iot/fairlead/hub/hubtest"
	"github.com/fairlead-iot/fairlead/transports/mqtt"
	"github.com/fairlead-iot/fairlead/transports/netdial"
)

// The hub knows a provisioned device by the thumbprint that the provisioning service gave it: each certificate of ten
// minutes is registered before it is shown. The service is out of order when the second one comes.
func TestAProvisionedDevicesCertificateIsIntroducedBeforeItIsShown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := hubtest.StartPipe(t)
		ca := hubtest.NewCA(t, "plant")
		h.AddEnrollmentGroup(api.EnrollmentGroup{EnrollmentGroupID: "certs", Attestation: api.Attestation{X509: &api.X509Attestation{
			SigningCertificates: &api.X509Certificates{Primary: &api.X509Certificate{Certificate: string(ca.PEM())}},
		}}})
		proof, replace := replacedCertificates(t, ca)
		registrar, err := mqtt.NewRegistrar(mqtt.RegistrarConfig{
			Host: "localhost", IDScope: h.IDScope(), RegistrationID: "dev1",
			TLS: netdial.TLSConfig{ServerVerificationCert: h.CAPEM()}, DialContext: h.DialContext,
		})
		if err != nil {
			t.Fatal(err)
		}
		p := &plant{t: t, hubs: map[string]*hubtest.Hub{"localhost": h}, key: "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="}
		c := p.client(func(cfg *device.Provisioning) {
			cfg.Registrar, cfg.Proof = registrar, proof
			cfg.Credentials = func(core.Identity) (core.CredentialSource, error) { return proof, nil }
		})
		stop := stream(t, c, h)
		for i := range 3 {
			time.Sleep(7 * time.Minute)
			if i == 1 {
				h.Fault(api.Fault{Name: api.FaultProvisioningStatus, Code: 503, Count: 1})
			}
			replace()
		}
		time.Sleep(3 * time.Minute)
		stop()
		n := counters(t, c)
		if n.Renewals != 3 || n.Losses != 0 || n.Sessions != 4 {
			t.Errorf("%d renewals, %d losses, %d sessions; want 3, 0, 4", n.Renewals, n.Losses, n.Sessions)
		}
		if left := h.Faults(); len(left) != 0 {
			t.Errorf("the service was never asked while it was out of order: %+v", left)
		}
	})
}
