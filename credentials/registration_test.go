package credentials_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/fairlead-iot/fairlead/core"
	"github.com/fairlead-iot/fairlead/credentials"
)

// The vector is Microsoft's own:
// https://learn.microsoft.com/azure/iot-dps/how-to-legacy-device-symm-key#derive-a-device-key
func TestDeriveKeyAsMicrosoftDoes(t *testing.T) {
	const group = "8isrFI1sGsIlvvFSSFRiMfCNzv21fjbE/+ah/lSh3lF8e2YG1Te7w1KpZhJFFXJrqYKi9yegxkqIChbqOS9Egw=="
	got, err := credentials.DeriveKey(group, "sn-007-888-abc-mac-a1-b2-c3-d4-e5-f6")
	if err != nil {
		t.Fatal(err)
	}
	if want := "Jsm0lyGpjaVYVP2g3FnmnmG9dI/9qU24wNoykUmermc="; got.Reveal() != want {
		t.Errorf("derived %s, want %s", got.Reveal(), want)
	}
	if _, err := credentials.DeriveKey("not base64", "x"); !errors.Is(err, core.ErrInvalid) {
		t.Errorf("a key that is not base64: %v, want ErrInvalid", err)
	}
}

// The token was computed by Python's hmac, hashlib and urllib.parse.
func TestRegistrationKeySignsForTheProvisioningService(t *testing.T) {
	source, err := credentials.NewRegistrationKey("0ne00000A0A", "gw:1", key, time.Hour, at(1_700_000_000))
	if err != nil {
		t.Fatal(err)
	}
	got, err := source.Credential(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	const want = "SharedAccessSignature sr=0ne00000A0A%2Fregistrations%2Fgw%3A1&sig=MWNumf%2B7PQZ8qrnSy%2BpghkiABzD85V3fWTuLGXjNKDo%3D&se=1700003600&skn=registration"
	if got.Token.Reveal() != want || got.Life != time.Hour {
		t.Errorf("token %s for %v, want %s", got.Token.Reveal(), got.Life, want)
	}
	for name, make := range map[string]func() (core.CredentialSource, error){
		"no scope": func() (core.CredentialSource, error) {
			return credentials.NewRegistrationKey("", "r", key, time.Hour, time.Now)
		},
		"no id": func() (core.CredentialSource, error) {
			return credentials.NewRegistrationKey("s", "", key, time.Hour, time.Now)
		},
		"short life": func() (core.CredentialSource, error) {
			return credentials.NewRegistrationKey("s", "r", key, time.Second, time.Now)
		},
		"a cut key": func() (core.CredentialSource, error) {
			return credentials.NewRegistrationKey("s", "r", core.Secret(key[1:]), time.Hour, time.Now)
		},
	} {
		if _, err := make(); !errors.Is(err, core.ErrInvalid) || strings.Contains(err.Error(), key[1:]) {
			t.Errorf("%s: %v, want ErrInvalid and no key", name, err)
		}
	}
}
