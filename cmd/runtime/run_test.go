//go:build unix

package main

import (
	"bytes"
	"encoding/json"
	"os/exec"
	"strings"
	"testing"
)

// The demo runs as a program of its own: its built-in plugin is that program started again.
func TestTheDemoShowsEachStepAndBothSidesCountTheSame(t *testing.T) {
	t.Parallel()
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(t.Context(), "fairlead", "demo", "--for", "10s", "--json")
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("demo: %v\n%s%s", err, stdout.String(), stderr.String())
	}
	if stderr.Len() > 0 {
		t.Errorf("stderr: %s", stderr.String())
	}
	lines := strings.Split(strings.TrimSuffix(stdout.String(), "\n"), "\n")
	last := lines[len(lines)-1]
	var s demoSummary
	dec := json.NewDecoder(strings.NewReader(last))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&s); err != nil {
		t.Fatalf("the last line %q is no summary: %v", last, err)
	}
	if !s.OK || len(s.Missing) > 0 {
		t.Errorf("not every step happened: %s", last)
	}
	own := demoHub{s.TelemetryAcknowledged, s.MethodsAnswered, s.C2DCompleted, s.DesiredVersion, s.ReportedVersion, s.Reconnects}
	if own != s.Hub {
		t.Errorf("the runtime counted %+v, the hub %+v", own, s.Hub)
	}
	if s.TelemetryAcknowledged < 3 || s.MethodsAnswered != 1 || s.C2DCompleted != 1 || s.DesiredVersion != 2 || s.Reconnects == 0 || s.PluginPID == 0 {
		t.Errorf("counts are not those of ten seconds: %s", last)
	}
	t.Log(last)
}
