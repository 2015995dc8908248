//go:build interop && linux

package interop_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/fairlead-iot/fairlead/hub"
	"github.com/fairlead-iot/fairlead/hub/api"
	"github.com/fairlead-iot/fairlead/hub/hubtest"
	"github.com/fairlead-iot/fairlead/hub/service"
)

const builtProgram = "FAIRLEAD_TEST_PROGRAM"

// The program as a user has it, under a name as Azure's, at Azure's ports, with Microsoft's clients: and killed in between.
func TestMicrosoftsClientsAndTheBuiltHub(t *testing.T) {
	nodePackages(t)
	runInNamespace(t, "TestBuiltHubInsideTheNamespace", builtProgram+"="+build(t, "../../cmd/runtime"))
}

// build builds a program of this repository, and returns its path.
func build(t *testing.T, pkg string) string {
	t.Helper()
	program := filepath.Join(t.TempDir(), filepath.Base(pkg))
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", program, pkg).CombinedOutput(); err != nil {
		t.Fatalf("build %s: %v\n%s", pkg, err, out)
	}
	return program
}

// builtHub is a running fairlead hub serve, and the service's view of it.
type builtHub struct {
	*service.Client
	cmd *exec.Cmd
	log bytes.Buffer
}

func startBuiltHub(t *testing.T, dir string) *builtHub {
	t.Helper()
	h := &builtHub{}
	ready := filepath.Join(t.TempDir(), "ready.json")
	h.cmd = exec.CommandContext(t.Context(), os.Getenv(builtProgram), "hub", "serve", "--dir", dir, "--hostname", hubName, "--hostname", provisioningName, "--ready-file", ready)
	h.cmd.Stderr = &h.log
	if err := h.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.kill)
	var r struct {
		HTTPS   string `json:"https"`
		MQTT    string `json:"mqtt"`
		CAFile  string `json:"ca_file"`
		Service string `json:"service_connection_string"`
	}
	until(t, "the hub is ready", func() bool {
		text, err := os.ReadFile(ready)
		return err == nil && json.Unmarshal(text, &r) == nil
	})
	if r.HTTPS != "127.0.0.1:443" || r.MQTT != "127.0.0.1:8883" {
		t.Fatalf("the hub is at %s and %s, not at Azure's ports", r.MQTT, r.HTTPS)
	}
	ca, err := os.ReadFile(r.CAFile)
	if err != nil {
		t.Fatal(err)
	}
	if h.Client, err = service.New(r.Service, service.Options{CAPEM: ca, Address: r.HTTPS}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.Close)
	return h
}

// kill ends it without warning.
func (h *builtHub) kill() {
	_ = h.cmd.Process.Kill() // it may be gone
	_ = h.cmd.Wait()         // it was killed
}

// bodies are the device's messages that the hub has kept.
func (h *builtHub) bodies(t *testing.T, device string) string {
	t.Helper()
	var all []string
	if err := h.Monitor(t.Context(), api.MessageFilter{Device: device, From: 1}, false, func(m api.Message) error {
		all = append(all, string(m.Body))
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return fmt.Sprint(all)
}

// TestBuiltHubInsideTheNamespace is the process of the test above.
func TestBuiltHubInsideTheNamespace(t *testing.T) {
	if os.Getenv(insideNamespace) != t.Name() {
		t.Skip("runs only as a process of TestMicrosoftsClientsAndTheBuiltHub")
	}
	raiseLoopback(t)
	nameLoopback(t, hubName, provisioningName)
	dir := t.TempDir()
	h := startBuiltHub(t, dir)
	trust := "NODE_EXTRA_CA_CERTS=" + filepath.Join(dir, hub.CAFile)
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	identity, err := h.CreateDevice(t.Context(), api.Device{DeviceID: "node"})
	must(err)
	d := startNode(t, "device.js", trust)
	d.must("connect", map[string]any{"connectionString": hub.DeviceConnectionString(hubName, identity), "protocol": "mqtt"})
	d.must("send", map[string]any{"body": "before"})
	d.must("twin", nil)
	n := 0
	patch := func() {
		t.Helper()
		n++
		_, err := h.PatchTwin(t.Context(), "node", fmt.Appendf(nil, `{"properties":{"desired":{"n":%d}}}`, n))
		must(err)
	}
	until(t, "the SDK has subscribed to desired properties, and does not say so", func() bool {
		patch()
		c, err := h.Counters(t.Context(), "node")
		return err == nil && c.DesiredPushes > 0
	})
	wantDesired := func() {
		t.Helper()
		for d.event("desired").Delta["n"] != float64(n) { //nolint:revive // what is there goes to a new listener first
		}
	}
	wantDesired()
	must(h.SendC2D(t.Context(), "node", api.C2D{MessageID: "m1", Ack: "full", Body: []byte("hello")}))
	if l := d.event("message"); l.Body != "hello" || l.Error != "" {
		t.Errorf("message %+v", l)
	}
	until(t, "the hub knows that the message was completed", func() bool {
		c, err := h.Counters(t.Context(), "node")
		return err == nil && c.C2DCompleted == 1
	})
	h.kill()

	// # the SDK comes back by itself, and all is there
	h = startBuiltHub(t, dir)
	until(t, "the device is back", func() bool {
		got, err := h.Device(t.Context(), "node")
		return err == nil && got.ConnectionState == api.Connected
	})
	patch()
	wantDesired()
	d.must("send", map[string]any{"body": "after"})
	if got := h.bodies(t, "node"); got != "[before after]" {
		t.Errorf("the hub has kept %s", got)
	}
	batch, err := h.ReceiveFeedback(t.Context())
	if err != nil || batch == nil || batch.Records[0].OriginalMessageID != "m1" || batch.Records[0].StatusCode != api.FeedbackSuccess {
		t.Errorf("feedback %+v, %v", batch, err)
	}
	d.must("close", nil)

	// # a certificate, over WebSocket
	root := hubtest.NewCA(t, "plant")
	_, err = h.AddCA(t.Context(), "plant", root.PEM())
	must(err)
	identity, err = h.CreateDevice(t.Context(), api.Device{DeviceID: "signed", Authentication: api.Authentication{Type: api.AuthCA}})
	must(err)
	certificate, key := hubtest.CertificatePEM(t, root.Issue("signed"))
	certFile, keyFile := filepath.Join(dir, "signed.pem"), filepath.Join(dir, "signed.key")
	must(os.WriteFile(certFile, certificate, 0o600))
	must(os.WriteFile(keyFile, key, 0o600))
	d = startNode(t, "device.js", trust)
	d.must("connect", map[string]any{"connectionString": hub.DeviceConnectionString(hubName, identity), "protocol": "mqttws", "cert": certFile, "key": keyFile})
	d.must("send", map[string]any{"body": "signed"})
	if got := h.bodies(t, "signed"); got != "[signed]" {
		t.Errorf("the hub has kept %s", got)
	}
	d.must("upload", map[string]any{"name": "logs/today.txt", "body": "by a certificate"})
	d.must("close", nil)

	// # a device that provisions itself, and does so again when everything was killed
	enrolled, err := h.PutEnrollment(t.Context(), api.Enrollment{RegistrationID: "press"}, false)
	must(err)
	scope, err := h.IDScope(t.Context())
	must(err)
	press := job{Host: provisioningName, Scope: scope, Transport: "mqtt", ID: "press", Key: enrolled.Attestation.SymmetricKey.PrimaryKey, Connect: true}
	first := provision(t, trust, press)[0]
	h.kill()
	h = startBuiltHub(t, dir)
	second := provision(t, trust, press)[0]
	if first.Error != "" || second.Error != "" || first.Registration.Substatus != "initialAssignment" || second.Registration.DeviceID != "press" {
		t.Errorf("it was told %+v, then %+v", first, second)
	}
	if got := h.bodies(t, "press"); got != "[from press from press]" {
		t.Errorf("the hub has kept %s", got)
	}
	notification, _, ok, err := h.ReceiveFileNotification(t.Context())
	if err != nil || !ok || notification.BlobName != "signed/logs/today.txt" {
		t.Errorf("file notification %+v, %v, %v", notification, ok, err)
	}
	content, _, err := h.OpenFile(t.Context(), "signed", "logs/today.txt")
	must(err)
	text, err := io.ReadAll(content)
	if err != nil || string(text) != "by a certificate" || content.Close() != nil {
		t.Errorf("the file holds %q, %v", text, err)
	}

	// # told to stop, it stops in order
	must(h.cmd.Process.Signal(syscall.SIGTERM))
	stopped := make(chan error, 1)
	go func() { stopped <- h.cmd.Wait() }()
	select {
	case err := <-stopped:
		if err != nil {
			t.Errorf("hub serve ended with %v\n%s", err, h.log.String())
		}
	case <-time.After(20 * time.Second):
		t.Error("hub serve does not stop")
	}
	if text := h.log.String(); !bytes.Contains([]byte(text), []byte("Try, in another terminal")) {
		t.Errorf("it does not say what to do next:\n%s", text)
	}
}
