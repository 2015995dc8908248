package mqtt

import (
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/fairlead-iot/fairlead/core"
)

var moment = time.Date(2024, 1, 2, 3, 4, 5, 0, time.UTC)

func TestTelemetryTopic(t *testing.T) {
	for _, c := range []struct {
		name    string
		id      core.Identity
		message core.Message
		want    string
	}{
		{"no properties", core.Identity{DeviceID: "d"}, core.Message{}, "devices/d/messages/events/"},
		{"module", core.Identity{DeviceID: "d", ModuleID: "m"}, core.Message{Output: "o"}, "devices/d/modules/m/messages/events/%24.on=o"},
		{"an id is not encoded", core.Identity{DeviceID: "a:b@c"}, core.Message{}, "devices/a:b@c/messages/events/"},
		{
			// As Microsoft's Python client writes it, but for the milliseconds and the zone of the expiry.
			"every property",
			core.Identity{DeviceID: "d"},
			core.Message{
				Output: "o+1", ID: "id 1/2", CorrelationID: "c&1", UserID: "u=1", ContentType: "application/json", ContentEncoding: "utf-8",
				InterfaceID: "urn:azureiot:Security:SecurityAgent:1", Expiry: moment,
				Properties: map[string]string{"a/é": "1~_.-*", "b": "2 $", "c": "None", "d": "True"},
			},
			"devices/d/messages/events/%24.on=o%2B1&%24.mid=id%201%2F2&%24.cid=c%261&%24.uid=u%3D1&%24.ct=application%2Fjson&%24.ce=utf-8&" +
				"%24.ifid=urn%3Aazureiot%3ASecurity%3ASecurityAgent%3A1&%24.exp=2024-01-02T03%3A04%3A05.000Z&a%2F%C3%A9=1~_.-%2A&b=2%20%24&c=None&d=True",
		},
		{
			"component and creation time",
			core.Identity{DeviceID: "d"},
			core.Message{Component: "thermostat1", CreationTime: moment.In(time.FixedZone("", 3600))},
			"devices/d/messages/events/%24.sub=thermostat1&%24.ctime=2024-01-02T03%3A04%3A05.000Z",
		},
		{"empty values", core.Identity{DeviceID: "d"}, core.Message{Properties: map[string]string{"": "", "A": "1", "z": ""}}, "devices/d/messages/events/=&A=1&z="},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := string(newTopics(c.id).appendTelemetry(nil, &c.message)); got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
		})
	}
}

func TestParseInboundTopics(t *testing.T) {
	device, module := core.Identity{DeviceID: "d"}, core.Identity{DeviceID: "d", ModuleID: "m"}
	message := func(m core.Message) arrival {
		return arrival{kind: arrivalMessage, inbound: core.Inbound{Kind: core.InboundMessage, Message: &m}}
	}
	method := func(name, rid string) arrival {
		return arrival{kind: arrivalMethod, inbound: core.Inbound{Kind: core.InboundMethod, Method: name, RequestID: rid}}
	}
	reply := func(status int, rid string, version int64) arrival {
		return arrival{kind: arrivalReply, rid: rid, reply: core.Reply{Status: status, Version: version}}
	}
	desired := func(version int64) arrival {
		return arrival{kind: arrivalDesired, inbound: core.Inbound{Kind: core.InboundDesired, Version: version}}
	}
	for _, c := range []struct {
		name  string
		id    core.Identity
		topic string
		want  arrival
	}{
		{"bare message", device, "devices/d/messages/devicebound/", message(core.Message{})},
		{"the filter matches its parent", device, "devices/d/messages/devicebound", message(core.Message{})},
		{
			"message with everything", device,
			"devices/d/messages/devicebound/%24.to=%2Fdevices%2Fd%2Fmessages%2FdeviceBound&%24.mid=1&%24.cid=2&%24.uid=3&%24.ct=a%2Fb&%24.ce=utf-8&" +
				"%24.exp=2024-01-02T03%3A04%3A05Z&iothub-ack=full&%24.cdid=x&k=v%20w+z&null&empty=&two=a=b&twice=1&twice=2&%zz=%4",
			message(core.Message{
				To: "/devices/d/messages/deviceBound", ID: "1", CorrelationID: "2", UserID: "3", ContentType: "a/b", ContentEncoding: "utf-8",
				Expiry: moment, Ack: "full",
				Properties: map[string]string{"$.cdid": "x", "k": "v w+z", "null": "", "empty": "", "two": "a=b", "twice": "2", "%zz": "%4"},
			}),
		},
		{"an expiry that is no time stays readable", device, "devices/d/messages/devicebound/%24.exp=soon", message(core.Message{Properties: map[string]string{"$.exp": "soon"}})},
		{"an expiry without a zone", device, "devices/d/messages/devicebound/$.exp=2024-01-02T03:04:05", message(core.Message{Expiry: moment})},
		{"a raw slash", device, "devices/d/messages/devicebound/a=b/c", message(core.Message{Properties: map[string]string{"a": "b/c"}})},
		{"another device's", device, "devices/e/messages/devicebound/", arrival{}},
		{"input", module, "devices/d/modules/m/inputs/in%2F1/%24.cmid=x", message(core.Message{Input: "in/1", Properties: map[string]string{"$.cmid": "x"}})},
		{"input without a bag", module, "devices/d/modules/m/inputs/in", message(core.Message{Input: "in"})},
		{"no input", module, "devices/d/modules/m/inputs/", arrival{}},
		{"method", device, "$iothub/methods/POST/reboot/?$rid=1a", method("reboot", "1a")},
		{"method with an encoded name", device, "$iothub/methods/POST/re%20boot%2Fnow/?%24rid=%41", method("re boot/now", "A")},
		{"method with a slash and a question mark", device, "$iothub/methods/POST/a/?b/?$rid=1", method("a/?b", "1")},
		{"method without a request id", device, "$iothub/methods/POST/reboot/?x=1", arrival{}},
		{"method without a query", device, "$iothub/methods/POST/reboot", arrival{}},
		{"method without a name", device, "$iothub/methods/POST//?$rid=1", arrival{}},
		{"reply", device, "$iothub/twin/res/200/?$rid=7", reply(200, "7", 0)},
		{"reply with a version", device, "$iothub/twin/res/204/?$rid=7&$version=12", reply(204, "7", 12)},
		{"reply with a bad version", device, "$iothub/twin/res/204/?$rid=7&$version=x", reply(204, "7", 0)},
		{"reply without a status", device, "$iothub/twin/res//?$rid=7", arrival{}},
		{"reply without a request id", device, "$iothub/twin/res/200/", arrival{}},
		{"desired", device, "$iothub/twin/PATCH/properties/desired/?$version=5", desired(5)},
		{"desired without a version", device, "$iothub/twin/PATCH/properties/desired/", arrival{}},
		{"nothing", device, "", arrival{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := newTopics(c.id).parse(c.topic, nil)
			if diff := cmp.Diff(c.want, got, cmp.AllowUnexported(arrival{}, registrationAnswer{})); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
	if got := newTopics(device).parse(desiredPrefix, []byte(`{"a":1,"$version":6}`)); got.inbound.Version != 6 {
		t.Errorf("version %d, want 6: it stands in the payload as well", got.inbound.Version)
	}
}

func TestUsername(t *testing.T) {
	id := core.Identity{Hostname: "h.net", DeviceID: "d", ModuleID: "m", Gateway: "gw"}
	for _, c := range []struct{ name, agent, product, want string }{
		{"plain", "fairlead/1 (go; x)", "", "h.net/d/m/?api-version=2021-04-12&DeviceClientType=fairlead%2F1%20%28go%3B%20x%29"},
		{"product", "fairlead/1", "acme/3.2", "h.net/d/m/?api-version=2021-04-12&DeviceClientType=fairlead%2F1%20acme%2F3.2"},
		{"model", "fairlead/1", "dtmi:com:example;1", "h.net/d/m/?api-version=2021-04-12&DeviceClientType=fairlead%2F1&model-id=dtmi%3Acom%3Aexample%3B1"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := username(id, c.agent, c.product); got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
		})
	}
}

// FuzzPropertyBag: what is encoded is decoded to the same message, and the topic is one that MQTT allows.
func FuzzPropertyBag(f *testing.F) {
	f.Add("id", "c&d", "u=e", "text/plain", "utf-8", "$.mid", "v+w %41", int64(1_700_000_000_123))
	f.Add("", "", "", "", "", "a", "", int64(0))
	f.Fuzz(func(t *testing.T, id, correlation, user, contentType, encoding, name, value string, millis int64) {
		m := core.Message{
			ID: id, CorrelationID: correlation, UserID: user, ContentType: contentType, ContentEncoding: encoding,
			Component: value, Output: id, Properties: map[string]string{name: value},
		}
		if m.Check() != nil || name == propAck {
			return
		}
		if millis > 0 && millis < 200_000_000_000_000 {
			m.Expiry = time.UnixMilli(millis).UTC()
		}
		topic := string(newTopics(testIdentity).appendTelemetry(nil, &m))
		if strings.ContainsAny(topic, "+#\x00") || !utf8.ValidString(topic) {
			t.Fatalf("topic %q", topic)
		}
		var got core.Message
		decodeBag(strings.TrimPrefix(topic, "devices/dev/messages/events/"), &got)
		if diff := cmp.Diff(m, got); diff != "" {
			t.Fatalf("%s (-want +got):\n%s", topic, diff)
		}
	})
}

// FuzzParseTopic: no topic makes the parser panic, or name a thing without what is needed to answer it.
func FuzzParseTopic(f *testing.F) {
	for _, seed := range []string{
		"devices/d/messages/devicebound/a=b&c", "devices/d/modules/m/inputs/x/a=b", "$iothub/methods/POST/n/?$rid=1",
		"$iothub/twin/res/200/?$rid=1&$version=2", "$iothub/twin/PATCH/properties/desired/?$version=3",
		"$dps/registrations/res/202/?$rid=1&retry-after=3",
	} {
		f.Add(seed, []byte(`{"$version":1}`))
	}
	f.Fuzz(func(t *testing.T, topic string, payload []byte) {
		for _, names := range []topics{newTopics(core.Identity{DeviceID: "d"}), newTopics(core.Identity{DeviceID: "d", ModuleID: "m"}), {provisioning: true}} {
			switch a := names.parse(topic, payload); a.kind {
			case arrivalMessage:
				if a.inbound.Message == nil {
					t.Fatal("a message without a message")
				}
			case arrivalMethod:
				if a.inbound.Method == "" {
					t.Fatal("a method without a name")
				}
			case arrivalReply:
				if a.reply.Status < 0 {
					t.Fatal("a negative status")
				}
			case arrivalRegistration:
				if r := a.registration; !names.provisioning || r.status < 100 || r.retryAfter < 0 || r.retryAfter > 24*time.Hour {
					t.Fatalf("an answer of status %d that asks for %v", r.status, r.retryAfter)
				}
			case arrivalDesired, arrivalUnknown:
			}
		}
	})
}
