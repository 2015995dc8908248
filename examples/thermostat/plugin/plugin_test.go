package plugin_test

import (
	"testing"

	"github.com/fairlead-iot/fairlead/examples/thermostat/plugin"
	"github.com/fairlead-iot/fairlead/plugins/sdk/sdktest"
)

func TestTheSetPointChangesTheTemperature(t *testing.T) {
	h := sdktest.Start(t, plugin.New(), sdktest.Config{Settings: map[string]string{"interval": "1ms"}})
	if m := h.WaitSent(1)[0]; string(m.Payload) != `{"celsius":19}` {
		t.Errorf("first message: %s", m.Payload)
	}
	if status, answer := h.Method("setPoint", 25); status != 200 || string(answer) != `{"is":25,"was":20}` {
		t.Errorf("setPoint: %d %s", status, answer)
	}
	if status, answer := h.Method("setPoint", "warm"); status != 400 {
		t.Errorf("a set point that is no number: %d %s", status, answer)
	}
	n := len(h.Device.Sent())
	if ms := h.WaitSent(n + 2); string(ms[n+1].Payload) != `{"celsius":24}` {
		t.Errorf("afterwards: %s", ms[n+1].Payload)
	}
}
