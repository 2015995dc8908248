package mqttfront

import (
	"testing"

	"github.com/fairlead-iot/fairlead/hub/api"
	"github.com/fairlead-iot/fairlead/hub/internal/iot"
)

func TestParseUser(t *testing.T) {
	tests := map[string]struct {
		name, clientID string
		want           user
		ok             bool
	}{
		"node":                 {"h/dev1/?api-version=2021-04-12&DeviceClientType=x%2F1", "dev1", user{"h", ""}, true},
		"model id":             {"h/dev1/?api-version=2020-09-30&model-id=dtmi%3Acom%3Aa%3B1", "dev1", user{"h", "dtmi:com:a;1"}, true},
		"module":               {"h/dev1/mod/?api-version=2019-10-01", "dev1/mod", user{"h", ""}, true},
		"no slash before ?":    {"h/dev1?api-version=2018-06-30", "dev1", user{"h", ""}, true},
		"no query":             {"h/dev1", "dev1", user{"h", ""}, true},
		"no ?":                 {"h/dev1/api-version=2016-11-14", "dev1", user{"h", ""}, true},
		"port":                 {"h:8883/dev1/?x", "dev1", user{"h", ""}, true},
		"IPv6":                 {"[::1]:8883/dev1/?x", "dev1", user{"::1", ""}, true},
		"device of a module":   {"h/dev1/?x", "dev1/mod", user{}, false},
		"module of a device":   {"h/dev1/mod/?x", "dev1", user{}, false},
		"longer id":            {"h/dev10/?x", "dev1", user{}, false},
		"a word":               {"h", "h", user{}, false},
		"model id not encoded": {"h/dev1/?model-id=%zz", "dev1", user{}, false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := parseUser(tt.name, tt.clientID)
			if got != tt.want || (err == nil) != tt.ok {
				t.Errorf("parseUser(%q) = %+v, %v", tt.name, got, err)
			}
		})
	}
}

func TestParseRequestAndAnswer(t *testing.T) {
	for rest, want := range map[string]string{
		"?$rid=1": "1", "?$rid=a-b&$version=7": "a-b", "?$version=7&$rid=x": "x", "?%24rid=y": "y", "?$rid=": "", "": "", "$rid=1": "", "?$rid=1&$version=x": "",
	} {
		if rid, _, err := parseRequest(rest); rid != want || (err == nil) != (want != "") {
			t.Errorf("parseRequest(%q) = %q, %v", rest, rid, err)
		}
	}
	for rest, want := range map[string]int{"200/?$rid=1": 200, "-1/?$rid=%31": -1, "200?$rid=1": 0, "x/?$rid=1": 0, "200/?": 0} {
		status, rid, err := parseAnswer(rest)
		if status != want || err == nil && rid != "1" || (err == nil) != (want != 0) {
			t.Errorf("parseAnswer(%q) = %d, %q, %v", rest, status, rid, err)
		}
	}
}

func TestFeatures(t *testing.T) {
	device, module := api.ID{Device: "d"}, api.ID{Device: "d", Module: "m"}
	tests := []struct {
		id     api.ID
		filter string
		want   iot.Feature
	}{
		{device, "devices/d/messages/devicebound/#", iot.FeatureC2D},
		{device, "devices/d/messages/devicebound/+", ""},
		{device, "devices/d/#", ""},
		{device, "devices/d/modules/m/#", ""},
		{module, "devices/d/messages/devicebound/#", ""},
		{module, "devices/d/modules/m/#", iot.FeatureInputs},
		{module, "devices/d/modules/m/inputs/#", iot.FeatureInputs},
		{module, "devices/d/modules/n/inputs/#", ""},
		{device, "$iothub/methods/POST/#", iot.FeatureMethods},
		{device, "$iothub/twin/#", ""},
		{device, "#", ""},
	}
	for _, tt := range tests {
		got, ok := featureOf(tt.id, tt.filter)
		if ok != (tt.want != "") || ok && got != tt.want {
			t.Errorf("featureOf(%s, %s) = %s, %v", tt.id, tt.filter, got, ok)
		}
	}
}

func FuzzTopics(f *testing.F) {
	f.Add("h/dev1/?api-version=2021-04-12&model-id=a%20b", "dev1")
	f.Add("?$rid=1&$version=2", "200/?$rid=1")
	f.Fuzz(func(_ *testing.T, a, b string) {
		_, _ = parseUser(a, b)    // none may panic
		_, _, _ = parseRequest(a) // …
		_, _, _ = parseAnswer(b)  // …
		_, _ = featureOf(api.ParseID(a), b)
	})
}
