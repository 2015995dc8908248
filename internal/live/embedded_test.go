package live

import (
	"net"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"

	"github.com/fairlead-iot/fairlead/hub/api"
	"github.com/fairlead-iot/fairlead/hub/hubtest"
)

// The suite's own test: the hub is the embedded one, named by the same variables.
func TestTheSuiteIsGreenAgainstTheEmbeddedHub(t *testing.T) {
	for _, s := range steps() {
		t.Run(s.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				emb := hubtest.StartPipe(t)
				text, err := emb.ServiceConnectionString("iothubowner")
				if err != nil {
					t.Fatal(err)
				}
				ca := filepath.Join(t.TempDir(), "ca.pem")
				if err := os.WriteFile(ca, emb.CAPEM(), 0o600); err != nil {
					t.Fatal(err)
				}
				group := emb.AddEnrollmentGroup(api.EnrollmentGroup{EnrollmentGroupID: "live"})
				env := map[string]string{
					"FAIRLEAD_LIVE_ID_SCOPE": emb.IDScope(), "FAIRLEAD_LIVE_GROUP_KEY": group.Attestation.SymmetricKey.PrimaryKey,
					"FAIRLEAD_LIVE_PROVISIONING_HOST": "localhost", "FAIRLEAD_LIVE_PROVISIONING": net.JoinHostPort("localhost", "8883"),
					serviceCS: text, "FAIRLEAD_LIVE_CA": ca, "FAIRLEAD_LIVE_PATIENCE": "2m",
					"FAIRLEAD_LIVE_MQTT": net.JoinHostPort("localhost", "8883"), "FAIRLEAD_LIVE_HTTPS": net.JoinHostPort("localhost", "443"),
				}
				s.run(t, open(t, func(name string) string { return env[name] }, emb.DialContext))
			})
		})
	}
}

func TestWithoutAHubNothingRuns(t *testing.T) {
	if h := open(t, func(string) string { return "" }, nil); h != nil {
		t.Error("there is a hub that nobody named")
	}
}
