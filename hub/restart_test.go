package hub_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fairlead-iot/fairlead/hub"
	"github.com/fairlead-iot/fairlead/hub/api"
	"github.com/fairlead-iot/fairlead/hub/hubtest"
	"github.com/fairlead-iot/fairlead/hub/service"
)

// killedHub is a hub in a process of its own, which ends without warning.
type killedHub struct {
	cmd   *exec.Cmd
	addr  string // of MQTT
	https string // of REST
}

const killedHubDir = "FAIRLEAD_TEST_HUB_DIR"

// TestKilledHubProcess is the process, not a test.
func TestKilledHubProcess(t *testing.T) {
	dir := os.Getenv(killedHubDir)
	if dir == "" {
		t.Skip("runs only as a process of TestStateSurvivesKill")
	}
	h, err := hub.New(hub.Config{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	if err := h.Start(); err != nil {
		t.Fatal(err)
	}
	fmt.Println("ready", h.MQTTAddr(), h.HTTPSAddr())
	select {}
}

func startKilledHub(t *testing.T, dir string) killedHub {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestKilledHubProcess$")
	cmd.Env = append(os.Environ(), killedHubDir+"="+dir)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	k := killedHub{cmd: cmd}
	t.Cleanup(func() { k.kill() })
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if addrs, ok := strings.CutPrefix(lines.Text(), "ready "); ok {
			k.addr, k.https, _ = strings.Cut(addrs, " ")
			return k
		}
	}
	t.Fatalf("the hub's process did not start: %v", lines.Err())
	return k
}

func (k killedHub) kill() {
	_ = k.cmd.Process.Kill() // it may be gone
	_ = k.cmd.Wait()         // it was killed
}

func TestStateSurvivesKill(t *testing.T) {
	dir := t.TempDir()
	h := hubtest.Start(t, hubtest.WithDir(dir))
	cs := h.AddDevice("dev1")
	h.AddDevice("dev1/mod")
	if _, err := h.PatchTwin("dev1", []byte(`{"tags":{"a":1},"properties":{"desired":{"b":2}}}`)); err != nil {
		t.Fatal(err)
	}
	if err := h.SendC2D("dev1", api.C2D{MessageID: "m1", Body: []byte("queued")}); err != nil {
		t.Fatal(err)
	}
	owner, err := h.ServiceConnectionString("iothubowner")
	if err != nil {
		t.Fatal(err)
	}
	ca := h.CAPEM()
	twin, err := h.Twin("dev1")
	if err != nil {
		t.Fatal(err)
	}
	if err := h.Close(context.Background()); err != nil {
		t.Fatal(err)
	}

	// Another process takes telemetry and a subscription, and is killed.
	k := startKilledHub(t, dir)
	r := dialRawAt(t, k.addr, ca)
	r.send(connectBytesFlags(t, cs, "dev1", 0xc0))
	r.want(connack)
	for id := range byte(100) {
		r.send(packet(0x32, str("devices/dev1/messages/events/")+string([]byte{0, id + 1})+fmt.Sprint(id)))
	}
	for id := range byte(100) {
		r.want(string([]byte{0x40, 2, 0, id + 1}))
	}
	r.send(packet(0x82, "\x00\x01"+str(twinRes)+"\x01"))
	r.want("\x90\x03\x00\x01\x01")
	r.send(packet(0x32, "\x00\x36"+"$iothub/twin/PATCH/properties/reported/?$rid=aaaaaaaaa"+"\x00\x07"+`{"c":3}`))
	r.readPublish()
	k.kill()

	h = hubtest.Start(t, hubtest.WithDir(dir))
	if again, err := h.ServiceConnectionString("iothubowner"); err != nil || again != owner {
		t.Errorf("the policies' keys changed: %v", err)
	}
	if string(h.CAPEM()) != string(ca) {
		t.Error("the authority changed")
	}
	if again, err := h.ConnectionString("dev1"); err != nil || again != cs {
		t.Errorf("the device's key changed: %v", err)
	}
	if _, err := h.Device("dev1/mod"); err != nil {
		t.Error(err)
	}
	for i, m := range h.WaitCount("dev1", 100) {
		if string(m.Body) != fmt.Sprint(i) || m.Sequence != int64(i+1) {
			t.Fatalf("message %d is %d %s: an acknowledged one is lost", i, m.Sequence, m.Body)
		}
	}
	after, err := h.Twin("dev1")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(twin.Tags, after.Tags); diff != "" || after.ETag != twin.ETag || after.Properties.Reported["c"] == nil {
		t.Errorf("twin %+v", after)
	}
	if patched, err := h.PatchTwin("dev1", []byte(`{"tags":{"a":2}}`)); err != nil || patched.ETag == after.ETag {
		t.Errorf("the entity tag stays %s: %v", patched.ETag, err)
	}
	d := connect(t, h, options{id: "dev1"})
	if !d.present {
		t.Error("the session is lost")
	}
	d.subscribe(devicebound)
	if m := d.receive(); string(m.Payload()) != "queued" {
		t.Errorf("%s", m.Payload())
	}
}

func TestWhatCameByRESTSurvivesKill(t *testing.T) {
	dir := t.TempDir()
	h := hubtest.Start(t, hubtest.WithDir(dir))
	owner, err := h.ServiceConnectionString("iothubowner")
	if err != nil {
		t.Fatal(err)
	}
	ca := h.CAPEM()
	if err := h.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	k := startKilledHub(t, dir)
	c, err := service.New(owner, service.Options{CAPEM: ca, Address: k.https})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	root := hubtest.NewCA(t, "root")
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	_, err = c.AddCA(t.Context(), "plant", root.PEM())
	must(err)
	_, err = c.CreateDevice(t.Context(), api.Device{DeviceID: "dev1", Authentication: api.Authentication{Type: api.AuthCA}})
	must(err)
	must(c.SendC2D(t.Context(), "dev1", api.C2D{MessageID: "short", Ack: "full", TTL: "1ms"}))
	must(c.SendC2D(t.Context(), "dev1", api.C2D{MessageID: "long", Body: []byte("long")}))
	for deadline := time.Now().Add(patience); ; {
		batch, err := c.ReceiveFeedback(t.Context())
		must(err)
		if batch != nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("no feedback after %v", patience)
		}
		time.Sleep(2 * time.Millisecond) // between two looks
	}
	k.kill()

	h = hubtest.Start(t, hubtest.WithDir(dir))
	if batch := h.ReceiveFeedback(); batch == nil || len(batch.Records) != 1 || batch.Records[0].OriginalMessageID != "short" || batch.Records[0].StatusCode != api.FeedbackExpired {
		t.Errorf("feedback that nobody completed is lost: %+v", batch)
	}
	cert := root.Issue("dev1")
	d := newHTTPSDevice(t, h, "dev1", &cert)
	resp, body := d.do("GET", bound, "")
	if resp.StatusCode != 200 || body != "long" {
		t.Errorf("a device by its certificate got %d %s", resp.StatusCode, body)
	}
}

func TestDirectoryIsOneHubs(t *testing.T) {
	dir := t.TempDir()
	hubtest.Start(t, hubtest.WithDir(dir))
	if _, err := hub.New(hub.Config{Dir: dir}); !errors.Is(err, hub.ErrInUse) {
		t.Errorf("a second hub: %v", err)
	}
}

func TestDeliveredMessageKeepsItsNumberOverARestart(t *testing.T) {
	dir := t.TempDir()
	h := hubtest.Start(t, hubtest.WithDir(dir))
	h.AddDevice("dev1")
	d := connect(t, h, options{id: "dev1", manualAck: true})
	d.subscribe(devicebound)
	if err := h.SendC2D("dev1", api.C2D{Body: []byte("x")}); err != nil {
		t.Fatal(err)
	}
	first := d.receive()
	if err := h.Close(context.Background()); err != nil {
		t.Fatal(err)
	}
	d.wantLost()
	h = hubtest.Start(t, hubtest.WithDir(dir))
	d = connect(t, h, options{id: "dev1", manualAck: true})
	if again := d.receive(); !again.Duplicate() || again.MessageID() != first.MessageID() {
		t.Errorf("came again as %d dup=%v, was %d", again.MessageID(), again.Duplicate(), first.MessageID())
	}
}

func TestWaitEndsWithItsContext(t *testing.T) {
	h, err := hub.New(hub.Config{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if err := h.Serve(ctx); err != nil {
		t.Error(err)
	}
	if err := h.Start(); err == nil {
		t.Error("a closed hub started")
	}
}

func TestDirectoryOfANewerVersionStaysAsItIs(t *testing.T) {
	for name, text := range map[string]string{
		"state.journal":                      `{"format":"fairlead-hub-state","version":99}` + "\n",
		"telemetry-00000000000000000001.log": "FLHUBMSG\x63\x00\x00\x00\x00\x00\x00\x00and more",
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := hub.New(hub.Config{Dir: dir}); err == nil || !strings.Contains(err.Error(), "version 99") || !strings.Contains(err.Error(), name) {
				t.Errorf("New: %v", err)
			}
			if after, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(after) != text {
				t.Errorf("the file is %q, %v", after, err)
			}
			if _, err := os.Stat(filepath.Join(dir, hub.CAFile)); err == nil {
				t.Error("an authority was made")
			}
			if _, err := hub.New(hub.Config{Dir: dir}); errors.Is(err, hub.ErrInUse) {
				t.Error("the directory stays locked")
			}
		})
	}
}
