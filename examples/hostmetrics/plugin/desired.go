package plugin

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/fairlead-iot/fairlead/plugins/sdk"
)

// twinKey is the key in the desired and in the reported properties.
const twinKey = "hostmetrics"

const (
	intervalMin = time.Second
	intervalMax = 24 * time.Hour
)

// applied is what is in force, and what the desired properties of that version asked for in vain.
type applied struct {
	Interval sdk.Duration `json:"interval"`
	Select   []string     `json:"select"`
	Version  int64        `json:"version"`
	// Refused are the desired values that are not in force. It is a list, and null when it is empty, so that a merge
	// patch takes away what an earlier version left.
	Refused []refusal `json:"refused"`
}

// refusal is the reason why a desired value is not in force.
type refusal struct {
	Property string `json:"property"`
	Reason   string `json:"reason"`
}

// desired is the section of the desired properties that is ours, value by value, as the hub has it.
type desired map[string]json.RawMessage

// section takes our section out of a document of desired properties. What is there but is no object is refused as a
// whole, by the reason returned.
func section(document json.RawMessage) (desired, string) {
	var doc map[string]json.RawMessage
	if err := json.Unmarshal(document, &doc); err != nil {
		return nil, "the desired properties are no object"
	}
	ours, ok := doc[twinKey]
	if !ok || string(ours) == "null" {
		return desired{}, ""
	}
	d := desired{}
	if err := json.Unmarshal(ours, &d); err != nil {
		return desired{}, twinKey + " is no object"
	}
	return d, ""
}

// merge applies a merge patch to the section; nested values do not occur in it.
func (d desired) merge(patch desired) desired {
	out := desired{}
	maps.Copy(out, d)
	for k, v := range patch {
		if string(v) == "null" {
			delete(out, k)
		} else {
			out[k] = v
		}
	}
	return out
}

// apply returns what is to be in force: the desired values where they are good, else the configured ones. So it depends
// on nothing but the settings and the document, and is the same after a restart.
func (d desired) apply(configured Settings, version int64, refused string) applied {
	a := applied{Interval: configured.Interval, Select: groups(), Version: version}
	refuse := func(key, reason string) { a.Refused = append(a.Refused, refusal{key, reason}) }
	if refused != "" {
		refuse(twinKey, refused)
	}
	for _, key := range slices.Sorted(maps.Keys(d)) {
		raw := d[key]
		switch key {
		case "interval":
			var v sdk.Duration
			if err := json.Unmarshal(raw, &v); err != nil {
				refuse(key, fmt.Sprintf("%s is no duration such as \"5s\"", raw))
			} else if err := checkInterval(v); err != nil {
				refuse(key, err.Error())
			} else {
				a.Interval = v
			}
		case "select":
			var v []string
			if err := json.Unmarshal(raw, &v); err != nil || v == nil {
				refuse(key, fmt.Sprintf("%s is no list of %s", raw, strings.Join(groups(), ", ")))
			} else if i := slices.IndexFunc(v, func(g string) bool { return !slices.Contains(groups(), g) }); i >= 0 {
				refuse(key, fmt.Sprintf("there is no %q: choose from %s", v[i], strings.Join(groups(), ", ")))
			} else {
				a.Select = v
			}
		default:
			refuse(key, "there is no such property: choose from interval, select")
		}
	}
	return a
}

func checkInterval(d sdk.Duration) error {
	if d.D() < intervalMin || d.D() > intervalMax {
		return fmt.Errorf("%s is not between %s and %s", d, intervalMin, intervalMax)
	}
	return nil
}
