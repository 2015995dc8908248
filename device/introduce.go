package device

import (
	"bytes"
	"context"
	"time"

	"github.com/fairlead-iot/fairlead/core"
)

// proven is the certificate by which the hub knows a device that is provisioned.
//
// The provisioning service gives the hub the thumbprint of the certificate that the device registered with, in an
// enrollment group too. So a device whose certificate was replaced has to register once more before it shows the new one
// to its hub.
// https://learn.microsoft.com/azure/iot-dps/how-to-roll-certificates
type proven struct {
	certificate []byte // DER; nil while none is known
	// credential is the one that the hub accepted last; it may be shown again until end.
	credential core.Credential
	end        time.Time // zero if it has none
}

func leafOf(c core.Credential) []byte {
	if len(c.Certificate) == 0 {
		return nil
	}
	return c.Certificate[0]
}

// prove notes what the hub has accepted.
func (p *provisioner) prove(c core.Credential) {
	leaf := leafOf(c)
	if leaf == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if bytes.Equal(leaf, leafOf(p.proven.credential)) {
		return
	}
	p.proven = proven{certificate: leaf, credential: c}
	if c.Life > 0 {
		p.proven.end = time.Now().Add(c.Life)
	}
}

// isUnknown reports whether the hub will refuse the credential since it knows the device by another certificate.
func (p *provisioner) isUnknown(c core.Credential) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	leaf := leafOf(c)
	return leaf != nil && p.proven.certificate != nil && !bytes.Equal(leaf, p.proven.certificate) && p.cfg.Reprovision != ReprovisionNever
}

// introduce makes a certificate known to the hub, by way of the provisioning service. While that does not work, the one
// that the hub knows is used, to its end; after it there is nothing to lose by showing the new one.
func (p *provisioner) introduce(ctx context.Context, c core.Credential) (core.Credential, error) {
	if p.mayIntroduce(leafOf(c), time.Now()) {
		p.mu.Lock()
		tries, next := p.tries, p.next
		p.mu.Unlock()
		began := time.Now()
		proof, err := p.ask(ctx, "the certificate was replaced")
		if err == nil {
			// It was no sign of trouble: the next question may come when it would have come.
			p.mu.Lock()
			p.tries, p.next = tries, next
			p.mu.Unlock()
			return p.introduced(ctx, proof, began)
		}
		p.log.WarnContext(ctx, "the provisioning service does not take the new certificate; the one before it is used while it is valid", "hub", c.Identity.Hostname, "error", err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	old := p.proven
	left := time.Until(old.end)
	if old.credential.Certificate == nil || old.credential.Identity != c.Identity || !old.end.IsZero() && left <= 0 {
		return c, nil
	}
	if !old.end.IsZero() {
		old.credential.Life = left
	}
	return old.credential, nil
}

// introduced returns the certificate that has just been registered: by now another one may have been put in its place.
func (p *provisioner) introduced(ctx context.Context, proof core.Credential, began time.Time) (core.Credential, error) {
	c, err := p.atHub(ctx)
	if err == nil && !p.isUnknown(c) {
		return c, nil
	}
	proof.Identity = p.identity()
	if proof.Life > 0 {
		proof.Life = max(proof.Life-time.Since(began), time.Millisecond) // 0 would be without end
	}
	return proof, nil
}

// mayIntroduce reports whether the service is to be asked now: at once about each certificate, and then at its usual pace.
func (p *provisioner) mayIntroduce(leaf []byte, now time.Time) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if bytes.Equal(leaf, p.tried) && now.Before(p.next) {
		return false
	}
	p.tried = leaf
	return true
}
