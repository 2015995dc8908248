//go:build unix

package main

import (
	"bytes"
	"encoding/json"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/testscript"
)

// cmdRefused is the script command
//
//	refused NAME
//	refused NAME by run
//
// check and run both refuse NAME.yaml: exit code 2, nothing on stdout, and on stderr, log lines aside, to the letter
// what NAME.txt says, in which variables are expanded; and the key of the scripts, c2VjcmV0, nowhere. With "by run" check finds nothing wrong, because the program has
// to run for that.
func cmdRefused(ts *testscript.TestScript, neg bool, args []string) {
	byRun := len(args) == 3 && slices.Equal(args[1:], []string{"by", "run"})
	if neg || len(args) != 1 && !byRun {
		ts.Fatalf("usage: refused NAME [by run]")
	}
	name := args[0]
	want := regexp.MustCompile(`\$\w+`).ReplaceAllStringFunc(ts.ReadFile(name+".txt"), func(v string) string { return ts.Getenv(v[1:]) })
	for _, command := range []string{"check", "run"} {
		if command == "check" && byRun {
			cmdExits(ts, false, []string{"0", "fairlead", command, "-c", name + ".yaml"})
			continue
		}
		cmdExits(ts, false, []string{"2", "fairlead", command, "-c", name + ".yaml"})
		if out := ts.ReadFile("stdout"); out != "" {
			ts.Fatalf("%s %s: stdout %q", command, name, out)
		}
		var got strings.Builder
		for line := range strings.Lines(ts.ReadFile("stderr")) {
			if !strings.HasPrefix(line, "time=") {
				got.WriteString(line)
			}
		}
		if strings.Contains(ts.ReadFile("stderr"), "c2VjcmV0") {
			ts.Fatalf("%s %s: stderr shows the key", command, name)
		}
		if diff := cmp.Diff(want, got.String()); diff != "" {
			ts.Fatalf("%s %s: stderr (-want +got):\n%s", command, name, diff)
		}
	}
}

// cmdUntil is the script command
//
//	until REGEXP PROGRAM [ARG...]
//
// which runs a program again and again until its stdout matches, and fails after a minute.
func cmdUntil(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: until REGEXP PROGRAM [ARG...]")
	}
	re, err := regexp.Compile("(?m)" + args[0])
	ts.Check(err)
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		_ = ts.Exec(args[1], args[2:]...) // what it prints decides
		out := ts.ReadFile("stdout")
		if re.MatchString(out) {
			return
		}
		if time.Now().After(deadline) {
			ts.Fatalf("%q never printed what matches %s; at last:\n%s%s", args[1:], args[0], out, ts.ReadFile("stderr"))
		}
	}
}

// The demo runs as a program of its own: its built-in plugin is that program started again. On a busy machine its steps take
// more than ten seconds.
func TestTheDemoShowsEachStepAndBothSidesCountTheSame(t *testing.T) {
	t.Parallel()
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(t.Context(), "fairlead", "demo", "--for", "30s", "--json")
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
	own := demoHub{s.TelemetryAcknowledged, s.MethodsAnswered, s.C2DCompleted, s.DesiredVersion, s.ReportedVersion, s.Reconnects, s.FilesUploaded}
	if own != s.Hub {
		t.Errorf("the runtime counted %+v, the hub %+v", own, s.Hub)
	}
	if s.TelemetryAcknowledged < 3 || s.MethodsAnswered != 2 || s.C2DCompleted != 1 || s.DesiredVersion != 2 || s.FilesUploaded != 1 || s.Reconnects == 0 || s.PluginPID == 0 {
		t.Errorf("counts are not those of half a minute: %s", last)
	}
	t.Log(last)
}
