//go:build faults && unix

package faults

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/eclipse/paho.mqtt.golang/packets"
)

// hubClient speaks to a hub as any program could: REST and MQTT, by the documents. What it asks is lost with the hub: it
// repeats nothing.
type hubClient struct {
	mqtt, https string
	fields      map[string]string // of the service's connection string
	tls         *tls.Config
	http        *http.Client
}

func newHubClient(mqtt, https, connectionString, caFile string) (*hubClient, error) {
	ca, err := os.ReadFile(caFile)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca)
	c := &hubClient{mqtt: mqtt, https: https, fields: map[string]string{}}
	for part := range strings.SplitSeq(connectionString, ";") {
		key, value, _ := strings.Cut(part, "=")
		c.fields[key] = value
	}
	c.tls = &tls.Config{RootCAs: pool, ServerName: c.fields["HostName"], MinVersion: tls.VersionTLS12}
	c.http = &http.Client{Transport: &http.Transport{TLSClientConfig: c.tls, MaxIdleConnsPerHost: 8}, Timeout: 20 * time.Second}
	return c, nil
}

// token is a shared access signature:
// https://learn.microsoft.com/azure/iot-hub/iot-hub-dev-guide-sas
func token(resource, key, policy string) (string, error) {
	secret, err := base64.StdEncoding.DecodeString(key)
	if err != nil {
		return "", fmt.Errorf("decode key: %w", err)
	}
	sr, se := url.QueryEscape(resource), fmt.Sprint(time.Now().Add(time.Hour).Unix())
	mac := hmac.New(sha256.New, secret)
	mac.Write([]byte(sr + "\n" + se))
	text := "SharedAccessSignature sr=" + sr + "&sig=" + url.QueryEscape(base64.StdEncoding.EncodeToString(mac.Sum(nil))) + "&se=" + se
	if policy != "" {
		text += "&skn=" + policy
	}
	return text, nil
}

// errRefused is an answer that is not 2xx.
var errRefused = errors.New("refused")

// do sends a request and decodes the answer into into, unless that is nil.
func (c *hubClient) do(method, path string, body, into any) error {
	return c.request(method, path, "", body, into)
}

// change is a request about something that is there.
func (c *hubClient) change(method, path string, body any) error {
	return c.request(method, path, `"*"`, body, nil)
}

func (c *hubClient) request(method, path, ifMatch string, body, into any) error {
	var text io.Reader
	if body != nil {
		encoded, err := json.Marshal(body)
		if err != nil {
			return err
		}
		text = bytes.NewReader(encoded)
	}
	req, err := http.NewRequest(method, "https://"+c.https+path+"?api-version=2021-04-12", text)
	if err != nil {
		return err
	}
	auth, err := token(c.fields["HostName"], c.fields["SharedAccessKey"], c.fields["SharedAccessKeyName"])
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", auth)
	if ifMatch != "" {
		req.Header.Set("If-Match", ifMatch)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close() //nolint:errcheck // read to its end
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("%w: %s %s: %d %s", errRefused, method, path, resp.StatusCode, answer)
	}
	if into == nil {
		return nil
	}
	return json.Unmarshal(answer, into)
}

// newDevice registers a device and returns its primary key.
func (c *hubClient) newDevice(id string) (key string, err error) {
	var d struct {
		Authentication struct {
			SymmetricKey struct {
				PrimaryKey string `json:"primaryKey"`
			} `json:"symmetricKey"`
		} `json:"authentication"`
	}
	err = c.do(http.MethodPut, "/devices/"+id, map[string]any{"deviceId": id}, &d)
	return d.Authentication.SymmetricKey.PrimaryKey, err
}

// link is an MQTT connection of a device, packet by packet.
type link struct {
	net.Conn
	id string
}

func (c *hubClient) connect(id, key string) (*link, error) {
	nc, err := (&tls.Dialer{NetDialer: &net.Dialer{Timeout: 20 * time.Second}, Config: c.tls}).Dial("tcp", c.mqtt)
	if err != nil {
		return nil, err
	}
	l := &link{nc, id}
	password, err := token(c.fields["HostName"]+"/devices/"+id, key, "")
	if err == nil {
		p := packets.NewControlPacket(packets.Connect).(*packets.ConnectPacket)
		p.ProtocolName, p.ProtocolVersion, p.ClientIdentifier = "MQTT", 4, id
		p.UsernameFlag, p.Username = true, c.fields["HostName"]+"/"+id+"/?api-version=2021-04-12"
		p.PasswordFlag, p.Password = true, []byte(password)
		err = p.Write(l)
	}
	if err == nil {
		err = l.want(func(p packets.ControlPacket) bool {
			answer, ok := p.(*packets.ConnackPacket)
			return ok && answer.ReturnCode == 0
		})
	}
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// read reads a packet that comes within 20 s.
func (l *link) read() (packets.ControlPacket, error) {
	if err := l.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
		return nil, err
	}
	return packets.ReadPacket(l)
}

func (l *link) want(ok func(packets.ControlPacket) bool) error {
	p, err := l.read()
	if err != nil {
		return err
	}
	if !ok(p) {
		return fmt.Errorf("%s: %v came", l.id, p)
	}
	return nil
}

func (l *link) subscribe(filters ...string) error {
	p := packets.NewControlPacket(packets.Subscribe).(*packets.SubscribePacket)
	p.MessageID = 1
	for _, f := range filters {
		p.Topics, p.Qoss = append(p.Topics, f), append(p.Qoss, 1)
	}
	if err := p.Write(l); err != nil {
		return err
	}
	return l.want(func(p packets.ControlPacket) bool { _, ok := p.(*packets.SubackPacket); return ok })
}

func (l *link) publish(w io.Writer, topic, body string, qos byte, id uint16) error {
	p := packets.NewControlPacket(packets.Publish).(*packets.PublishPacket)
	p.TopicName, p.Payload, p.Qos, p.MessageID = topic, []byte(body), qos, id
	return p.Write(w)
}
