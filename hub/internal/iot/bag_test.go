package iot

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fairlead-iot/fairlead/hub/api"
)

func TestParseBag(t *testing.T) {
	tests := map[string]struct {
		in                 string
		system, properties map[string]string
		ok                 bool
	}{
		"empty":                {"", nil, nil, true},
		"question mark":        {"?a=1", nil, map[string]string{"a": "1"}, true},
		"plus is literal":      {"a+b=c+d%20e", nil, map[string]string{"a+b": "c+d e"}, true},
		"second equals sign":   {"a=b=c", nil, map[string]string{"a": "b=c"}, true},
		"empty name":           {"=&k=", nil, map[string]string{"": "", "k": ""}, true},
		"system, encoded":      {"%24.cid=c&%24.uid=u&%24.ce=utf-8&%24.exp=2024-01-02T03%3A04%3A05", map[string]string{"correlation-id": "c", "user-id": "u", "content-encoding": "utf-8", "absolute-expiry-time": "2024-01-02T03:04:05"}, nil, true},
		"unknown system name":  {"%24.zzz=1", nil, map[string]string{"$.zzz": "1"}, true},
		"output and slash":     {"%24.on=out/", map[string]string{"iothub-outputname": "out"}, nil, true},
		"bad name":             {"%zz=1", nil, nil, false},
		"bad value":            {"a=%2", nil, nil, false},
		"message id too long":  {"%24.mid=" + strings.Repeat("x", 129), nil, nil, false},
		"message id just fits": {"%24.mid=" + strings.Repeat("x", 128), map[string]string{"message-id": strings.Repeat("x", 128)}, nil, true},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := ParseBag(tt.in)
			if (err == nil) != tt.ok {
				t.Fatalf("ParseBag: %v", err)
			}
			if !tt.ok {
				return
			}
			if tt.system == nil {
				tt.system = map[string]string{}
			}
			if tt.properties == nil {
				tt.properties = map[string]string{}
			}
			if diff := cmp.Diff(tt.system, got.System) + cmp.Diff(tt.properties, got.Properties); diff != "" {
				t.Errorf("ParseBag (-want +got):\n%s", diff)
			}
		})
	}
}

// What CheckMessage lets through quickly must be what ParseBag can decode.
func FuzzCheckMessage(f *testing.F) {
	f.Add("%24.mid=a%20b&k=v", 10)
	f.Fuzz(func(t *testing.T, bag string, _ int) {
		_, err := ParseBag(bag)
		if checked := CheckMessage([]byte(bag), nil); (checked == nil) != (err == nil) && len(bag) < MaxMessage {
			t.Errorf("CheckMessage(%q) = %v, ParseBag: %v", bag, checked, err)
		}
	})
}

func TestTwinSize(t *testing.T) {
	for text, want := range map[string]int{
		`{}`: 0, `{"abc":"de"}`: 5, `{"n":12345678901}`: 9, `{"b":true}`: 5, `{"o":{"p":"q"}}`: 3,
		`{"a":[1,"xy",{"k":false}]}`: 1 + 8 + 2 + 5, `{"ü":"ü"}`: 4, `{"n":null}`: 1, "{\"t\":\"a\\u0001b\"}": 3,
	} {
		tree, err := DecodeObject([]byte(text))
		if err != nil {
			t.Fatal(err)
		}
		if got := treeSize(tree); got != want {
			t.Errorf("size of %s is %d, want %d", text, got, want)
		}
	}
}

func TestGrowthBeyondTheLimitIsRefusedShrinkingIsNot(t *testing.T) {
	large := map[string]any{"a": strings.Repeat("x", 30), "b": "y"}
	small := map[string]any{"a": strings.Repeat("x", 30)}
	if err := checkGrowth("tags", large, small, 10); err != nil {
		t.Errorf("shrinking: %v", err)
	}
	if err := checkGrowth("tags", small, large, 10); AsError(err).Code != api.CodeArgumentInvalid {
		t.Errorf("growing: %v", err)
	}
}
