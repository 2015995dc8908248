package mqttfront

import (
	"testing"

	"github.com/fairlead-iot/fairlead/hub/internal/iot"
)

func TestBufferFollowsTheLoad(t *testing.T) {
	tests := map[string]struct {
		known       bool
		size, need  int
		full, rests bool
		want        int
	}{
		"a stranger announces 70 KiB":            {false, minBuffer, 70 << 10, false, false, minBuffer},
		"a stranger sends it":                    {false, 64 << 10, 70 << 10, true, false, iot.MaxConnect},
		"a device announces a large message":     {true, minBuffer, 200_000, false, false, 200_000},
		"many small ones come at once":           {true, minBuffer, 0, true, false, 2 * minBuffer},
		"many small ones fill the largest":       {true, maxBuffer, 0, true, false, maxBuffer},
		"little comes, in the middle of a burst": {true, maxBuffer, 0, false, false, maxBuffer},
		"the burst is over":                      {true, 200_000, 0, false, true, minBuffer},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			c := &conn{}
			if tt.known {
				c.idle = maxKeepAlive
			}
			if got := c.bufferSize(tt.size, tt.need, tt.full, tt.rests); got != tt.want {
				t.Errorf("%d bytes, want %d", got, tt.want)
			}
		})
	}
}
