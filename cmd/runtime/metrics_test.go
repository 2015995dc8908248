package main

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/fairlead-iot/fairlead/plugins/host"
)

func TestMetricsKeepTheNewestValueAndAddCounters(t *testing.T) {
	m := newMetrics()
	m.observe(host.Metric{Plugin: "p", Name: "temperature", Value: 20})
	m.observe(host.Metric{Plugin: "p", Name: "temperature", Value: 21})
	for range 3 {
		m.observe(host.Metric{Plugin: "p", Name: "starts", Counter: true, Value: 2, Labels: map[string]string{"b": "2", "a": "1"}})
	}
	want := map[string]float64{"temperature": 21, `starts{a="1",b="2"}`: 6}
	if diff := cmp.Diff(want, m.of("p")); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	for i := range 10 * metricsKept {
		m.observe(host.Metric{Plugin: "q", Name: fmt.Sprint(i), Value: 1})
	}
	if n := len(m.of("q")); n != metricsKept {
		t.Errorf("%d series are kept", n)
	}
}
