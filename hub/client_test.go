package hub_test

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	mqtt "github.com/eclipse/paho.mqtt.golang"
	"github.com/gorilla/websocket"
	"go.uber.org/goleak"

	"github.com/fairlead-iot/fairlead/hub/hubtest"
	"github.com/fairlead-iot/fairlead/hub/internal/sas"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is how long what must come is waited for.
const patience = time.Minute

// device is a real MQTT client, which shares no code with the hub.
type device struct {
	mqtt.Client
	t    *testing.T
	h    *hubtest.Hub
	id   string
	got  chan mqtt.Message
	lost chan error
	// present is SessionPresent of the CONNACK.
	present bool
}

type options struct {
	id        string
	clean     bool
	ttl       time.Duration
	keepAlive time.Duration
	ws        bool
	username  string // instead of the usual one
	password  string // instead of a fresh token
	will      func(*mqtt.ClientOptions)
	manualAck bool
	cert      *tls.Certificate
	// noPassword leaves the password empty: the certificate has to do.
	noPassword bool
}

func fields(connectionString string) map[string]string {
	m := map[string]string{}
	for part := range strings.SplitSeq(connectionString, ";") {
		key, value, _ := strings.Cut(part, "=")
		m[key] = value
	}
	return m
}

func token(t *testing.T, connectionString string, ttl time.Duration) string {
	t.Helper()
	f := fields(connectionString)
	resource := f["HostName"] + "/devices/" + f["DeviceId"]
	if f["ModuleId"] != "" {
		resource += "/modules/" + f["ModuleId"]
	}
	text, err := sas.New(resource, "", f["SharedAccessKey"], time.Now().Add(ttl))
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// policyToken makes a token for a resource by a service's connection string.
func policyToken(t *testing.T, resource, connectionString string) string {
	t.Helper()
	f := fields(connectionString)
	text, err := sas.New(resource, f["SharedAccessKeyName"], f["SharedAccessKey"], time.Now().Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// connect connects and fails the test if the hub refuses.
func connect(t *testing.T, h *hubtest.Hub, o options) *device {
	t.Helper()
	d, err := tryConnect(t, h, o)
	if err != nil {
		t.Fatalf("connect %s: %v", o.id, err)
	}
	return d
}

func tryConnect(t *testing.T, h *hubtest.Hub, o options) (*device, error) {
	t.Helper()
	d := &device{t: t, h: h, id: o.id, got: make(chan mqtt.Message, 1000), lost: make(chan error, 1)}
	text, err := h.ConnectionString(o.id)
	if err != nil {
		t.Fatal(err)
	}
	if o.ttl == 0 {
		o.ttl = time.Hour
	}
	if o.password == "" && !o.noPassword {
		o.password = token(t, text, o.ttl)
	}
	if o.username == "" {
		o.username = h.Hostname() + "/" + o.id + "/?api-version=2021-04-12&DeviceClientType=test%2F1.0"
	}
	tlsConfig := &tls.Config{RootCAs: h.CAPool(), ServerName: "localhost", MinVersion: tls.VersionTLS12}
	if o.cert != nil {
		tlsConfig.Certificates = []tls.Certificate{*o.cert}
	}
	opts := mqtt.NewClientOptions().SetClientID(o.id).SetUsername(o.username).SetPassword(o.password).
		SetProtocolVersion(4).SetCleanSession(o.clean).SetAutoReconnect(false).SetConnectRetry(false).
		SetConnectTimeout(patience).SetKeepAlive(o.keepAlive).SetAutoAckDisabled(o.manualAck).
		SetDefaultPublishHandler(func(_ mqtt.Client, m mqtt.Message) { d.got <- m }).
		SetConnectionLostHandler(func(_ mqtt.Client, err error) { d.lost <- err }).
		AddBroker("tls://hub")
	opts.SetCustomOpenConnectionFn(func(*url.URL, mqtt.ClientOptions) (net.Conn, error) {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if o.ws {
			return dialWebSocket(ctx, h, tlsConfig)
		}
		raw, err := h.DialContext(ctx, "tcp", h.MQTTAddr().String())
		if err != nil {
			return nil, err
		}
		return tls.Client(raw, tlsConfig), nil
	})
	if o.will != nil {
		o.will(opts)
	}
	d.Client = mqtt.NewClient(opts)
	tok := d.Connect()
	if !tok.WaitTimeout(patience) {
		t.Fatalf("connect %s: no answer", o.id)
	}
	if tok.Error() != nil {
		return nil, tok.Error()
	}
	d.present = tok.(*mqtt.ConnectToken).SessionPresent()
	t.Cleanup(func() { d.Disconnect(0) })
	return d, nil
}

// wsStream is a client's side of MQTT over WebSocket, for tests only.
type wsStream struct {
	*websocket.Conn
	rest []byte
}

func dialWebSocket(ctx context.Context, h *hubtest.Hub, tlsConfig *tls.Config) (net.Conn, error) {
	dialer := websocket.Dialer{NetDialContext: h.DialContext, TLSClientConfig: tlsConfig, Subprotocols: []string{"mqtt"}}
	ws, resp, err := dialer.DialContext(ctx, "wss://"+h.HTTPSAddr().String()+"/$iothub/websocket", http.Header{"Origin": {"https://localhost:443"}})
	if err != nil {
		return nil, err
	}
	_ = resp.Body.Close()
	if ws.Subprotocol() != "mqtt" {
		return nil, fmt.Errorf("subprotocol %q", ws.Subprotocol())
	}
	return &wsStream{Conn: ws}, nil
}

func (s *wsStream) Read(p []byte) (int, error) {
	for len(s.rest) == 0 {
		_, data, err := s.ReadMessage()
		if err != nil {
			return 0, err
		}
		s.rest = data
	}
	n := copy(p, s.rest)
	s.rest = s.rest[n:]
	return n, nil
}

func (s *wsStream) Write(p []byte) (int, error) {
	return len(p), s.WriteMessage(websocket.BinaryMessage, p)
}

func (s *wsStream) SetDeadline(t time.Time) error {
	_ = s.SetReadDeadline(t) // cannot fail
	return s.SetWriteDeadline(t)
}

func (d *device) wait(tok mqtt.Token, what string) {
	d.t.Helper()
	if !tok.WaitTimeout(patience) {
		d.t.Fatalf("%s: no answer", what)
	}
	if tok.Error() != nil {
		d.t.Fatalf("%s: %v", what, tok.Error())
	}
}

func (d *device) send(topic, body string) {
	d.t.Helper()
	d.wait(d.Publish(topic, 1, false, body), "publish to "+topic)
}

func (d *device) telemetry(bag, body string) {
	d.t.Helper()
	d.send("devices/"+d.id+"/messages/events/"+bag, body)
}

// subscribe subscribes with QoS 1 and returns the granted one.
func (d *device) subscribe(filter string) byte {
	d.t.Helper()
	tok := d.Subscribe(filter, 1, nil)
	d.wait(tok, "subscribe to "+filter)
	return tok.(*mqtt.SubscribeToken).Result()[filter]
}

func (d *device) receive() mqtt.Message {
	d.t.Helper()
	select {
	case m := <-d.got:
		return m
	case err := <-d.lost:
		d.t.Fatalf("the connection was lost while waiting for a message: %v", err)
	case <-time.After(patience):
		d.t.Fatal("no message came")
	}
	return nil
}

// receiveFrom also checks the topic.
func (d *device) receiveFrom(topic string) string {
	d.t.Helper()
	m := d.receive()
	if m.Topic() != topic {
		d.t.Fatalf("message from topic %s, want %s", m.Topic(), topic)
	}
	return string(m.Payload())
}

func (d *device) wantNothing() {
	d.t.Helper()
	// Whatever the hub sends comes before the answer to a later question.
	d.wait(d.Subscribe(twinRes, 1, nil), "subscribe as a question")
	select {
	case m := <-d.got:
		d.t.Fatalf("unexpected message from %s", m.Topic())
	default:
	}
}

func (d *device) wantLost() {
	d.t.Helper()
	select {
	case err := <-d.lost:
		if err == nil {
			d.t.Error("the connection was lost without an error")
		}
	case <-time.After(patience):
		d.t.Fatal("the hub did not close the connection")
	}
}

const (
	twinRes    = "$iothub/twin/res/#"
	desired    = "$iothub/twin/PATCH/properties/desired/#"
	methods    = "$iothub/methods/POST/#"
	getTwin    = "$iothub/twin/GET/?$rid="
	reportTwin = "$iothub/twin/PATCH/properties/reported/?$rid="
)

func object(t *testing.T, text string) map[string]any {
	t.Helper()
	var v map[string]any
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return v
}
