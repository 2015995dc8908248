package mqttfront

import (
	"strings"
	"testing"
	"time"

	"github.com/fairlead-iot/fairlead/hub/internal/dps"
)

func TestParseRegistration(t *testing.T) {
	tests := map[string]struct{ name, scope, registration string }{
		"node":                   {"0ne00055500/registrations/dev1/api-version=2019-03-31&ClientVersion=azure-iot-provisioning-device%2F1.9.1", "0ne00055500", "dev1"},
		"python":                 {"0ne00055500/registrations/dev-1:a.b_c/api-version=2019-03-31&ClientVersion=x%20(y%3B%20z)", "0ne00055500", "dev-1:a.b_c"},
		"no api-version":         {"0ne00055500/registrations/dev1", "", ""},
		"another parameter":      {"0ne00055500/registrations/dev1/ClientVersion=1", "", ""},
		"the hub's form":         {"hub/registrations/?api-version=2021-04-12", "", ""},
		"the hub's, of a module": {"hub/registrations/mod/?api-version=2021-04-12", "", ""},
		"no scope":               {"/registrations/dev1/api-version=2019-03-31", "", ""},
		"no registration":        {"0ne00055500/registrations//api-version=2019-03-31", "", ""},
		"nothing":                {"", "", ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			scope, registration, ok := parseRegistration(tt.name)
			if scope != tt.scope || registration != tt.registration || ok != (tt.scope != "") {
				t.Errorf("parseRegistration(%q) = %q, %q, %v", tt.name, scope, registration, ok)
			}
		})
	}
}

func TestParseOperation(t *testing.T) {
	tests := map[string]struct {
		rest, rid, operation string
		ok                   bool
	}{
		"as clients do":  {"?$rid=1&operationId=4.d0a6.42d7-8160", "1", "4.d0a6.42d7-8160", true},
		"another order":  {"?operationId=4.a&$rid=1", "1", "4.a", true},
		"encoded":        {"?$rid=a%20b&operationId=4%2Ea", "a%20b", "4.a", true}, // the request id is repeated as it stands
		"no operation":   {"?$rid=1", "1", "", true},
		"no request id":  {"?operationId=4.a", "", "", false},
		"bad encoding":   {"?$rid=1&operationId=%zz", "", "", false},
		"no question":    {"$rid=1", "", "", false},
		"a long id":      {"?$rid=" + strings.Repeat("x", 2000), "", "", false},
		"nothing at all": {"", "", "", false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			rid, operation, err := parseOperation(tt.rest)
			if rid != tt.rid || operation != tt.operation || (err == nil) != tt.ok {
				t.Errorf("parseOperation(%.40q) = %q, %q, %v", tt.rest, rid, operation, err)
			}
		})
	}
}

// One official client takes the topic apart at "$": there must be no other.
func TestProvisioningAnswerTopic(t *testing.T) {
	for want, a := range map[string]dps.Answer{
		"$dps/registrations/res/202/?$rid=r&retry-after=3": {Status: 202, RetryAfter: 3 * time.Second},
		"$dps/registrations/res/200/?$rid=r":               {Status: 200},
	} {
		if got := provisioningAnswerTopic(a, "r"); got != want {
			t.Errorf("topic %s, want %s", got, want)
		}
	}
}

func FuzzProvisioningNames(f *testing.F) {
	f.Add("0ne00055500/registrations/dev1/api-version=2019-03-31&ClientVersion=1", "?$rid=1&operationId=4.a")
	f.Add("hub/registrations/mod/?api-version=2021-04-12", "?operationId=%zz&$rid=")
	f.Fuzz(func(t *testing.T, name, rest string) {
		scope, registration, ok := parseRegistration(name)
		if ok && (!strings.HasPrefix(name, scope+"/registrations/"+registration+"/api-version=") || strings.Contains(scope+registration, "/")) {
			t.Errorf("parseRegistration(%q) = %q, %q", name, scope, registration)
		}
		if !ok && scope+registration != "" {
			t.Errorf("parseRegistration(%q) gives %q, %q with its refusal", name, scope, registration)
		}
		rid, _, err := parseOperation(rest)
		if err == nil && (rid == "" || len(rid) > maxRID || !strings.Contains(rest, rid)) {
			t.Errorf("parseOperation(%q) = %q", rest, rid)
		}
	})
}
