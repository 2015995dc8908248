package restfront

import (
	"net/http"
	"strings"
	"testing"

	"github.com/fairlead-iot/fairlead/hub/internal/iot"
)

// What HTTPS names by headers comes out of the property bag as it went in.
func FuzzBagOf(f *testing.F) {
	f.Add("iothub-app-unit", "°C + &=/")
	f.Add("iothub-messageid", "m/1")
	f.Add("dt-subject", "%41+")
	f.Add("iothub-app-$.mid", "x")
	f.Fuzz(func(t *testing.T, name, value string) {
		bag, err := iot.ParseBag(string(bagOf(map[string]string{name: value})))
		if err != nil {
			if len(value) <= 128 {
				t.Fatalf("%q=%q: %v", name, value, err)
			}
			return // a message id has a limit
		}
		key, ok := bagKey(name)
		if !ok {
			if len(bag.System)+len(bag.Properties) != 0 {
				t.Errorf("%q became %+v", name, bag)
			}
			return
		}
		got := bag.Properties[key]
		for _, system := range bag.System {
			got = system // there is but one
		}
		if got != value {
			t.Errorf("%q=%q came out as %q", name, value, got)
		}
	})
}

func FuzzDecodeBatch(f *testing.F) {
	f.Add(`[{"body":"aGVsbG8=","properties":{"iothub-app-a":"1"}},{"body":"x","base64Encoded":false}]`)
	f.Fuzz(func(t *testing.T, text string) {
		records, err := decodeBatch([]byte(text))
		if err == nil && len(records) == 0 {
			t.Error("a batch of nothing was taken")
		}
		for _, r := range records {
			_ = iot.CheckMessage(r.Bag, r.Body) // it must not panic
		}
	})
}

func TestHeadersHaveNoCase(t *testing.T) {
	h := http.Header{}
	h.Set("iothub-app-MyName", "1")
	if bag := string(bagOf(headerProperties(h))); bag != "myname=1" {
		t.Errorf("bag %s", bag)
	}
	if _, ok := bagKey(strings.ToUpper("iothub-app-")); ok {
		t.Error("a property without a name")
	}
}
