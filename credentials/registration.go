package credentials

import (
	"context"
	"encoding/base64"
	"fmt"
	"time"

	"github.com/fairlead-iot/fairlead/core"
)

// DeriveKey derives a device's key from the key of its enrollment group, both base64: HMAC-SHA256 over the registration
// id. Whoever holds the group's key can be any device of the group; better that a device holds only its own. Its error
// wraps core.ErrInvalid.
//
// https://learn.microsoft.com/azure/iot-dps/concepts-symmetric-key-attestation#group-enrollments
func DeriveKey(groupKey core.Secret, registrationID string) (core.Secret, error) {
	sign, err := KeySigner(groupKey)
	if err != nil {
		return "", fmt.Errorf("derive the key of %s: %w", registrationID, err)
	}
	raw, err := sign(context.Background(), []byte(registrationID)) // a symmetric key waits for nothing
	if err != nil {
		return "", fmt.Errorf("derive the key of %s: %w", registrationID, err)
	}
	return core.Secret(base64.StdEncoding.EncodeToString(raw)), nil
}

// NewRegistrationKey returns a source that signs, for each credential, a token for the provisioning service with the
// enrollment's symmetric key (base64; of a group, the derived one). A token lives for ttl from now(), the wall clock, as
// in NewSharedKey. Errors wrap core.ErrInvalid and do not contain the key.
//
// https://learn.microsoft.com/azure/iot-dps/concepts-symmetric-key-attestation
func NewRegistrationKey(idScope, registrationID string, key core.Secret, ttl time.Duration, now func() time.Time) (core.CredentialSource, error) {
	if err := CheckTTL(ttl); err != nil {
		return nil, fmt.Errorf("make registration credential: %w", err)
	}
	if idScope == "" || registrationID == "" || now == nil {
		return nil, fmt.Errorf("make registration credential: no id scope, no registration id or no clock: %w", core.ErrInvalid)
	}
	sign, err := KeySigner(key)
	if err != nil {
		return nil, fmt.Errorf("make registration credential for %s: %w", registrationID, err)
	}
	return &sharedKey{
		resource: idScope + "/registrations/" + registrationID, keyName: registrationKeyName, sign: sign, ttl: ttl.Truncate(time.Second), now: now,
	}, nil
}

// registrationKeyName is `skn` of a token for the provisioning service: "skn is the name of the policy … registration".
const registrationKeyName = "registration"
