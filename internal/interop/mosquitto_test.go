//go:build interop

package interop_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	paho "github.com/eclipse/paho.mqtt.golang"

	"github.com/fairlead-iot/fairlead/core"
	"github.com/fairlead-iot/fairlead/device"
	"github.com/fairlead-iot/fairlead/transports/mqtt"
	"github.com/fairlead-iot/fairlead/transports/mqttws"
	"github.com/fairlead-iot/fairlead/transports/netdial"
	"github.com/fairlead-iot/fairlead/transports/transporttest"
)

// writeCertificate writes cert.pem and key.pem for localhost and returns their authority.
func writeCertificate(t *testing.T, dir string) []byte {
	t.Helper()
	ca := transporttest.NewAuthority(t, "interop")
	cert := ca.Issue(t, nil, "localhost", "127.0.0.1")
	key, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	var chain []byte
	for _, der := range cert.Certificate {
		chain = append(chain, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	}
	for name, text := range map[string][]byte{"cert.pem": chain, "key.pem": pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key})} {
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return ca.PEM
}

// mosquitto is a broker with TLS on a port of its own, and with WebSockets in TLS on another.
type mosquitto struct {
	t      *testing.T
	path   string
	dir    string
	port   int
	wsPort int
	ca     []byte
	cmd    *exec.Cmd
}

func startMosquitto(t *testing.T) *mosquitto {
	t.Helper()
	path, err := exec.LookPath("mosquitto")
	if err != nil {
		if path = "/usr/sbin/mosquitto"; !isFile(path) {
			t.Skip("mosquitto is not installed here: apt-get install mosquitto")
		}
	}
	m := &mosquitto{t: t, path: path, dir: t.TempDir()}
	ports := freePorts(t, 2)
	m.port, m.wsPort = ports[0], ports[1]
	m.ca = writeCertificate(t, m.dir)
	conf := fmt.Sprintf("user root\nallow_anonymous true\npersistence true\npersistence_location %s/\nmax_queued_messages 0\n", m.dir)
	for _, listener := range []string{fmt.Sprintf("listener %d 127.0.0.1\n", m.port), fmt.Sprintf("listener %d 127.0.0.1\nprotocol websockets\n", m.wsPort)} {
		conf += listener + fmt.Sprintf("certfile %[1]s/cert.pem\nkeyfile %[1]s/key.pem\n", m.dir)
	}
	if err := os.WriteFile(filepath.Join(m.dir, "m.conf"), []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	m.start()
	t.Cleanup(m.stop)
	return m
}

// freePorts are ports at which nobody listens. All are held until the last is chosen, so that none comes twice.
func freePorts(t *testing.T, n int) []int {
	t.Helper()
	var ports []int
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		ports = append(ports, l.Addr().(*net.TCPAddr).Port)
	}
	return ports
}

func isFile(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func (m *mosquitto) start() {
	m.t.Helper()
	m.cmd = exec.Command(m.path, "-c", filepath.Join(m.dir, "m.conf"))
	log, err := os.OpenFile(filepath.Join(m.dir, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		m.t.Fatal(err)
	}
	m.cmd.Stderr, m.cmd.Stdout = log, log
	if err := m.cmd.Start(); err != nil {
		m.t.Fatal(err)
	}
	deadline := time.Now().Add(time.Minute)
	for {
		c, err := net.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", m.port))
		if err == nil {
			_ = c.Close()
			return
		}
		if time.Now().After(deadline) {
			text, _ := os.ReadFile(filepath.Join(m.dir, "log"))
			m.t.Fatalf("mosquitto does not listen: %v\n%s", err, text)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// stop ends the broker in an orderly way: what it has acknowledged and not yet passed on is written down.
func (m *mosquitto) stop() {
	_ = m.cmd.Process.Signal(syscall.SIGTERM)
	_ = m.cmd.Wait()
}

// backEnd is a plain MQTT client that plays the service side.
func (m *mosquitto) backEnd(onMessage func(topic string, payload []byte)) paho.Client {
	m.t.Helper()
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(m.ca)
	o := paho.NewClientOptions().AddBroker(fmt.Sprintf("ssl://localhost:%d", m.port)).SetClientID("backend").SetCleanSession(false).
		SetTLSConfig(&tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}).SetOrderMatters(true).SetMaxReconnectInterval(100 * time.Millisecond).
		SetDefaultPublishHandler(func(_ paho.Client, msg paho.Message) { onMessage(msg.Topic(), msg.Payload()) })
	c := paho.NewClient(o)
	wait(m.t, "connect the back end", c.Connect())
	wait(m.t, "subscribe the back end", c.Subscribe("devices/#", 1, nil))
	wait(m.t, "subscribe the back end", c.Subscribe("$iothub/methods/res/#", 1, nil))
	m.t.Cleanup(func() { c.Disconnect(0) })
	return c
}

func wait(t *testing.T, what string, token paho.Token) {
	t.Helper()
	if !token.WaitTimeout(time.Minute) || token.Error() != nil {
		t.Fatalf("%s: %v", what, token.Error())
	}
}

func TestTheDeviceWorksWithMosquittoAndItsRestart(t *testing.T) {
	t.Run("mqtt", func(t *testing.T) { workWithMosquitto(t, mqtt.New, func(m *mosquitto) int { return m.port }) })
	t.Run("mqttws", func(t *testing.T) { workWithMosquitto(t, mqttws.New, func(m *mosquitto) int { return m.wsPort }) })
}

func workWithMosquitto(t *testing.T, newTransport func(mqtt.Config) (*mqtt.Transport, error), port func(*mosquitto) int) {
	m := startMosquitto(t)
	var mu sync.Mutex
	var telemetry, topics []string
	answers := make(chan string, 10)
	backEnd := m.backEnd(func(topic string, payload []byte) {
		mu.Lock()
		defer mu.Unlock()
		switch {
		case strings.HasPrefix(topic, "devices/dev1/messages/events/"):
			telemetry, topics = append(telemetry, string(payload)), append(topics, topic)
		case strings.HasPrefix(topic, "$iothub/methods/res/"):
			answers <- topic + " " + string(payload)
		}
	})

	identity := core.Identity{Hostname: "localhost", DeviceID: "dev1"}
	transport, err := newTransport(mqtt.Config{Identity: identity, Port: port(m), TLS: netdial.TLSConfig{ServerVerificationCert: m.ca}})
	if err != nil {
		t.Fatal(err)
	}
	cfg := device.DefaultConfig()
	cfg.Identity, cfg.Transports, cfg.Credentials, cfg.EnsureDesiredProperties = identity, []core.Transport{transport}, anyone{}, false
	c, err := device.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	defer c.Shutdown(context.WithoutCancel(ctx)) //nolint:errcheck // asserted below
	messages := make(chan *device.Message, 10)
	c.HandleMessages(func(_ context.Context, msg *device.Message) error {
		messages <- msg
		return nil
	})
	c.HandleMethod("read", func(_ context.Context, p json.RawMessage) (int, any, error) { return 200, p, nil })

	// 2,000 numbered messages, the broker stopped and started again in the middle.
	const count = 2000
	for i := range count {
		if i == count/2 {
			m.stop()
			m.start()
		}
		if err := c.Send(ctx, &device.Message{
			Payload: []byte(strconv.Itoa(i)), ContentType: "application/json", CorrelationID: "a&b=c/d", Properties: map[string]string{"ä b": "1+1"},
		}); err != nil {
			t.Fatalf("send %d: %v", i, err)
		}
	}
	until(t, "all telemetry at the back end", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return slices.Contains(telemetry, strconv.Itoa(count-1))
	})
	mu.Lock()
	// At its restart the broker, too, hands out again what the back end had not acknowledged, a few in a row.
	next := 0
	for _, text := range telemetry {
		switch n, err := strconv.Atoi(text); {
		case err != nil || n > next:
			t.Errorf("the back end was given %q where %d was next", text, next)
		case n == next:
			next++
		}
	}
	if next != count {
		t.Errorf("the back end has %d messages of %d", next, count)
	}
	if want := "&%24.cid=a%26b%3Dc%2Fd&%24.ct=application%2Fjson&%C3%A4%20b=1%2B1"; !strings.HasSuffix(topics[0], want) {
		t.Errorf("topic %s does not end in %s", topics[0], want)
	}
	mu.Unlock()

	// A message and a method call, as a back end over a plain broker would send them.
	wait(t, "send a message", backEnd.Publish("devices/dev1/messages/devicebound/%24.mid=m1&k=a%2Fb", 1, false, "hello"))
	select {
	case msg := <-messages:
		if msg.ID != "m1" || msg.Properties["k"] != "a/b" || string(msg.Payload) != "hello" {
			t.Errorf("the device was given %+v", msg)
		}
	case <-ctx.Done():
		t.Fatal("no message came")
	}
	wait(t, "call a method", backEnd.Publish("$iothub/methods/POST/read/?$rid=7", 0, false, `{"x":1}`))
	select {
	case got := <-answers:
		if got != `$iothub/methods/res/200/?$rid=7 {"x":1}` {
			t.Errorf("answer %s", got)
		}
	case <-ctx.Done():
		t.Fatal("no answer came")
	}
	s, err := c.Engine().Status(ctx)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d sessions, %d losses, %d attempts", s.Machine.Counters.Sessions, s.Machine.Counters.Losses, s.Machine.Counters.Attempts)
	if err := c.Shutdown(ctx); err != nil {
		t.Errorf("shutdown: %v", err)
	}
}

// anyone is a credential that this broker does not check.
type anyone struct{}

func (anyone) Credential(context.Context) (core.Credential, error) {
	return core.Credential{Token: "SharedAccessSignature none"}, nil
}

func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within a minute", what)
		}
	}
}
