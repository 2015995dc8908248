//go:build interop

package interop_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fairlead-iot/fairlead/hub/api"
	"github.com/fairlead-iot/fairlead/hub/hubtest"
)

// nodePackages is where node/install has put Microsoft's clients.
func nodePackages(t *testing.T) string {
	t.Helper()
	if _, err := exec.LookPath("node"); err != nil {
		t.Skip("node is not installed here: apt-get install nodejs npm")
	}
	dir := os.Getenv("FAIRLEAD_INTEROP_NODE")
	if dir == "" {
		cache, err := os.UserCacheDir()
		if err != nil {
			t.Skipf("no cache directory: %v", err)
		}
		dir = filepath.Join(cache, "fairlead-interop-node")
	}
	want, err := os.ReadFile(filepath.Join("node", "package-lock.json"))
	if err != nil {
		t.Fatal(err)
	}
	if have, err := os.ReadFile(filepath.Join(dir, "installed.json")); err != nil || !bytes.Equal(have, want) {
		t.Skip("Microsoft's clients for Node are not installed here: run internal/interop/node/install")
	}
	return dir
}

// nodeCommand runs a script of ./node with the packages.
func nodeCommand(ctx context.Context, t *testing.T, script string, env ...string) *exec.Cmd {
	t.Helper()
	packages := nodePackages(t)
	cmd := exec.CommandContext(ctx, "node", filepath.Join("node", script))
	cmd.Env = append(os.Environ(), append(env, "NODE_PATH="+filepath.Join(packages, "node_modules"))...)
	return cmd
}

// nodeScript is node/device.js or node/service.js.
type nodeScript struct {
	t      *testing.T
	in     io.Writer
	answer chan nodeLine
	events chan nodeLine
	lastID int
}

// nodeLine is what the script says.
type nodeLine struct {
	ID            int             `json:"id"`
	Result        json.RawMessage `json:"result"`
	Error         string          `json:"error"`
	Event         string          `json:"event"`
	Delta         map[string]any  `json:"delta"`
	Body          string          `json:"body"`
	MessageID     string          `json:"messageId"`
	CorrelationID string          `json:"correlationId"`
	ContentType   string          `json:"contentType"`
	Properties    map[string]any  `json:"properties"`
}

func startNode(t *testing.T, script string, env ...string) *nodeScript {
	t.Helper()
	cmd := nodeCommand(t.Context(), t, script, env...)
	cmd.Stderr = t.Output()
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	d := &nodeScript{t: t, in: in, answer: make(chan nodeLine, 1), events: make(chan nodeLine, 1000)}
	read := make(chan struct{})
	go func() {
		defer close(read)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			var l nodeLine
			if err := json.Unmarshal(lines.Bytes(), &l); err != nil {
				t.Errorf("the script wrote %q", lines.Text())
				continue
			}
			if l.Event == "" {
				d.answer <- l
			} else {
				d.events <- l
			}
		}
	}()
	t.Cleanup(func() {
		_ = in.Close() // the script ends with its input
		<-read
		_ = cmd.Wait() // killed or ended: the test has asserted what it wants
	})
	return d
}

// do sends a command and returns its answer's result, or its error.
func (d *nodeScript) do(what string, arguments map[string]any) (json.RawMessage, error) {
	d.t.Helper()
	d.lastID++
	line := map[string]any{"id": d.lastID, "do": what}
	maps.Copy(line, arguments)
	if err := json.NewEncoder(d.in).Encode(line); err != nil {
		d.t.Fatal(err)
	}
	select {
	case l := <-d.answer:
		if l.ID != d.lastID {
			d.t.Fatalf("%s: answer %d, want %d", what, l.ID, d.lastID)
		}
		if l.Error != "" {
			return nil, fmt.Errorf("%s: %s", what, l.Error)
		}
		return l.Result, nil
	case <-time.After(time.Minute):
		d.t.Fatalf("%s: the SDK does not answer", what)
		return nil, nil
	}
}

func (d *nodeScript) must(what string, arguments map[string]any) json.RawMessage {
	d.t.Helper()
	result, err := d.do(what, arguments)
	if err != nil {
		d.t.Fatal(err)
	}
	return result
}

// event waits for an event by its name; those of the connection itself may come in between.
func (d *nodeScript) event(name string) nodeLine {
	d.t.Helper()
	deadline := time.After(time.Minute)
	for {
		select {
		case l := <-d.events:
			if l.Event == name {
				return l
			}
			if l.Event != "connect" && l.Event != "disconnect" {
				d.t.Fatalf("event %+v, want %s", l, name)
			}
		case <-deadline:
			d.t.Fatalf("no event %s within a minute", name)
		}
	}
}

func TestMicrosoftsDeviceOverMQTT(t *testing.T) {
	nodePackages(t)
	h := hubtest.Start(t)
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, h.CAPEM(), 0o600); err != nil {
		t.Fatal(err)
	}
	text := strings.Replace(h.AddDevice("node"), "HostName=localhost", fmt.Sprintf("HostName=localhost:%d", h.MQTTPort()), 1)
	d := startNode(t, "device.js")
	d.must("connect", map[string]any{"connectionString": text, "protocol": "mqtt", "ca": ca})
	checkNodeDevice(t, h, d)
}

// checkNodeDevice goes through everything that a device has of the hub.
func checkNodeDevice(t *testing.T, h *hubtest.Hub, d *nodeScript) {
	// # telemetry with properties
	d.must("send", map[string]any{"body": `{"x":1}`, "messageId": "m/1 ü", "properties": map[string]any{"a&b": "1=2/3 + ä", "empty": ""}})
	m := h.WaitCount("node", 1)[0]
	if diff := cmp.Diff(map[string]string{"a&b": "1=2/3 + ä", "empty": ""}, m.Properties); diff != "" {
		t.Errorf("properties (-want +got):\n%s", diff)
	}
	if m.System["message-id"] != "m/1 ü" || m.System["content-type"] != "application/json" || m.System["content-encoding"] != "utf-8" || string(m.Body) != `{"x":1}` {
		t.Errorf("message %+v", m)
	}

	// # cloud-to-device messages: one that waited, one that comes at once; both completed
	value := "a/b c"
	send := func(id string) {
		t.Helper()
		if err := h.SendC2D("node", api.C2D{
			MessageID: id, CorrelationID: "c/1", ContentType: "text/plain", Body: []byte("hello " + id), Properties: map[string]*string{"k/1": &value},
		}); err != nil {
			t.Fatal(err)
		}
		l := d.event("message")
		if l.Body != "hello "+id || l.MessageID != id || l.CorrelationID != "c/1" || l.ContentType != "text/plain" || l.Properties["k/1"] != value || l.Error != "" {
			t.Errorf("message %+v", l)
		}
	}
	send("m1")
	send("m2")
	h.WaitCounters("node", func(c api.Counters) bool { return c.C2DCompleted == 2 && c.C2DSent == 2 })

	// # a direct method
	d.must("method", map[string]any{"name": "read", "status": 207})
	call := func() {
		t.Helper()
		wait := 30 // the SDK subscribes when the handler is set, and does not say when it has
		got, err := h.CallMethod(t.Context(), "node", api.MethodRequest{MethodName: "read", Payload: json.RawMessage(`{"v":[1,null]}`), ConnectTimeoutInSeconds: &wait})
		if err != nil || got.Status != 207 || string(got.Payload) != `{"name":"read","echo":{"v":[1,null]}}` {
			t.Errorf("method answered %d %s, %v", got.Status, got.Payload, err)
		}
	}
	call()

	// # the twin: read, reported accepted and refused, desired
	patch := func(n int) int64 {
		t.Helper()
		twin, err := h.PatchTwin("node", fmt.Appendf(nil, `{"properties":{"desired":{"interval":%d}}}`, n))
		if err != nil {
			t.Fatal(err)
		}
		return twin.Properties.Desired["$version"].(int64)
	}
	wantDesired := func(n int) {
		t.Helper()
		if l := d.event("desired"); l.Delta["interval"] != float64(n) {
			t.Errorf("desired %v, want %d", l.Delta, n)
		}
	}
	patch(1)
	var twin struct{ Desired, Reported map[string]any }
	if err := json.Unmarshal(d.must("twin", nil), &twin); err != nil || twin.Desired["interval"] != 1.0 || twin.Desired["$version"] != 2.0 {
		t.Errorf("twin %+v, %v", twin, err)
	}
	wantDesired(1) // the SDK gives what is there to a new listener
	d.must("report", map[string]any{"patch": map[string]any{"state": map[string]any{"ok": true}}})
	if _, err := d.do("report", map[string]any{"patch": map[string]any{"too": strings.Repeat("x", 5000)}}); err == nil || !strings.Contains(err.Error(), "longer than 4096 bytes") {
		t.Errorf("a patch that the hub refuses: %v", err)
	}
	seen, err := h.Twin("node")
	if err != nil || fmt.Sprint(seen.Properties.Reported["state"]) != "map[ok:true]" || seen.Properties.Reported["too"] != nil {
		t.Errorf("reported %v, %v", seen.Properties.Reported, err)
	}
	patch(2)
	wantDesired(2)

	// # a cut link, and two attempts that are cut as well: the SDK comes back by itself and subscribes to a part only; the
	// rest the hub has kept
	before, err := h.Counters("node")
	if err != nil {
		t.Fatal(err)
	}
	h.Fault(api.Fault{Name: api.FaultCut, Device: "node", Count: 2})
	h.WaitCounters("node", func(c api.Counters) bool { return c.Connects > before.Connects })
	patch(3)
	wantDesired(3)
	d.must("report", map[string]any{"patch": map[string]any{"after": 1}})
	call()
	send("m3")
	bodies := make([]string, 200)
	for i := range bodies {
		bodies[i] = fmt.Sprint(i)
	}
	d.must("sendBatch", map[string]any{"bodies": bodies})
	h.WaitCounters("node", func(c api.Counters) bool { return c.TelemetryReceived == 201 && c.C2DCompleted == 3 })
	d.must("close", nil)
	h.WaitConnected("node", false)
}

// A device with a certificate: its thumbprint, or its CA, is all that the hub knows of it.
func TestMicrosoftsDeviceWithACertificate(t *testing.T) {
	nodePackages(t)
	h := hubtest.Start(t)
	dir := t.TempDir()
	write := func(name string, text []byte) string {
		t.Helper()
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, text, 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	ca := write("ca.pem", h.CAPEM())
	own := hubtest.SelfSigned(t, "own")
	root := hubtest.NewCA(t, "plant")
	if _, err := h.AddCA("plant", root.PEM()); err != nil {
		t.Fatal(err)
	}
	thumbprint := hubtest.Thumbprint(own)
	for id, auth := range map[string]api.Authentication{
		"own":    {Type: api.AuthSelfSigned, X509Thumbprint: api.X509Thumbprint{SecondaryThumbprint: &thumbprint}},
		"signed": {Type: api.AuthCA},
	} {
		if _, err := h.CreateDevice(api.Device{DeviceID: id, Authentication: auth}); err != nil {
			t.Fatal(err)
		}
	}
	for id, cert := range map[string]tls.Certificate{"own": own, "signed": root.Issue("signed")} {
		t.Run(id, func(t *testing.T) {
			certificate, key := hubtest.CertificatePEM(t, cert)
			certFile, keyFile := write(id+".pem", certificate), write(id+".key", key)
			cs, err := h.ConnectionString(id)
			if err != nil {
				t.Fatal(err)
			}
			cs = strings.Replace(cs, "HostName=localhost", fmt.Sprintf("HostName=localhost:%d", h.MQTTPort()), 1)
			d := startNode(t, "device.js")
			d.must("connect", map[string]any{"connectionString": cs, "protocol": "mqtt", "ca": ca, "cert": certFile, "key": keyFile})
			d.must("send", map[string]any{"body": `{}`, "messageId": "m"})
			m := h.WaitCount(id, 1)[0]
			if want := `{"scope":"device","type":"x509","issuer":"iothub","acceptingIpFilterRule":null}`; m.System["iothub-connection-auth-method"] != want {
				t.Errorf("auth method %s, want %s", m.System["iothub-connection-auth-method"], want)
			}
			d.must("twin", nil)
			d.must("report", map[string]any{"patch": map[string]any{"by": "certificate"}})
			if twin, err := h.Twin(id); err != nil || twin.Properties.Reported["by"] != "certificate" {
				t.Errorf("reported %v, %v", twin.Properties.Reported, err)
			}
			d.must("close", nil)
			if other := map[string]string{"own": "signed", "signed": "own"}[id]; other != "" {
				cs = strings.Replace(cs, "DeviceId="+id, "DeviceId="+other, 1)
				d = startNode(t, "device.js")
				if _, err := d.do("connect", map[string]any{"connectionString": cs, "protocol": "mqtt", "ca": ca, "cert": certFile, "key": keyFile}); err == nil || !strings.Contains(err.Error(), "UnauthorizedError") {
					t.Errorf("as another device: %v", err)
				}
				h.WaitCounters(other, func(c api.Counters) bool { return c.ConnectsRefused > 0 })
			}
		})
	}
}

// checkNodeOverHTTPS goes through what a device has of the hub over HTTPS, which is the only way to reject and to abandon.
func checkNodeOverHTTPS(t *testing.T, h *hubtest.Hub, trust string) {
	d := startNode(t, "device.js", trust)
	d.must("connect", map[string]any{"connectionString": h.AddDevice("https"), "protocol": "http"})
	d.must("send", map[string]any{"body": `{"x":1}`, "messageId": "m/1", "properties": map[string]any{"unit": "a/b c"}})
	m := h.WaitCount("https", 1)[0]
	if m.System["message-id"] != "m/1" || m.System["content-type"] != "application/json" || m.Properties["unit"] != "a/b c" || string(m.Body) != `{"x":1}` {
		t.Errorf("message %+v", m)
	}
	d.must("batch", map[string]any{"bodies": []string{"one", "two"}})
	if all := h.WaitCount("https", 3); string(all[1].Body) != "one" || string(all[2].Body) != "two" {
		t.Errorf("batch %+v", all[1:])
	}
	send := func(id string) nodeLine {
		t.Helper()
		value := "v 1"
		if err := h.SendC2D("https", api.C2D{MessageID: id, Body: []byte("hello"), Ack: "full", Properties: map[string]*string{"k": &value}}); err != nil {
			t.Fatal(err)
		}
		l := d.event("message")
		if l.MessageID != id || l.Body != "hello" || l.Properties["iothub-app-k"] != value || l.Error != "" { // the SDK keeps the header's name
			t.Errorf("message %+v", l)
		}
		return l
	}
	send("done")
	d.must("settle", map[string]any{"by": "reject"})
	send("rejected")
	d.must("settle", map[string]any{"by": "abandon"})
	send("again")
	d.must("settle", map[string]any{"by": "complete"})
	for l := d.event("message"); ; l = d.event("message") { // it may be abandoned a few times before it is completed
		if c, err := h.Counters("https"); err != nil || l.MessageID != "again" || c.C2DCompleted == 2 {
			if c.C2DSent < 4 || l.MessageID != "again" {
				t.Errorf("message %+v, counters %+v, %v", l, c, err)
			}
			break
		}
	}
	batch := h.ReceiveFeedback()
	if batch == nil {
		t.Fatal("the hub has no feedback")
	}
	var outcomes []string
	for _, f := range batch.Records {
		outcomes = append(outcomes, f.OriginalMessageID+" "+f.StatusCode)
	}
	if diff := cmp.Diff([]string{"done Success", "rejected Rejected", "again Success"}, outcomes); diff != "" {
		t.Errorf("feedback (-want +got):\n%s", diff)
	}
	d.must("close", nil)
}

// A module has an identity and a twin of its own; and without its retries the SDK shows what it makes of a refusal.
func TestMicrosoftsModuleAndItsRefusals(t *testing.T) {
	nodePackages(t)
	h := hubtest.Start(t)
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, h.CAPEM(), 0o600); err != nil {
		t.Fatal(err)
	}
	h.AddDevice("node")
	text := strings.Replace(h.AddDevice("node/mod"), "HostName=localhost", fmt.Sprintf("HostName=localhost:%d", h.MQTTPort()), 1)
	d := startNode(t, "device.js")
	d.must("connect", map[string]any{"connectionString": text, "protocol": "mqtt", "ca": ca})
	d.must("noRetry", nil)

	d.must("output", map[string]any{"name": "out/1", "body": "hello"})
	m := h.WaitCount("node", 1)[0]
	if m.ModuleID != "mod" || m.System["iothub-outputname"] != "out/1" || string(m.Body) != "hello" ||
		m.System["iothub-connection-auth-method"] != `{"scope":"module","type":"sas","issuer":"iothub","acceptingIpFilterRule":null}` {
		t.Errorf("message %+v", m)
	}
	d.must("method", map[string]any{"name": "read", "status": 200})
	wait := 30
	if got, err := h.CallMethod(t.Context(), "node/mod", api.MethodRequest{MethodName: "read", ConnectTimeoutInSeconds: &wait}); err != nil || string(got.Payload) != `{"name":"read","echo":null}` {
		t.Errorf("method answered %s, %v", got.Payload, err)
	}
	d.must("twin", nil)
	d.must("report", map[string]any{"patch": map[string]any{"a": 1}})

	// # the SDK looks for errorCode in the body of a refusal, and at no status: without it these were successes
	for _, f := range []struct {
		fault api.Fault
		want  string
	}{
		{api.Fault{Name: api.FaultTwinStatus, Code: 429}, "fault: twin-status"},
		{api.Fault{Name: api.FaultTwinStatus, Code: 503}, "fault: twin-status"},
		{api.Fault{Name: api.FaultThrottle}, "has been throttled"},
	} {
		f.fault.Device, f.fault.Count = "node/mod", 1
		h.Fault(f.fault)
		if _, err := d.do("report", map[string]any{"patch": map[string]any{"a": 7}}); err == nil || !strings.Contains(err.Error(), f.want) {
			t.Errorf("%s %d: %v, want %s", f.fault.Name, f.fault.Code, err, f.want)
		}
	}
	if left := h.Faults(); len(left) != 0 {
		t.Errorf("faults that struck nobody: %v", left)
	}
	twin, err := h.Twin("node/mod")
	if err != nil || fmt.Sprint(twin.Properties.Reported["a"]) != "1" {
		t.Errorf("reported %v, %v: a refused patch was carried out", twin.Properties.Reported, err)
	}
	if device, err := h.Twin("node"); err != nil || device.Properties.Reported["a"] != nil {
		t.Errorf("the device's twin has %v, %v", device.Properties.Reported, err)
	}
	d.must("close", nil)
	h.WaitConnected("node/mod", false)
}
