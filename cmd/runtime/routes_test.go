package main

import (
	"bytes"
	"io"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fairlead-iot/fairlead/config"
	"github.com/fairlead-iot/fairlead/core"
	"github.com/fairlead-iot/fairlead/core/engine"
	"github.com/fairlead-iot/fairlead/internal/control"
	"github.com/fairlead-iot/fairlead/store"
)

func TestRoutesOfOneKindAreNumbered(t *testing.T) {
	got := routeNames([]config.Transport{{Use: "mqtt"}, {Use: "mqttws"}, {Use: "mqtt"}, {Use: "mqttws"}, {Use: "mqtt"}})
	if diff := cmp.Diff([]string{"mqtt", "mqttws", "mqtt-2", "mqttws-2", "mqtt-3"}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestTheKeeperWritesWhatTheEngineTells(t *testing.T) {
	dir := t.TempDir()
	k := newKeeper(dir, slog.New(slog.DiscardHandler))
	if got := k.lastRoute(); got != "" {
		t.Errorf("the last route is %q before there was any", got)
	}
	k.keepHappening(engine.Happening{Kind: engine.AttemptFailed, Epoch: 1, Route: "mqtt", Fault: core.Fault{Kind: core.Blocked, Phase: "tcp", Reason: "no answer"}})
	k.keepHappening(engine.Happening{Kind: engine.SessionBegan, Epoch: 2, Route: "mqttws"})
	k.keepRoute("mqtt")
	k.keepRoute("mqttws")
	k.keepHappening(engine.Happening{Kind: engine.SessionClosed, Epoch: 2, Route: "mqttws", Reason: "shutdown"})
	k.close()
	k.close()
	if got := k.lastRoute(); got != "mqttws" {
		t.Errorf("the last route is %q, want mqttws", got)
	}
	entries, damaged, err := store.ReadHistory(dir)
	if err != nil || damaged != 0 {
		t.Fatal(damaged, err)
	}
	var got []string
	for _, e := range entries {
		e.PID, e.Version = 7, "v1"
		got = append(got, describe(e, time.UTC))
	}
	if len(got) > 3 {
		got[3], _, _ = strings.Cut(got[3], " after ") // how long is not fixed
	}
	want := []string{"started: version v1, pid 7", "failed by mqtt: no answer (blocked, tcp)", "connected by mqttws", "closed", "stopped"}
	if len(got) > 3 && strings.HasPrefix(got[3], "closed by") {
		got[3] = "closed" // it took no time at all
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestAKeeperWithoutADiskSaysSoOnce: the device runs on.
func TestAKeeperWithoutADiskSaysSoOnce(t *testing.T) {
	var log bytes.Buffer
	k := newKeeper("/nonexistent/directory", slog.New(slog.NewTextHandler(&log, nil)))
	for range 3 {
		k.keepRoute("mqtt")
		k.keepHappening(engine.Happening{Kind: engine.SessionLost, Route: "mqtt", Fault: core.Fault{Reason: "reset"}})
	}
	k.close()
	if n := strings.Count(log.String(), "level=WARN"); n < 1 || n > 5 {
		t.Errorf("%d warnings:\n%s", n, log.String())
	}
}

func TestAKeeperSaysWhatItCouldNotKeep(t *testing.T) {
	var log bytes.Buffer
	k := &keeper{log: slog.New(slog.NewTextHandler(&log, nil)), wake: make(chan struct{}, 1)}
	for range keptAtMost + 2 { // while the disk takes nothing
		k.add(store.Entry{What: store.Failed})
	}
	k.wg.Go(k.run)
	k.close()
	if !strings.Contains(log.String(), "lost=2") && !strings.Contains(log.String(), "lost=3") { // the last is the end itself
		t.Errorf("the log does not say how much was lost:\n%s", log.String())
	}
}

func TestWhyIsWrittenForPeople(t *testing.T) {
	first := time.Date(2026, 11, 25, 12, 0, 1, 0, time.UTC)
	r := reasons{
		Entries: []store.Entry{
			{At: first, What: store.Connected, Route: "mqtt"},
			{At: first.Add(time.Hour), What: store.Lost, Route: "mqtt", Lasted: 3599.5, Renewals: 1, Kind: "transient", Phase: "mqtt", Reason: "read from hub: \x1b[31mreset\nby peer"},
			{At: first.Add(2 * time.Hour), What: store.Failed, Route: "mqtt", Kind: "blocked", Phase: "tcp", Reason: "no answer", Count: 12, First: &first},
			{At: first.Add(2 * time.Hour), What: store.Failed, Kind: "transient", Reason: "fetch credential: no key", Count: 1, First: &first},
			{At: first.Add(3 * time.Hour), What: store.Started, Version: "v1", PID: 7},
		},
		Damaged: 2,
		Connection: &control.Connection{
			State: "waiting", Since: 75, Transport: "mqttws", Reason: "407", NextAttempt: 12.4,
			Causes: []control.Cause{{Route: "mqtt", Kind: "blocked", Phase: "tcp", Reason: "no answer", Count: 3}, {Route: "mqttws", Kind: "blocked", Phase: "proxy", Reason: "407", Count: 1}},
		},
	}
	const want = `2026-11-25 12:00:01  connected by mqtt
2026-11-25 13:00:01  lost after 1h0m0s and 1 renewals by mqtt: read from hub:  [31mreset by peer (transient, mqtt)
2026-11-25 14:00:01  failed 12 times since 2026-11-25 12:00:01 by mqtt: no answer (blocked, tcp)
2026-11-25 14:00:01  failed: fetch credential: no key (transient)
                     the runtime ended without a word: it was killed, or the power failed
2026-11-25 15:00:01  started: version v1, pid 7
2 damaged lines of the record were left out
now: waiting for 1m15s by mqttws: 407
  mqtt: no answer (blocked, tcp), 3 times in a row
  mqttws: 407 (blocked, proxy)
  next attempt in 12s
`
	var b strings.Builder
	if err := printReasons(&b, r, time.UTC); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, b.String()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if err := printReasons(io.Discard, reasons{}, time.UTC); err != nil {
		t.Error(err)
	}
}
