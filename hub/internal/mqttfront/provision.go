package mqttfront

import (
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/fairlead-iot/fairlead/hub/api"
	"github.com/fairlead-iot/fairlead/hub/internal/dps"
	"github.com/fairlead-iot/fairlead/hub/internal/mqttwire"
)

// Topics of https://learn.microsoft.com/azure/iot/iot-mqtt-connect-to-iot-dps.
const (
	provisioningFilter = "$dps/registrations/res/#"
	registerTopic      = "$dps/registrations/PUT/iotdps-register/"
	operationTopic     = "$dps/registrations/GET/iotdps-get-operationstatus/"
)

// provisioning is a connection of a device to the provisioning service. Its
// sessions are never persistent, whatever CleanSession says, and have neither
// telemetry nor a will. The connection's reader owns it.
type provisioning struct {
	c          *conn
	svc        *dps.Service
	cred       dps.Credential
	subscribed bool
	qos        byte   // granted
	lastID     uint16 // of a PUBLISH with QoS 1
	proved     bool   // whether a request was answered with what it asked for
	within     *time.Timer
}

// proveWithin (ours) is how long a connection may last that has proved nothing:
// CONNECT lets in whom a request would refuse.
const proveWithin = 5 * time.Minute

// parseRegistration reads the user name
// "{idScope}/registrations/{registrationId}/api-version=…"; false for one of
// another form, such as the hub's.
func parseRegistration(name string) (scope, registration string, ok bool) {
	scope, rest, _ := strings.Cut(name, "/")
	rest, ok = strings.CutPrefix(rest, "registrations/")
	registration, query, whole := strings.Cut(rest, "/")
	ok = ok && whole && scope != "" && registration != "" && strings.HasPrefix(query, "api-version=")
	if !ok {
		return "", "", false
	}
	return scope, registration, true
}

// parseOperation reads "?$rid=R&operationId=O" after a topic of the provisioning
// service. The request id is given as it stands there, to be repeated.
func parseOperation(rest string) (rid, operation string, err error) {
	if rid, _, err = parseRequest(rest); err != nil {
		return "", "", err
	}
	for part := range strings.SplitSeq(strings.TrimPrefix(rest, "?"), "&") {
		if value, ok := strings.CutPrefix(part, "operationId="); ok {
			if operation, err = url.PathUnescape(value); err != nil {
				return "", "", fmt.Errorf("decode operationId: %w", err)
			}
		}
	}
	return rid, operation, nil
}

// provisioningAnswerTopic is where an answer goes. Clients split it at "$" and
// "&": nothing else may stand there.
func provisioningAnswerTopic(a dps.Answer, rid string) string {
	topic := "$dps/registrations/res/" + strconv.Itoa(a.Status) + "/?$rid=" + rid
	if a.RetryAfter > 0 {
		topic += "&retry-after=" + strconv.Itoa(int(a.RetryAfter/time.Second))
	}
	return topic
}

// isProvisioning reports whether CONNECT is for the provisioning service. A name
// of the hub in the place of the id scope means one of its devices.
func (c *conn) isProvisioning(in *mqttwire.ConnectInfo) (scope, registration string, ok bool) {
	scope, registration, ok = parseRegistration(in.Username)
	return scope, registration, ok && c.f.cfg.Provisioning != nil && !c.f.svc.AnswersTo(scope)
}

// connectProvisioning answers CONNECT. Who a device is shows in its requests, so
// that one with a wrong key is let in and answered 401 there, as by Azure.
func (c *conn) connectProvisioning(in *mqttwire.ConnectInfo, scope, registration string) error {
	// Microsoft's service refuses another client id with code 5.
	if !strings.EqualFold(in.ClientID, registration) {
		return c.refuse(codeUnauthorized, fmt.Errorf("the user name is for registration %q, the client id is %q", registration, in.ClientID))
	}
	p := &provisioning{c: c, svc: c.f.cfg.Provisioning, cred: dps.Credential{
		IDScope: scope, RegistrationID: registration, Token: string(in.Password), Certificates: clientChain(c.nc),
	}}
	if err := p.svc.Acceptable(p.cred); err != nil {
		return c.refuse(codeUnauthorized, err)
	}
	p.within = time.AfterFunc(proveWithin, func() { c.Drop("no request proved who the device is") })
	c.prov, c.idle = p, c.idleOf(in.KeepAlive)
	c.send(0, func(out []byte) []byte { return mqttwire.AppendConnack(out, false, 0) })
	c.f.log.Info("device connected to the provisioning service", "registration", registration)
	return nil
}

// handle acts on one packet; true after DISCONNECT.
func (p *provisioning) handle(packet mqttwire.Packet) (bool, error) {
	switch packet.Type {
	case mqttwire.Publish:
		return false, p.publish(packet)
	case mqttwire.Puback: // nothing is sent again
		return false, nil
	case mqttwire.Subscribe:
		return false, p.subscribe(packet)
	case mqttwire.Unsubscribe:
		for _, f := range packet.Filters {
			if f.Topic == provisioningFilter {
				p.subscribed = false
			}
		}
		p.c.send(0, func(out []byte) []byte { return mqttwire.AppendUnsuback(out, packet.ID) })
		return false, nil
	case mqttwire.Pingreq:
		p.c.send(0, mqttwire.AppendPingresp)
		return false, nil
	case mqttwire.Disconnect:
		return true, nil
	default: // a second CONNECT, [MQTT-3.1.0-2]
		return false, fmt.Errorf("packet of type %d in a session", packet.Type)
	}
}

func (p *provisioning) subscribe(packet mqttwire.Packet) error {
	codes := make([]byte, 0, len(packet.Filters))
	_, refused := p.c.f.svc.Strike(api.FaultRefuseSuback, p.c.id)
	for _, f := range packet.Filters {
		switch {
		case refused:
			codes = append(codes, 0x80)
		case f.Topic != provisioningFilter:
			return fmt.Errorf("SUBSCRIBE to %.200q; the provisioning service has %s alone", f.Topic, provisioningFilter)
		default:
			p.subscribed, p.qos = true, min(f.QoS, 1) // "DPS grants maximum QoS level 1"
			codes = append(codes, p.qos)
		}
	}
	p.c.send(0, func(out []byte) []byte { return mqttwire.AppendSuback(out, packet.ID, codes) })
	return nil
}

func (p *provisioning) publish(packet mqttwire.Packet) error {
	if packet.QoS == 2 {
		return errors.New("PUBLISH with QoS 2")
	}
	topic := string(packet.Topic)
	var rid, operation string
	var err error
	var answer dps.Answer
	if rest, ok := strings.CutPrefix(topic, registerTopic); ok {
		if rid, _, err = parseRequest(rest); err == nil {
			answer = p.svc.Register(p.cred, packet.Payload, false, time.Now())
		}
	} else if rest, ok := strings.CutPrefix(topic, operationTopic); ok {
		if rid, operation, err = parseOperation(rest); err == nil {
			answer = p.svc.Status(p.cred, operation, time.Now())
		}
	} else {
		err = fmt.Errorf("PUBLISH to topic %.200q", topic)
	}
	if err != nil {
		return err
	}
	if !p.proved && answer.Status/100 == 2 {
		p.proved = true
		p.within.Stop()
	}
	if packet.QoS > 0 {
		p.c.acks = append(p.c.acks, ack{packet.ID, false})
	}
	if p.subscribed {
		p.c.publish(provisioningAnswerTopic(answer, rid), answer.Body, p.qos, false, p.nextID())
	}
	return nil
}

// nextID numbers PUBLISH packets; 0 is no packet id, [MQTT-2.3.1-1].
func (p *provisioning) nextID() uint16 {
	p.lastID++
	if p.lastID == 0 {
		p.lastID = 1
	}
	return p.lastID
}
