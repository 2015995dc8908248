package mqtt

import (
	"testing"

	"github.com/fairlead-iot/fairlead/core"
	"github.com/fairlead-iot/fairlead/transports/transporttest"
)

func TestContract(t *testing.T) {
	transporttest.Run(t, func(t *testing.T) transporttest.Harness {
		t.Helper()
		hub := transporttest.NewFakeHub()
		t.Cleanup(hub.Close)
		return transporttest.Harness{
			Transport: newTestTransport(t, hub), Credential: core.Credential{Token: "secret"}, Hub: hub,
		}
	})
}
