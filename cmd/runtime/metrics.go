package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/fairlead-iot/fairlead/plugins/host"
)

// metricsKept bounds the series of one plugin: labels that never repeat must not eat the memory.
const metricsKept = 256

// metrics keeps the newest value of what plugins measure, for status.
type metrics struct {
	mu      sync.Mutex
	plugins map[string]map[string]float64
}

func newMetrics() *metrics { return &metrics{plugins: map[string]map[string]float64{}} }

// observe is host.Config.Metric. A series beyond metricsKept is left out.
func (m *metrics) observe(o host.Metric) {
	var labels []string
	for _, k := range slices.Sorted(maps.Keys(o.Labels)) {
		labels = append(labels, fmt.Sprintf("%s=%q", k, o.Labels[k]))
	}
	name := o.Name
	if len(labels) > 0 {
		name += "{" + strings.Join(labels, ",") + "}"
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	series := m.plugins[o.Plugin]
	if series == nil {
		series = map[string]float64{}
		m.plugins[o.Plugin] = series
	}
	if _, isKnown := series[name]; !isKnown && len(series) >= metricsKept {
		return
	}
	if o.Counter {
		series[name] += o.Value
	} else {
		series[name] = o.Value
	}
}

// of returns a copy of a plugin's series.
func (m *metrics) of(plugin string) map[string]float64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	return maps.Clone(m.plugins[plugin])
}
