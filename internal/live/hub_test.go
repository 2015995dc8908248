package live

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"

	"github.com/fairlead-iot/fairlead/core"
	"github.com/fairlead-iot/fairlead/credentials"
	"github.com/fairlead-iot/fairlead/device"
	"github.com/fairlead-iot/fairlead/hub/api"
	"github.com/fairlead-iot/fairlead/hub/service"
)

// serviceCS is the variable without which nothing runs.
const serviceCS = "FAIRLEAD_LIVE_SERVICE_CS"

// hub is the hub that the variables name, and the devices that a step has made there.
type hub struct {
	*service.Client
	hostname    string
	ca          []byte
	mqtt        string // host:port to dial; "" is the hub's own
	dps         provisioning
	patience    time.Duration
	dialContext func(ctx context.Context, network, addr string) (net.Conn, error)
}

// provisioning is an enrollment group of a provisioning service that assigns to the hub; a scope of "" is none.
type provisioning struct {
	host, address string // the service's name, "" for Azure's; host:port to dial, "" for its own
	scope         string
	groupKey      core.Secret
}

// open reads the variables; nil says that there is no hub.
func open(t *testing.T, getenv func(string) string, dial func(ctx context.Context, network, addr string) (net.Conn, error)) *hub {
	t.Helper()
	text := getenv(serviceCS)
	if text == "" {
		return nil
	}
	h := &hub{mqtt: getenv("FAIRLEAD_LIVE_MQTT"), patience: time.Minute, dialContext: dial}
	if file := getenv("FAIRLEAD_LIVE_CA"); file != "" {
		var err error
		if h.ca, err = os.ReadFile(file); err != nil {
			t.Fatalf("FAIRLEAD_LIVE_CA: %v", err)
		}
	}
	if p := getenv("FAIRLEAD_LIVE_PATIENCE"); p != "" {
		var err error
		if h.patience, err = time.ParseDuration(p); err != nil {
			t.Fatalf("FAIRLEAD_LIVE_PATIENCE: %v; write it as 15m", err)
		}
	}
	h.dps = provisioning{
		host: getenv("FAIRLEAD_LIVE_PROVISIONING_HOST"), address: getenv("FAIRLEAD_LIVE_PROVISIONING"),
		scope: getenv("FAIRLEAD_LIVE_ID_SCOPE"), groupKey: core.Secret(getenv("FAIRLEAD_LIVE_GROUP_KEY")),
	}
	for name, address := range map[string]string{"FAIRLEAD_LIVE_MQTT": h.mqtt, "FAIRLEAD_LIVE_PROVISIONING": h.dps.address} {
		if _, port, err := net.SplitHostPort(address); address != "" && (err != nil || port == "") {
			t.Fatalf("%s is %q: write host:port", name, address)
		}
	}
	if (h.dps.scope == "") != (h.dps.groupKey == "") {
		t.Fatal("FAIRLEAD_LIVE_ID_SCOPE and FAIRLEAD_LIVE_GROUP_KEY belong together: set both, or none")
	}
	c, err := service.New(text, service.Options{CAPEM: h.ca, Address: getenv("FAIRLEAD_LIVE_HTTPS"), DialContext: dial})
	if err != nil {
		t.Fatalf("%s: %v", serviceCS, err)
	}
	t.Cleanup(c.Close)
	h.Client, h.hostname = c, c.HostName()
	return h
}

// saw prints an answer to an open question.
func saw(t *testing.T, format string, args ...any) {
	t.Helper()
	t.Logf("saw: "+format, args...)
}

// newName is that of a device which nobody has.
func newName() string {
	var random [6]byte
	_, _ = rand.Read(random[:]) // it never fails
	return "fairlead-live-" + hex.EncodeToString(random[:])
}

// deleteLater deletes a device at the end of the test.
func (h *hub) deleteLater(t *testing.T, id string) {
	t.Helper()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), 30*time.Second)
		defer cancel()
		if err := h.DeleteDevice(ctx, id); err != nil {
			t.Errorf("delete %s: %v; delete it by hand", id, err)
		}
	})
}

// add makes a device, or with "/name" at the end a module of one, and returns its identity and key.
func (h *hub) add(t *testing.T, module string) (core.Identity, core.Secret) {
	t.Helper()
	id := newName()
	create := func(d api.Device) core.Secret {
		made, err := h.CreateDevice(t.Context(), d)
		if err != nil {
			t.Fatalf("make %s: %v", d.ID(), err)
		}
		return core.Secret(made.Authentication.SymmetricKey.PrimaryKey)
	}
	key := create(api.Device{DeviceID: id, Status: "enabled"})
	h.deleteLater(t, id)
	if module != "" {
		key = create(api.Device{DeviceID: id, ModuleID: module})
	}
	return core.Identity{Hostname: h.hostname, DeviceID: id, ModuleID: module}, key
}

// client makes a client of an identity; it is shut down at the end.
func (h *hub) client(t *testing.T, id core.Identity, key core.Secret, change func(*device.Options)) *device.Client {
	t.Helper()
	c, err := device.FromSymmetricKey(key.Reveal(), id.Hostname, id.ClientID(), h.options, change)
	return h.own(t, c, err)
}

// options lead a client to the hub.
func (h *hub) options(o *device.Options) {
	o.ServerVerificationCert, o.DialContext = h.ca, h.dialContext
	o.Address, o.Port = splitAddress(h.mqtt)
}

// splitAddress takes apart what open has checked; "" leaves both to the client.
func splitAddress(address string) (host string, port int) {
	if address == "" {
		return "", 0
	}
	host, text, _ := net.SplitHostPort(address)
	port, _ = strconv.Atoi(text)
	return host, port
}

// own has a client shut down at the end.
func (h *hub) own(t *testing.T, c *device.Client, err error) *device.Client {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Shutdown(context.WithoutCancel(t.Context())); err != nil {
			t.Errorf("shut down %s: %v", c.Identity().ClientID(), err)
		}
	})
	return c
}

func unchanged(*device.Options) {}

// raw is a connection on which a step says just what it wants to.
type raw struct {
	*tls.Conn
}

// dialRaw opens a connection by TLS.
func (h *hub) dialRaw(t *testing.T) raw {
	t.Helper()
	addr := h.mqtt
	if addr == "" {
		addr = net.JoinHostPort(h.hostname, "8883")
	}
	cfg := &tls.Config{ServerName: h.hostname, MinVersion: tls.VersionTLS12}
	if h.ca != nil {
		cfg.RootCAs = x509.NewCertPool()
		cfg.RootCAs.AppendCertsFromPEM(h.ca)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	dial := h.dialContext
	if dial == nil {
		dial = (&net.Dialer{}).DialContext
	}
	conn, err := dial(ctx, "tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	c := tls.Client(conn, cfg)
	t.Cleanup(func() { _ = c.Close() })
	if err := c.HandshakeContext(ctx); err != nil {
		t.Fatal(err)
	}
	return raw{c}
}

// connect says who it is, with a token that ends when it is told to, and returns the CONNACK's code, or an error where the
// hub hangs up instead.
func (r raw) connect(t *testing.T, id core.Identity, key core.Secret, expiry time.Time) (byte, error) {
	t.Helper()
	sign, err := credentials.KeySigner(key)
	if err != nil {
		t.Fatal(err)
	}
	token, err := credentials.Sign(t.Context(), sign, credentials.Resource(id), "", expiry)
	if err != nil {
		t.Fatal(err)
	}
	p := packets.NewControlPacket(packets.Connect).(*packets.ConnectPacket)
	p.ProtocolName, p.ProtocolVersion, p.Keepalive, p.CleanSession = "MQTT", 4, 60, true
	p.ClientIdentifier = id.ClientID()
	p.UsernameFlag, p.Username = true, fmt.Sprintf("%s/%s/?api-version=2021-04-12", id.Hostname, id.ClientID())
	p.PasswordFlag, p.Password = true, []byte(token.Reveal())
	if err := p.Write(r); err != nil {
		return 0, err
	}
	if err := r.SetReadDeadline(time.Now().Add(30 * time.Second)); err != nil {
		t.Fatal(err)
	}
	answer, err := packets.ReadPacket(r)
	if err != nil {
		return 0, err
	}
	ack, ok := answer.(*packets.ConnackPacket)
	if !ok {
		return 0, errors.New("the answer to CONNECT is no CONNACK")
	}
	return ack.ReturnCode, nil
}
