package core_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/fairlead-iot/fairlead/core"
)

func TestSizeCountsTheBodyAndAllProperties(t *testing.T) {
	m := core.Message{
		ID: "1", CorrelationID: "22", UserID: "333", ContentType: "4444", ContentEncoding: "55555", InterfaceID: "666666",
		Component: "7777777", Output: "88888888", Properties: map[string]string{"ab": "cde", "é": ""}, Payload: make([]byte, 100),
		Input: "only inward", To: "only inward", Ack: "full",
	}
	if got, want := m.Size(), 1+2+3+4+5+6+7+8+5+2+100; got != want {
		t.Errorf("size %d, want %d", got, want)
	}
	m.Expiry, m.CreationTime = time.Unix(1, 0), time.Unix(1, 0)
	if got, want := m.Size(), 143+2*len("1970-01-01T00:00:01.000Z"); got != want {
		t.Errorf("size with times %d, want %d", got, want)
	}
	if got := new(core.Message).Size(); got != 0 {
		t.Errorf("size of nothing: %d", got)
	}
}

func TestCheckRefusesWhatTheHubWouldCloseTheConnectionOver(t *testing.T) {
	body := func(n int) []byte { return make([]byte, n) }
	properties := func(k, v string) map[string]string { return map[string]string{k: v} }
	for _, c := range []struct {
		name string
		m    core.Message
		want error
	}{
		{"nothing", core.Message{}, nil},
		{"the largest body", core.Message{Payload: body(core.MaxMessageSize)}, nil},
		{"one more", core.Message{Payload: body(core.MaxMessageSize + 1)}, core.ErrTooLarge},
		{"one more by a property", core.Message{Payload: body(core.MaxMessageSize - 1), Properties: properties("a", "b")}, core.ErrTooLarge},
		{"one more by the id", core.Message{Payload: body(core.MaxMessageSize), ID: "x"}, core.ErrTooLarge},
		{"a long id", core.Message{ID: strings.Repeat("x", 128)}, nil},
		{"a longer id", core.Message{ID: strings.Repeat("x", 129)}, core.ErrInvalid},
		{"a property without a name", core.Message{Properties: properties("", "v")}, core.ErrInvalid},
		{"a property of the hub's", core.Message{Properties: properties("$.mid", "v")}, core.ErrInvalid},
		{"a property that looks like it", core.Message{Properties: properties("$mid", "")}, nil},
		{"any text", core.Message{Properties: properties("a&b=c/#+ é", "\x00\xff\n%")}, nil},
		{"properties that fill the topic", core.Message{Properties: properties("a", strings.Repeat("x", 64_900))}, nil},
		{"more than it holds", core.Message{Properties: properties("a", strings.Repeat("x", 65_100))}, core.ErrTooLarge},
		{"more once encoded", core.Message{Properties: properties("a", strings.Repeat(" ", 22_000))}, core.ErrTooLarge},
		{"more once encoded, in a system property", core.Message{CorrelationID: strings.Repeat("é", 11_000)}, core.ErrTooLarge},
	} {
		t.Run(c.name, func(t *testing.T) {
			err := c.m.Check()
			if !errors.Is(err, c.want) || c.want == nil && err != nil {
				t.Errorf("%v, want %v", err, c.want)
			}
		})
	}
	err := (&core.Message{Properties: properties("a", strings.Repeat(" ", 22_000))}).Check()
	if want := "message with properties of 66084 bytes: too large: percent-encoded, as they are sent, they may take at most 65023"; err == nil || err.Error() != want {
		t.Errorf("text %q, want %q", err, want)
	}
}
