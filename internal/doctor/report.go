package doctor

import (
	"cmp"
	"slices"
	"time"
)

// ReportVersion is that of the report's form as JSON. A field may be added without a new one.
const ReportVersion = 1

// Severity says how bad a check's result is.
type Severity string

// The severities, as they stand in JSON.
const (
	// OK means that the layer does what it should.
	OK Severity = "ok"
	// Skipped means that there was nothing to look at, and Detail says why.
	Skipped Severity = "skipped"
	// Warning means that the device works, but not as well as it was meant to, or not for long.
	Warning Severity = "warning"
	// Problem means that the device cannot work like this.
	Problem Severity = "problem"
)

// Layers that a check looks at, in the order in which they are passed.
const (
	LayerConfig     = "config"
	LayerClock      = "clock"
	LayerStorage    = "storage"
	LayerCredential = "credential"
	LayerRuntime    = "runtime"
	LayerDNS        = "dns"
	LayerTCP        = "tcp"
	LayerProxy      = "proxy"
	LayerTLS        = "tls"
	LayerWebSocket  = "websocket"
	LayerHTTPS      = "https"
)

// Check is what was found at one layer.
type Check struct {
	// Route is the way that was walked: "mqtt", "mqttws", "https", "provisioning mqtt"; "" where the device itself was
	// looked at.
	Route    string   `json:"route,omitempty"`
	Layer    string   `json:"layer"`
	Severity Severity `json:"severity"`
	// Code names the finding of a warning or a problem; it stays the same for ever.
	Code string `json:"code,omitempty"`
	// Detail is what was seen, in a line; of a finding it is the cause.
	Detail string `json:"detail"`
	// Fix is what to do about a finding.
	Fix string `json:"fix,omitempty"`
	// BecauseOf is the code of another finding that explains this one.
	BecauseOf string `json:"because_of,omitempty"`
	// Took is in milliseconds; 0 where nothing was waited for.
	Took float64 `json:"took_ms"`
}

// Way is one route that was walked.
type Way struct {
	Route string `json:"route"`
	// To is the host and port that were meant, Address what was dialed in their place, Proxy by which proxy.
	To      string `json:"to"`
	Address string `json:"address,omitempty"`
	Proxy   string `json:"proxy,omitempty"`
	// Through says that every layer was passed.
	Through bool `json:"through"`
}

// Report is what the doctor found.
type Report struct {
	Version int `json:"version"`
	// Healthy says that the device gets through to its hub, and that nothing found keeps it from working.
	Healthy bool   `json:"healthy"`
	Device  string `json:"device,omitempty"` // "device" or "device/module"
	Hub     string `json:"hub,omitempty"`
	// Time is by this machine's clock.
	Time time.Time `json:"time"`
	// Took is in milliseconds.
	Took float64 `json:"took_ms"`
	// Ways are those of Checks that have a route, in order.
	Ways   []Way   `json:"ways"`
	Checks []Check `json:"checks"`
}

// Findings returns the checks that want something done, what matters most first; what another finding explains comes
// after the rest of its severity.
func (r *Report) Findings() []Check {
	var out []Check
	for _, c := range r.Checks {
		if c.Code != "" {
			out = append(out, c)
		}
	}
	rank := func(c Check) int {
		n := 0
		if c.Severity != Problem {
			n += 2
		}
		if c.BecauseOf != "" {
			n++
		}
		return n
	}
	slices.SortStableFunc(out, func(a, b Check) int { return cmp.Compare(rank(a), rank(b)) })
	return out
}

// find returns the first finding with one of the codes.
func (r *Report) find(codes ...string) (Check, bool) {
	for _, c := range r.Checks {
		if c.Code != "" && slices.Contains(codes, c.Code) {
			return c, true
		}
	}
	return Check{}, false
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
