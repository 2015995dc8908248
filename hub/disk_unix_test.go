//go:build unix

package hub_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/fairlead-iot/fairlead/hub"
	"github.com/fairlead-iot/fairlead/hub/api"
	"github.com/fairlead-iot/fairlead/hub/hubtest"
)

const fullDiskDir = "FAIRLEAD_TEST_FULL_DISK_DIR"

// limitFiles makes every write beyond so many bytes of a file fail, after as much
// of it as fits: what a full disk does.
func limitFiles(t *testing.T, bytes uint64) {
	t.Helper()
	var r syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &r); err != nil {
		t.Fatal(err)
	}
	r.Cur = min(bytes, r.Max)
	if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &r); err != nil {
		t.Fatal(err)
	}
}

// TestFullDiskProcess is the process, not a test: the limit is the whole process's.
func TestFullDiskProcess(t *testing.T) {
	dir := os.Getenv(fullDiskDir)
	if dir == "" {
		t.Skip("runs only as a process of TestFullDisk")
	}
	signal.Ignore(syscall.SIGXFSZ)
	h := hubtest.Start(t, hubtest.WithDir(dir))
	h.AddDevice("dev1")
	d := connect(t, h, options{id: "dev1"})
	d.subscribe(twinRes)
	d.telemetry("", "before")
	info, err := os.Stat(filepath.Join(dir, "state.journal"))
	if err != nil {
		t.Fatal(err)
	}

	// Full: what was there stays, what cannot be kept is refused.
	limitFiles(t, uint64(info.Size())+100)
	if _, err := h.PatchTwin("dev1", []byte(`{"tags":{"a":"`+strings.Repeat("x", 1000)+`"}}`)); err == nil {
		t.Error("a patch was kept on a full disk")
	}
	d.send(reportTwin+"1", `{"a":"`+strings.Repeat("x", 1000)+`"}`)
	if body := object(t, d.receiveFrom("$iothub/twin/res/500/?$rid=1")); body["errorCode"] != 500001.0 {
		t.Errorf("body %v", body)
	}
	wantRefused := func(err error) {
		t.Helper()
		if err == nil {
			t.Error("kept on a full disk")
		}
	}
	wantRefused(h.SendC2D("dev1", api.C2D{Body: make([]byte, 1000)}))
	_, err = h.CreateDevice(api.Device{DeviceID: "dev2"})
	wantRefused(err)
	d.Publish("devices/dev1/messages/events/", 1, false, strings.Repeat("x", 16<<10))
	d.wantLost()
	h.WaitConnected("dev1", false)
	// A session that cannot be kept is refused, and leaves no trace of being connected.
	if _, err := tryConnect(t, h, options{id: "dev1", username: "localhost/dev1/?api-version=2021-04-12&model-id=dtmi%3A" + strings.Repeat("m", 1000)}); err == nil {
		t.Error("a session was begun")
	}
	h.WaitConnected("dev1", false)
	if err := h.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	full, err := hub.New(hub.Config{Dir: dir})
	if err != nil {
		t.Fatalf("start on a full disk: %v", err)
	}
	if err := full.Close(context.Background()); err != nil {
		t.Fatal(err)
	}

	h = hubtest.Start(t, hubtest.WithDir(dir))
	if _, err := h.CreateDevice(api.Device{DeviceID: "dev3"}); err == nil {
		t.Error("a device was kept on a full disk")
	}
	// Space again: no restart is needed.
	limitFiles(t, 1<<40)
	h.AddDevice("dev3")
	d = connect(t, h, options{id: "dev1"})
	d.telemetry("", "after")
	if _, err := h.PatchTwin("dev1", []byte(`{"tags":{"b":1}}`)); err != nil {
		t.Error(err)
	}
	d.Disconnect(0)
	if err := h.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	fmt.Println("full disk survived")
}

func TestFullDisk(t *testing.T) {
	dir := t.TempDir()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, os.Args[0], "-test.run=^TestFullDiskProcess$")
	cmd.Env = append(os.Environ(), fullDiskDir+"="+dir)
	if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "full disk survived") {
		t.Fatalf("%v\n%s", err, out)
	}
	h := hubtest.Start(t, hubtest.WithDir(dir))
	var bodies []string
	for _, m := range h.WaitCount("dev1", 2) {
		bodies = append(bodies, string(m.Body))
	}
	twin, err := h.Twin("dev1")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Join(bodies, " ") != "before after" || fmt.Sprint(twin.Tags) != "map[b:1]" || len(h.Devices()) != 2 {
		t.Errorf("messages %v, tags %v, devices %d", bodies, twin.Tags, len(h.Devices()))
	}
}
