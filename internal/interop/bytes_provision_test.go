//go:build interop

package interop_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"
	"github.com/google/go-cmp/cmp"

	"github.com/fairlead-iot/fairlead/device"
	"github.com/fairlead-iot/fairlead/hub/api"
	"github.com/fairlead-iot/fairlead/hub/hubtest"
)

// The very bytes of a registration: Microsoft's SDK and ours register at the same service, with a payload, and wait for it
// once. What differs is what docs/parity.md lists as deliberate.
func TestTheBytesOfARegistrationAreThoseOfMicrosoftsSDK(t *testing.T) {
	nodePackages(t)
	h := hubtest.Start(t)
	r := startRecorder(t, h)
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, r.ca, 0o600); err != nil {
		t.Fatal(err)
	}
	payload := map[string]any{"model": "x/1 ü", "n": 1}
	keys := map[string]string{}
	for _, id := range []string{"node", "ours"} {
		keys[id] = h.AddEnrollment(api.Enrollment{RegistrationID: id}).Attestation.SymmetricKey.PrimaryKey
		h.Fault(api.Fault{Name: api.FaultSlowAssignment, Device: id, Count: 1}) // so that both ask twice how it stands
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()

	// # theirs
	in, err := json.Marshal([]map[string]any{{
		"host": fmt.Sprintf("localhost:%d", r.port), "scope": h.IDScope(), "transport": "mqtt", "id": "node", "key": keys["node"], "payload": payload,
	}})
	if err != nil {
		t.Fatal(err)
	}
	cmd := nodeCommand(ctx, t, "provision.js", "NODE_EXTRA_CA_CERTS="+ca)
	cmd.Stdin, cmd.Stderr = bytes.NewReader(in), t.Output()
	out, err := cmd.Output()
	if err != nil || !bytes.Contains(out, []byte(`"status":"assigned"`)) {
		t.Fatalf("theirs: %v: %s", err, out)
	}

	// # ours
	got, err := device.Provision(ctx, device.Enrollment{Host: "localhost", IDScope: h.IDScope(), RegistrationID: "ours", SymmetricKey: keys["ours"], Payload: payload},
		func(o *device.Options) { o.Port, o.ServerVerificationCert = r.port, r.ca })
	if err != nil || got.State.DeviceID != "ours" {
		t.Fatalf("ours: %+v, %v", got, err)
	}

	tc, tf, tp := r.of("node")
	oc, of, op := r.of("ours")
	if diff := cmp.Diff(registrationConnect(t, tc, "node"), registrationConnect(t, oc, "ours")); diff != "" {
		t.Errorf("CONNECT (-theirs +ours):\n%s", diff)
	}
	if diff := cmp.Diff(tf, of); diff != "" {
		t.Errorf("subscriptions (-theirs +ours):\n%s", diff)
	}
	if diff := cmp.Diff(registrationRequests(t, tp, "node"), registrationRequests(t, op, "ours")); diff != "" {
		t.Errorf("requests (-theirs +ours):\n%s", diff)
	}
}

// registrationConnect returns what of a CONNECT the service reads, with {id} for the registration's.
func registrationConnect(t *testing.T, c *packets.ConnectPacket, id string) map[string]any {
	t.Helper()
	user, agent, ok := strings.Cut(c.Username, "&ClientVersion=")
	if !ok || agent == "" || strings.ContainsAny(agent, " /+&") {
		t.Errorf("%s: the agent %q is missing or not encoded", id, agent)
	}
	token, ok := strings.CutPrefix(string(c.Password), "SharedAccessSignature ")
	if !ok {
		t.Errorf("%s: the password is no token", id)
	}
	fields := map[string]string{}
	for field := range strings.SplitSeq(token, "&") {
		name, value, _ := strings.Cut(field, "=")
		text, err := url.PathUnescape(value) // Node's SDK leaves the slashes of sr as they are
		if err != nil {
			t.Errorf("%s: field %s: %v", id, name, err)
		}
		switch name {
		case "sig":
			text = fmt.Sprintf("%d characters", len(text))
		case "se":
			if !regexp.MustCompile(`^\d{10}$`).MatchString(text) {
				t.Errorf("%s: the end is not whole seconds", id)
			}
			text = "seconds"
		}
		fields[name] = strings.ReplaceAll(text, "/"+id, "/{id}")
	}
	return map[string]any{
		"client id": strings.Replace(c.ClientIdentifier, id, "{id}", 1), "user name": strings.Replace(user, "/"+id+"/", "/{id}/", 1), "token": fields,
		"clean session": c.CleanSession, "will": c.WillFlag, "protocol": fmt.Sprint(c.ProtocolName, c.ProtocolVersion),
	}
}

// registrationRequests returns the requests with {rid}, {op} and {id} in place of what is each client's own, and JSON with its
// members sorted; how often the same was asked is each client's own too.
func registrationRequests(t *testing.T, publishes []string, id string) []string {
	t.Helper()
	var out []string
	for _, line := range publishes {
		line = regexp.MustCompile(`\$rid=[^& ]+`).ReplaceAllString(line, "$$rid={rid}")
		line = regexp.MustCompile(`operationId=\S+`).ReplaceAllString(line, "operationId={op}")
		head, quoted, _ := strings.Cut(line, ` "`)
		var body string
		if _, err := fmt.Sscanf(`"`+quoted, "%q", &body); err != nil {
			t.Fatalf("%s: %q: %v", id, line, err)
		}
		var v any
		if json.Unmarshal([]byte(body), &v) == nil {
			text, err := json.Marshal(v)
			if err != nil {
				t.Fatal(err)
			}
			body = strings.ReplaceAll(string(text), `"`+id+`"`, `"{id}"`)
		}
		out = append(out, fmt.Sprintf("%s %q", head, body))
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// A module's topics: outputs, inputs, twin and methods.
func TestTheBytesOfAModuleAreThoseOfMicrosoftsSDK(t *testing.T) {
	nodePackages(t)
	h := hubtest.Start(t)
	r := startRecorder(t, h)
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, r.ca, 0o600); err != nil {
		t.Fatal(err)
	}
	h.AddDevice("gw")
	host := fmt.Sprintf("HostName=localhost:%d", r.port)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()

	theirs := startNode(t, "device.js")
	theirs.must("connect", map[string]any{"connectionString": strings.Replace(h.AddDevice("gw/node"), "HostName=localhost", host, 1), "protocol": "mqtt", "ca": ca})
	ours, err := device.FromConnectionString(strings.Replace(h.AddDevice("gw/ours"), "HostName=localhost", host, 1), func(o *device.Options) {
		o.ServerVerificationCert = r.ca
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := ours.Shutdown(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	})
	theirs.must("method", map[string]any{"name": "read", "status": 207})
	theirs.must("inputs", nil)
	ours.HandleMethod("read", func(context.Context, json.RawMessage) (int, any, error) { return 207, map[string]int{"v": 1}, nil })
	ours.HandleMessages(func(context.Context, *device.Message) error { return nil })
	ours.HandleDesired(func(context.Context, device.Desired) error { return nil })
	if err := ours.Connect(ctx); err != nil {
		t.Fatal(err)
	}
	theirs.must("twin", nil)
	for _, name := range []string{"alerts", "a/b c", "ö&="} {
		theirs.must("output", map[string]any{"name": name, "body": "x"})
		if err := ours.Send(ctx, &device.Message{Output: name, Payload: []byte("x")}); err != nil {
			t.Fatal(err)
		}
	}
	for _, id := range []string{"gw/node", "gw/ours"} {
		wait := 30
		if got, err := h.CallMethod(ctx, id, api.MethodRequest{MethodName: "read", ConnectTimeoutInSeconds: &wait}); err != nil || got.Status != 207 {
			t.Errorf("%s: method answered %d %s, %v", id, got.Status, got.Payload, err)
		}
	}

	tc, tf, tp := r.of("gw/node")
	oc, of, op := r.of("gw/ours")
	name := func(c *packets.ConnectPacket, id string) string {
		user, _, _ := strings.Cut(c.Username, "&DeviceClientType=")
		return strings.ReplaceAll(c.ClientIdentifier+" "+user, id, "gw/{id}")
	}
	if diff := cmp.Diff(name(tc, "gw/node"), name(oc, "gw/ours")); diff != "" {
		t.Errorf("CONNECT (-theirs +ours):\n%s", diff)
	}
	if diff := cmp.Diff(named(tf, "node"), named(of, "ours")); diff != "" {
		t.Errorf("subscriptions (-theirs +ours):\n%s", diff)
	}
	if diff := cmp.Diff(outputs(tp, "node"), outputs(op, "ours")); diff != "" {
		t.Errorf("messages to outputs (-theirs +ours):\n%s", diff)
	}
}

// outputs returns what a module sent to its outputs, each bag as its sorted pairs. Our message id is left out: the SDK
// makes none up.
func outputs(publishes []string, id string) []string {
	var out []string
	for _, line := range named(publishes, id) {
		rest, ok := strings.CutPrefix(line, "devices/gw/modules/{id}/messages/events/")
		if !ok {
			continue
		}
		bag, body, _ := strings.Cut(rest, " retain ")
		pairs := strings.Split(strings.ReplaceAll(strings.TrimSuffix(bag, "/"), "$.", "%24."), "&")
		pairs = slices.DeleteFunc(pairs, func(pair string) bool { return strings.HasPrefix(pair, "%24.mid=") })
		slices.Sort(pairs)
		out = append(out, strings.Join(pairs, "&")+" retain "+body)
	}
	slices.Sort(out)
	return out
}
