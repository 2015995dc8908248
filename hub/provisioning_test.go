package hub_test

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"testing"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"
	"github.com/eclipse/paho.mqtt.golang/packets"

	"github.com/fairlead-iot/fairlead/hub"
	"github.com/fairlead-iot/fairlead/hub/api"
	"github.com/fairlead-iot/fairlead/hub/hubtest"
	"github.com/fairlead-iot/fairlead/hub/internal/sas"
)

const (
	dpsAnswers  = "$dps/registrations/res/#"
	dpsRegister = "$dps/registrations/PUT/iotdps-register/?$rid="
	dpsStatus   = "$dps/registrations/GET/iotdps-get-operationstatus/?$rid="
)

// newcomer is a device that is not provisioned yet.
type newcomer struct {
	id       string // registration id
	key      string // "" for none
	cert     *tls.Certificate
	ttl      time.Duration
	ws       bool
	scope    string // instead of the hub's
	clientID string // instead of id
	username string // instead of the usual one
}

func (n newcomer) token(t *testing.T, h *hubtest.Hub) string {
	t.Helper()
	if n.key == "" {
		return ""
	}
	if n.ttl == 0 {
		n.ttl = time.Hour
	}
	text, err := sas.New(h.IDScope()+"/registrations/"+n.id, "registration", n.key, time.Now().Add(n.ttl))
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func (n newcomer) tlsConfig(h *hubtest.Hub) *tls.Config {
	c := &tls.Config{RootCAs: h.CAPool(), ServerName: "localhost", MinVersion: tls.VersionTLS12}
	if n.cert != nil {
		c.Certificates = []tls.Certificate{*n.cert}
	}
	return c
}

// connect connects to the provisioning service by MQTT.
func (n newcomer) connect(t *testing.T, h *hubtest.Hub) (*device, error) {
	t.Helper()
	d := &device{t: t, h: h, id: n.id, got: make(chan mqtt.Message, 100), lost: make(chan error, 1)}
	if n.scope == "" {
		n.scope = h.IDScope()
	}
	if n.clientID == "" {
		n.clientID = n.id
	}
	if n.username == "" {
		n.username = n.scope + "/registrations/" + n.id + "/api-version=2019-03-31&ClientVersion=test%2F1.0"
	}
	opts := mqtt.NewClientOptions().SetClientID(n.clientID).SetUsername(n.username).SetPassword(n.token(t, h)).
		SetProtocolVersion(4).SetCleanSession(true).SetAutoReconnect(false).SetConnectRetry(false).
		SetConnectTimeout(patience).SetKeepAlive(0).
		SetDefaultPublishHandler(func(_ mqtt.Client, m mqtt.Message) { d.got <- m }).
		SetConnectionLostHandler(func(_ mqtt.Client, err error) { d.lost <- err }).
		AddBroker("tls://dps")
	opts.SetCustomOpenConnectionFn(func(*url.URL, mqtt.ClientOptions) (net.Conn, error) {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if n.ws {
			return dialWebSocket(ctx, h, n.tlsConfig(h))
		}
		raw, err := h.DialContext(ctx, "tcp", h.MQTTAddr().String())
		if err != nil {
			return nil, err
		}
		return tls.Client(raw, n.tlsConfig(h)), nil
	})
	d.Client = mqtt.NewClient(opts)
	tok := d.Connect()
	if !tok.WaitTimeout(patience) {
		t.Fatal("connect: no answer")
	}
	if tok.Error() != nil {
		return nil, tok.Error()
	}
	t.Cleanup(func() { d.Disconnect(0) })
	return d, nil
}

func (n newcomer) mustConnect(t *testing.T, h *hubtest.Hub) *device {
	t.Helper()
	d, err := n.connect(t, h)
	if err != nil {
		t.Fatal(err)
	}
	d.subscribe(dpsAnswers)
	return d
}

// askDPS sends a request and checks the answer's topic.
func askDPS[T any](d *device, request, body, wantTopic string) T {
	d.t.Helper()
	d.send(request, body)
	text := d.receiveFrom(wantTopic)
	var v T
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		d.t.Fatalf("%s: %v", text, err)
	}
	return v
}

// register registers by MQTT as a client does, and returns what it is told.
func (d *device) register(body string) api.OperationStatus {
	d.t.Helper()
	told := askDPS[api.OperationStatus](d, dpsRegister+"r1", body, "$dps/registrations/res/202/?$rid=r1&retry-after=3")
	if told.Status != api.RegistrationAssigning || told.OperationID == "" || told.RegistrationState != nil {
		d.t.Fatalf("told %+v", told)
	}
	return askDPS[api.OperationStatus](d, dpsStatus+"r2&operationId="+told.OperationID, " ", "$dps/registrations/res/200/?$rid=r2")
}

func TestProvisioningOverMQTT(t *testing.T) {
	for _, ws := range []bool{false, true} {
		t.Run(fmt.Sprintf("websocket=%v", ws), func(t *testing.T) {
			h := hubtest.Start(t)
			e := h.AddEnrollment(api.Enrollment{RegistrationID: "reg1", DeviceID: "dev1", EnrollmentSettings: api.EnrollmentSettings{
				InitialTwin: &api.TwinPatch{
					Tags: map[string]any{"site": "north"}, Properties: &api.TwinPatchProperties{Desired: map[string]any{"interval": 7}},
				},
				Capabilities: &api.Capabilities{IoTEdge: true}, ReturnPayload: json.RawMessage(`{"welcome":true}`),
			}})
			d := newcomer{id: "reg1", key: e.Attestation.SymmetricKey.PrimaryKey, ws: ws}.mustConnect(t, h)
			told := d.register(`{"registrationId":"reg1","payload":{"model":"x","n":1.50}}`)
			st := told.RegistrationState
			if told.Status != "assigned" || st == nil || st.AssignedHub != "localhost" || st.DeviceID != "dev1" || st.RegistrationID != "reg1" ||
				st.Substatus != "initialAssignment" || string(st.Payload) != `{"welcome":true}` || st.ETag == "" || st.CreatedDateTimeUTC.IsZero() ||
				st.SymmetricKey == nil || st.DevicePayload != nil {
				t.Fatalf("told %+v, %+v", told, st)
			}

			// # what the hub saw
			seen, err := h.Registration("reg1")
			if err != nil || string(seen.DevicePayload) != `{"model":"x","n":1.50}` || seen.Status != "assigned" {
				t.Errorf("registration %+v, %v", seen, err)
			}
			twin, err := h.Twin("dev1")
			if err != nil || twin.Tags["site"] != "north" || fmt.Sprint(twin.Properties.Desired["interval"]) != "7" || !twin.Capabilities.IoTEdge {
				t.Errorf("twin %+v, %v", twin, err)
			}
			got, err := h.Device("dev1")
			if err != nil || got.Authentication.Type != "sas" || got.Authentication.SymmetricKey != *e.Attestation.SymmetricKey {
				t.Errorf("device %+v, %v", got, err)
			}
			shown, err := h.Enrollment("reg1")
			if err != nil || shown.RegistrationState == nil || shown.RegistrationState.DeviceID != "dev1" {
				t.Errorf("enrollment %+v, %v", shown, err)
			}

			// # the device connects with what it has
			connect(t, h, options{id: "dev1", ws: ws}).telemetry("", "hello")
			h.WaitCount("dev1", 1)
		})
	}
}

func TestProvisioningWithACertificateOverMQTT(t *testing.T) {
	h := hubtest.Start(t)
	root := hubtest.NewCA(t, "root")
	h.AddEnrollmentGroup(api.EnrollmentGroup{EnrollmentGroupID: "plant", Attestation: api.Attestation{X509: &api.X509Attestation{
		SigningCertificates: &api.X509Certificates{Primary: &api.X509Certificate{Certificate: string(root.PEM())}},
	}}})
	for _, ws := range []bool{false, true} {
		id := fmt.Sprintf("dev-ws-%v", ws)
		cert := root.Intermediate("line 4").Issue(id)
		told := newcomer{id: id, cert: &cert, ws: ws}.mustConnect(t, h).register("")
		if told.Status != "assigned" || told.RegistrationState.X509 == nil || told.RegistrationState.X509.EnrollmentGroupID != "plant" {
			t.Errorf("told %+v", told)
		}
		if got, err := h.Device(id); err != nil || got.Authentication.Type != "selfSigned" {
			t.Errorf("device %+v, %v", got, err)
		}
		connect(t, h, options{id: id, cert: &cert, noPassword: true, ws: ws}).telemetry("", "hello")
		h.WaitCount(id, 1)
		other := root.Issue(id)
		if _, err := tryConnect(t, h, options{id: id, cert: &other, noPassword: true}); err == nil {
			t.Error("another certificate of that name connects, and the hub was told of one")
		}
	}
}

func TestProvisioningRefusesCONNECT(t *testing.T) {
	h := hubtest.Start(t)
	key := h.AddEnrollment(api.Enrollment{RegistrationID: "reg1"}).Attestation.SymmetricKey.PrimaryKey
	tests := map[string]newcomer{
		"another id scope":         {id: "reg1", key: key, scope: "0ne12345678"},
		"another client id":        {id: "reg1", key: key, clientID: "reg2"},
		"neither key nor cert":     {id: "reg1"},
		"no api-version":           {id: "reg1", key: key, username: h.IDScope() + "/registrations/reg1"},
		"no registration id":       {id: "reg1", key: key, username: h.IDScope() + "/registrations//api-version=2019-03-31"},
		"a bad registration id":    {id: "reg/1", clientID: "x", key: key, username: h.IDScope() + "/registrations/reg%2F1/api-version=2019-03-31"},
		"a device of another name": {id: "reg1", key: key, username: "localhost/registrations/reg1/api-version=2019-03-31"},
	}
	for name, n := range tests {
		t.Run(name, func(t *testing.T) {
			if _, err := n.connect(t, h); !errors.Is(err, packets.ErrorRefusedNotAuthorised) {
				t.Errorf("connect: %v, want code 5", err)
			}
		})
	}
}

func TestProvisioningRefusesARequest(t *testing.T) {
	h := hubtest.Start(t)
	key := h.AddEnrollment(api.Enrollment{RegistrationID: "reg1"}).Attestation.SymmetricKey.PrimaryKey
	other := h.AddEnrollment(api.Enrollment{RegistrationID: "reg2"}).Attestation.SymmetricKey.PrimaryKey
	refused := func(d *device, request, body, topic string, code int) {
		t.Helper()
		got := askDPS[map[string]any](d, request, body, topic)
		if got["errorCode"] != float64(code) || got["trackingId"] == "" || got["message"] == "" || got["timestampUtc"] == "" {
			t.Errorf("%s: body %v, want number %d", request, got, code)
		}
	}
	// A wrong key is let in and told so when it registers, as by Azure.
	d := newcomer{id: "reg1", key: other}.mustConnect(t, h)
	refused(d, dpsRegister+"1", "{}", "$dps/registrations/res/401/?$rid=1", 401002)
	refused(d, dpsStatus+"2&operationId=x", " ", "$dps/registrations/res/401/?$rid=2", 401002)
	d = newcomer{id: "reg1", key: key}.mustConnect(t, h)
	refused(d, dpsRegister+"3", "{", "$dps/registrations/res/400/?$rid=3", 400004)
	refused(d, dpsRegister+"4", `{"registrationId":"reg2"}`, "$dps/registrations/res/400/?$rid=4", 400004)
	refused(d, dpsStatus+"5&operationId=none", " ", "$dps/registrations/res/404/?$rid=5", 404202)
	refused(d, dpsStatus+"6", " ", "$dps/registrations/res/404/?$rid=6", 404202)
	if _, err := h.Device("reg1"); err == nil {
		t.Error("a refused request made a device")
	}
}

// What breaks the rules of the provisioning service ends the connection.
func TestProvisioningKeepsToItsTopics(t *testing.T) {
	h := hubtest.Start(t)
	key := h.AddEnrollment(api.Enrollment{RegistrationID: "reg1"}).Attestation.SymmetricKey.PrimaryKey
	tests := map[string]func(d *device){
		"telemetry":          func(d *device) { d.Publish("devices/reg1/messages/events/", 0, false, "x") },
		"another topic":      func(d *device) { d.Publish("$dps/registrations/DELETE/?$rid=1", 0, false, "x") },
		"no request id":      func(d *device) { d.Publish("$dps/registrations/PUT/iotdps-register/", 0, false, "x") },
		"a bad operation":    func(d *device) { d.Publish(dpsStatus+"1&operationId=%zz", 0, false, "x") },
		"QoS 2":              func(d *device) { d.Publish(dpsRegister+"1", 2, false, "{}") },
		"a hub's filter":     func(d *device) { d.Subscribe(methods, 1, nil) },
		"a filter of a part": func(d *device) { d.Subscribe("$dps/registrations/res/200/#", 1, nil) },
	}
	for name, act := range tests {
		t.Run(name, func(t *testing.T) {
			d := newcomer{id: "reg1", key: key}.mustConnect(t, h)
			act(d)
			d.wantLost()
		})
	}
	d := newcomer{id: "reg1", key: key}.mustConnect(t, h)
	tok := d.Subscribe(dpsAnswers, 2, nil)
	d.wait(tok, "subscribe with QoS 2")
	if qos := tok.(*mqtt.SubscribeToken).Result()[dpsAnswers]; qos != 1 {
		t.Errorf("granted QoS %d, want 1", qos)
	}
	d.wait(d.Unsubscribe(dpsAnswers), "unsubscribe")
	d.send(dpsRegister+"1", "{}") // carried out, and not answered
	d.subscribe(dpsAnswers)
	if st, err := h.Registration("reg1"); err != nil || st.Status != "assigned" {
		t.Errorf("registration %+v, %v", st, err)
	}
	if len(d.got) != 0 {
		t.Error("an answer came without a subscription")
	}
}

func TestProvisioningFaults(t *testing.T) {
	h := hubtest.Start(t)
	key := h.AddEnrollment(api.Enrollment{RegistrationID: "reg1"}).Attestation.SymmetricKey.PrimaryKey
	d := newcomer{id: "reg1", key: key}.mustConnect(t, h)
	h.Fault(api.Fault{Name: api.FaultProvisioningStatus, Device: "reg1", Count: 1, Delay: api.Duration(7 * time.Second)})
	h.Fault(api.Fault{Name: api.FaultProvisioningStatus, Device: "another"})
	if body := askDPS[map[string]any](d, dpsRegister+"1", "{}", "$dps/registrations/res/429/?$rid=1&retry-after=7"); body["errorCode"] != 429001.0 {
		t.Errorf("body %v", body)
	}
	told := askDPS[api.OperationStatus](d, dpsRegister+"2", "{}", "$dps/registrations/res/202/?$rid=2&retry-after=3")
	h.Fault(api.Fault{Name: api.FaultProvisioningStatus, Code: 503, Count: 1})
	poll := dpsStatus + "3&operationId=" + told.OperationID
	if body := askDPS[map[string]any](d, poll, " ", "$dps/registrations/res/503/?$rid=3&retry-after=3"); body["errorCode"] != 503001.0 {
		t.Errorf("body %v", body)
	}
	h.Fault(api.Fault{Name: api.FaultSlowAssignment, Count: 2})
	for range 2 {
		if got := askDPS[api.OperationStatus](d, poll, " ", "$dps/registrations/res/202/?$rid=3&retry-after=3"); got.Status != "assigning" || got.RegistrationState.Status != "assigning" {
			t.Errorf("told %+v", got)
		}
	}
	if got := askDPS[api.OperationStatus](d, poll, " ", "$dps/registrations/res/200/?$rid=3"); got.Status != "assigned" {
		t.Errorf("told %+v", got)
	}
	_, err := h.AddFault(api.Fault{Name: api.FaultProvisioningStatus, Code: 302})
	wantCode(t, err, api.CodeArgumentInvalid)
}

func TestDisabledEnrollment(t *testing.T) {
	h := hubtest.Start(t)
	off := api.EnrollmentSettings{ProvisioningStatus: api.Disabled}
	e := h.AddEnrollment(api.Enrollment{RegistrationID: "reg1", EnrollmentSettings: off})
	d := newcomer{id: "reg1", key: e.Attestation.SymmetricKey.PrimaryKey}.mustConnect(t, h)
	told := d.register("{}")
	if told.Status != "disabled" || told.RegistrationState.Status != "disabled" || told.RegistrationState.AssignedHub != "" {
		t.Errorf("told %+v, %+v", told, told.RegistrationState)
	}
	if _, err := h.Device("reg1"); err == nil {
		t.Error("the device was made")
	}
	if _, err := h.UpdateEnrollment(api.Enrollment{RegistrationID: "reg1"}); err != nil {
		t.Fatal(err)
	}
	if told := d.register("{}"); told.Status != "assigned" || told.RegistrationState.Substatus != "initialAssignment" {
		t.Errorf("told %+v, %+v", told, told.RegistrationState)
	}
}

func TestReprovisioning(t *testing.T) {
	tests := map[string]struct {
		policy      *api.ReprovisionPolicy
		substatus   string
		tag, report string // after the second registration
		newKey      bool   // whether a changed key reaches the hub
	}{
		"default": {nil, "reprovisionedToInitialAssignment", "changed", "map[ok:true]", true},
		"migrate": {&api.ReprovisionPolicy{UpdateHubAssignment: true, MigrateDeviceData: true}, "reprovisionedToInitialAssignment", "changed", "map[ok:true]", true},
		"reset":   {&api.ReprovisionPolicy{UpdateHubAssignment: true}, "deviceDataReset", "initial", "<nil>", true},
		"never":   {&api.ReprovisionPolicy{}, "initialAssignment", "changed", "map[ok:true]", false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			h := hubtest.Start(t)
			e := api.Enrollment{RegistrationID: "dev1", EnrollmentSettings: api.EnrollmentSettings{
				ReprovisionPolicy: tt.policy, InitialTwin: &api.TwinPatch{Tags: map[string]any{"state": "initial"}},
			}}
			key := h.AddEnrollment(e).Attestation.SymmetricKey.PrimaryKey
			newcomer{id: "dev1", key: key}.mustConnect(t, h).register("{}")
			dev := connect(t, h, options{id: "dev1"})
			dev.subscribe(twinRes)
			dev.send(reportTwin+"1", `{"state":{"ok":true}}`)
			dev.receive()
			dev.Disconnect(0)
			h.WaitConnected("dev1", false)
			if _, err := h.PatchTwin("dev1", []byte(`{"tags":{"state":"changed"}}`)); err != nil {
				t.Fatal(err)
			}
			other := h.AddEnrollment(api.Enrollment{RegistrationID: "other"}).Attestation.SymmetricKey
			e.Attestation.SymmetricKey = other
			if _, err := h.UpdateEnrollment(e); err != nil {
				t.Fatal(err)
			}
			told := newcomer{id: "dev1", key: other.PrimaryKey}.mustConnect(t, h).register("{}")
			if told.Status != "assigned" || told.RegistrationState.Substatus != tt.substatus {
				t.Errorf("told %+v, want %s", told.RegistrationState, tt.substatus)
			}
			twin, err := h.Twin("dev1")
			if err != nil || twin.Tags["state"] != tt.tag || fmt.Sprint(twin.Properties.Reported["state"]) != tt.report {
				t.Errorf("tags %v, reported %v, %v", twin.Tags, twin.Properties.Reported, err)
			}
			got, err := h.Device("dev1")
			if err != nil || (got.Authentication.SymmetricKey.PrimaryKey == other.PrimaryKey) != tt.newKey {
				t.Errorf("the hub has the new key: %v, want %v (%v)", !tt.newKey, tt.newKey, err)
			}
			// A device that is gone comes back under any policy.
			if err := h.DeleteDevice("dev1"); err != nil {
				t.Fatal(err)
			}
			newcomer{id: "dev1", key: other.PrimaryKey}.mustConnect(t, h).register("{}")
			if twin, err := h.Twin("dev1"); err != nil || twin.Tags["state"] != "initial" {
				t.Errorf("tags %v, %v", twin.Tags, err)
			}
		})
	}
}

// A device of the hub may have a name that the provisioning service's addresses
// use.
func TestADeviceNamedRegistrations(t *testing.T) {
	h := hubtest.Start(t)
	h.AddDevice("registrations")
	h.AddDevice("registrations/mod")
	connect(t, h, options{id: "registrations/mod", username: "localhost/registrations/mod/api-version=2021-04-12"})
	connect(t, h, options{id: "registrations"})
	c := newClient(t, h, "iothubowner")
	if _, err := c.Device(t.Context(), "registrations/mod"); err != nil {
		t.Error(err)
	}
	if _, err := c.Twin(t.Context(), "registrations"); err != nil {
		t.Error(err)
	}
}

// A token is judged with every request: a connection that outlives it gets 401.
func TestProvisioningTokenEnds(t *testing.T) {
	bubble(t, func(t *testing.T, h *hubtest.Hub) {
		key := h.AddEnrollment(api.Enrollment{RegistrationID: "reg1"}).Attestation.SymmetricKey.PrimaryKey
		d := newcomer{id: "reg1", key: key, ttl: 10 * time.Minute}.mustConnect(t, h)
		d.register("{}")
		time.Sleep(10*time.Minute + time.Second) // virtual
		askDPS[map[string]any](d, dpsRegister+"9", "{}", "$dps/registrations/res/401/?$rid=9")
		d.Disconnect(0)
	})
}

// CONNECT lets in whom a request would refuse, so what proves nothing has a bound.
func TestProvisioningConnectionHasToProveItself(t *testing.T) {
	bubble(t, func(t *testing.T, h *hubtest.Hub) {
		key := h.AddEnrollment(api.Enrollment{RegistrationID: "reg1"}).Attestation.SymmetricKey.PrimaryKey
		good := newcomer{id: "reg1", key: key, ttl: 24 * time.Hour}.mustConnect(t, h)
		good.register("{}")
		bad := newcomer{id: "reg2", key: key}.mustConnect(t, h)
		askDPS[map[string]any](bad, dpsRegister+"1", "{}", "$dps/registrations/res/401/?$rid=1")
		start := time.Now()
		if err := <-bad.lost; err == nil || time.Since(start) != 5*time.Minute {
			t.Errorf("lost after %v: %v", time.Since(start), err)
		}
		good.register("{}")
		good.Disconnect(0)
	})
}

func TestProvisioningSurvivesKill(t *testing.T) {
	dir := t.TempDir()
	h := hubtest.Start(t, hubtest.WithDir(dir))
	scope, ca := h.IDScope(), h.CAPEM()
	one := h.AddEnrollment(api.Enrollment{RegistrationID: "reg1", EnrollmentSettings: api.EnrollmentSettings{
		InitialTwin: &api.TwinPatch{Tags: map[string]any{"n": 1.5}},
	}})
	group := h.AddEnrollmentGroup(api.EnrollmentGroup{EnrollmentGroupID: "group"})
	derived, err := hub.DeriveDeviceKey(group.Attestation.SymmetricKey.PrimaryKey, "sn-1")
	if err != nil {
		t.Fatal(err)
	}
	tokens := map[string]string{
		"reg1": newcomer{id: "reg1", key: one.Attestation.SymmetricKey.PrimaryKey}.token(t, h),
		"sn-1": newcomer{id: "sn-1", key: derived}.token(t, h),
	}
	if err := h.Close(context.Background()); err != nil {
		t.Fatal(err)
	}

	// Another process is asked, and killed before a poll.
	k := startKilledHub(t, dir)
	operations := map[string]string{}
	for id, password := range tokens {
		r := dialRawAt(t, k.addr, ca)
		r.send(packet(0x10, str("MQTT")+"\x04\xc2\x00\x00"+str(id)+str(scope+"/registrations/"+id+"/api-version=2019-03-31")+str(password)))
		r.want(connack)
		r.send(packet(0x82, "\x00\x01"+str(dpsAnswers)+"\x00"))
		r.want("\x90\x03\x00\x01\x00")
		r.send(packet(0x30, str(dpsRegister+"1")+`{"payload":{"n":1.50}}`))
		var told api.OperationStatus
		got := r.readPublish()
		if _, body, _ := strings.Cut(got, "{"); json.Unmarshal([]byte("{"+body), &told) != nil || told.OperationID == "" {
			t.Fatalf("told %q", got)
		}
		operations[id] = told.OperationID
	}
	k.kill()

	h = hubtest.Start(t, hubtest.WithDir(dir))
	if h.IDScope() != scope {
		t.Errorf("the id scope was %s, is %s", scope, h.IDScope())
	}
	for id, key := range map[string]string{"reg1": one.Attestation.SymmetricKey.PrimaryKey, "sn-1": derived} {
		d := newcomer{id: id, key: key}.mustConnect(t, h)
		told := askDPS[api.OperationStatus](d, dpsStatus+"2&operationId="+operations[id], " ", "$dps/registrations/res/200/?$rid=2")
		if told.Status != "assigned" || told.RegistrationState.Substatus != "initialAssignment" {
			t.Errorf("%s is told %+v", id, told)
		}
		if st, err := h.Registration(id); err != nil || string(st.DevicePayload) != `{"n":1.50}` {
			t.Errorf("registration %+v, %v", st, err)
		}
		if got, err := h.Device(id); err != nil || got.Authentication.SymmetricKey.PrimaryKey != key {
			t.Errorf("device %+v, %v", got, err)
		}
	}
	if twin, err := h.Twin("reg1"); err != nil || fmt.Sprint(twin.Tags["n"]) != "1.5" {
		t.Errorf("tags %v, %v", twin.Tags, err)
	}
	again, err := h.Enrollment("reg1")
	if err != nil || *again.Attestation.SymmetricKey != *one.Attestation.SymmetricKey || again.ETag != one.ETag || again.InitialTwin == nil {
		t.Errorf("enrollment %+v, %v", again, err)
	}
	if g, err := h.EnrollmentGroup("GROUP"); err != nil || strings.Compare(g.ETag, group.ETag) != 0 {
		t.Errorf("group %+v, %v", g, err)
	}
}
