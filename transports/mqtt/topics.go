package mqtt

import (
	"encoding/json"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/fairlead-iot/fairlead/core"
)

// topics holds the topics of one identity. Ids stand in topics as they are, never encoded.
//
// https://learn.microsoft.com/azure/iot/iot-mqtt-connect-to-iot-hub
type topics struct {
	events  string // "devices/d/messages/events/"
	inbound string // "devices/d/messages/devicebound/", or a module's "devices/d/modules/m/inputs/"
	module  bool
	// provisioning: the other side is the provisioning service, which has topics of its own and none of these.
	provisioning bool
}

func newTopics(id core.Identity) topics {
	if id.ModuleID != "" {
		base := "devices/" + id.DeviceID + "/modules/" + id.ModuleID
		return topics{events: base + "/messages/events/", inbound: base + "/inputs/", module: true}
	}
	base := "devices/" + id.DeviceID + "/messages/"
	return topics{events: base + "events/", inbound: base + "devicebound/"}
}

// filter returns the subscription that a feature stands behind.
func (t topics) filter(f core.Feature) string {
	switch f {
	case core.FeatureMessages:
		return t.inbound + "#"
	case core.FeatureMethods:
		return methodPrefix + "#"
	case core.FeatureTwin:
		return twinResPrefix + "#"
	case core.FeatureDesired:
		return desiredPrefix + "#"
	}
	return ""
}

// appendTelemetry appends the topic of a message: the events topic and its property bag.
func (t topics) appendTelemetry(b []byte, m *core.Message) []byte {
	return appendBag(append(b, t.events...), m)
}

// appendBag appends a message's properties: the system's in the order of Microsoft's own clients (those that are not
// empty), then the application's, sorted by name. All names and values are percent-encoded, so that "$.mid" appears as
// "%24.mid".
func appendBag(b []byte, m *core.Message) []byte {
	first := true
	add := func(name, value string) {
		if !first {
			b = append(b, '&')
		}
		first = false
		b = appendEscaped(b, name)
		b = append(b, '=')
		b = appendEscaped(b, value)
	}
	system := func(name, value string) {
		if value != "" {
			add(name, value)
		}
	}
	system(propOutput, m.Output)
	system(propID, m.ID)
	system(propCorrelationID, m.CorrelationID)
	system(propUserID, m.UserID)
	system(propContentType, m.ContentType)
	system(propContentEncoding, m.ContentEncoding)
	system(propInterfaceID, m.InterfaceID)
	if !m.Expiry.IsZero() {
		add(propExpiry, m.Expiry.UTC().Format(core.TimeFormat))
	}
	system(propComponent, m.Component)
	if !m.CreationTime.IsZero() {
		add(propCreationTime, m.CreationTime.UTC().Format(core.TimeFormat))
	}
	if len(m.Properties) == 0 {
		return b
	}
	names := make([]string, 0, 8) // on the stack, as a rule
	for name := range m.Properties {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		add(name, m.Properties[name])
	}
	return b
}

// decodeBag reads a property bag into m. A name without "=" has the value ""; text after a second "=" belongs to the
// value; the last of two values of one name counts. What is not a known system property is the application's, Edge's
// $.cdid and $.cmid included.
func decodeBag(bag string, m *core.Message) {
	bag = strings.TrimPrefix(bag, "?")
	for len(bag) > 0 {
		var pair string
		pair, bag, _ = strings.Cut(bag, "&")
		if pair == "" {
			continue
		}
		name, value, _ := strings.Cut(pair, "=")
		setProperty(m, unescape(name), unescape(value))
	}
}

func setProperty(m *core.Message, name, value string) {
	switch name {
	case propID:
		m.ID = value
	case propCorrelationID:
		m.CorrelationID = value
	case propUserID:
		m.UserID = value
	case propTo:
		m.To = value
	case propContentType:
		m.ContentType = value
	case propContentEncoding:
		m.ContentEncoding = value
	case propInterfaceID:
		m.InterfaceID = value
	case propComponent:
		m.Component = value
	case propOutput:
		m.Output = value
	case propAck:
		m.Ack = value
	case propExpiry:
		if at, ok := parseTime(value); ok {
			m.Expiry = at
			return
		}
		setCustom(m, name, value)
	case propCreationTime:
		if at, ok := parseTime(value); ok {
			m.CreationTime = at
			return
		}
		setCustom(m, name, value)
	default:
		setCustom(m, name, value)
	}
}

func setCustom(m *core.Message, name, value string) {
	if m.Properties == nil {
		m.Properties = make(map[string]string)
	}
	m.Properties[name] = value
}

// parseTime reads ISO 8601 as hubs and services write it: with or without fractions, and without a zone as UTC.
func parseTime(s string) (time.Time, bool) {
	for _, layout := range []string{time.RFC3339, "2006-01-02T15:04:05.999999999", "2006-01-02 15:04:05Z07:00"} {
		if at, err := time.Parse(layout, s); err == nil && !at.IsZero() {
			return at.UTC(), true
		}
	}
	return time.Time{}, false
}

// arrivalKind says what an inbound topic means.
type arrivalKind uint8

const (
	arrivalUnknown arrivalKind = iota // a topic that nobody asked for, or a malformed one
	arrivalMessage
	arrivalMethod
	arrivalDesired
	arrivalReply
	arrivalRegistration
)

// arrival is what a PUBLISH from the hub says.
type arrival struct {
	kind    arrivalKind
	inbound core.Inbound // of message, method, desired; without Token
	rid     string       // of a reply, decoded
	reply   core.Reply   // of a reply; without ID
	// registration is the provisioning service's answer.
	registration registrationAnswer
}

// parse reads the topic of a PUBLISH from the hub. It never fails: what it does not understand is arrivalUnknown.
func (t topics) parse(topic string, payload []byte) arrival {
	if t.provisioning {
		return parseRegistration(topic, payload)
	}
	// A filter "x/#" matches "x" too.
	if rest, ok := strings.CutPrefix(topic+"/", t.inbound); ok {
		return t.parseMessage(strings.TrimSuffix(rest, "/"), payload)
	}
	if rest, ok := strings.CutPrefix(topic, methodPrefix); ok {
		return parseMethod(rest, payload)
	}
	if rest, ok := strings.CutPrefix(topic, twinResPrefix); ok {
		return parseReply(rest, payload)
	}
	if rest, ok := strings.CutPrefix(topic, desiredPrefix); ok {
		return parseDesired(rest, payload)
	}
	return arrival{}
}

// parseMessage reads what follows "…/devicebound/" (a bag) or "…/inputs/" (the input's name, "/", a bag).
func (t topics) parseMessage(rest string, payload []byte) arrival {
	m := &core.Message{Payload: payload}
	if t.module {
		var input string
		input, rest, _ = strings.Cut(rest, "/")
		if input == "" {
			return arrival{}
		}
		m.Input = unescape(input)
	}
	decodeBag(rest, m)
	return arrival{kind: arrivalMessage, inbound: core.Inbound{Kind: core.InboundMessage, Message: m}}
}

// parseMethod reads what follows "$iothub/methods/POST/": "{name}/?$rid={request id}".
func parseMethod(rest string, payload []byte) arrival {
	path, query, ok := cutQuery(rest)
	rid, hasRID := query["$rid"]
	if !ok || !hasRID || path == "" {
		return arrival{}
	}
	return arrival{kind: arrivalMethod, inbound: core.Inbound{
		Kind: core.InboundMethod, Method: unescape(path), RequestID: rid, Payload: payload,
	}}
}

// parseReply reads what follows "$iothub/twin/res/": "{status}/?$rid={request id}[&$version={n}]".
func parseReply(rest string, payload []byte) arrival {
	path, query, ok := cutQuery(rest)
	status, err := strconv.Atoi(path)
	rid, hasRID := query["$rid"]
	if !ok || !hasRID || err != nil || status < 0 {
		return arrival{}
	}
	version, _ := parseVersion(query["$version"])
	return arrival{kind: arrivalReply, rid: rid, reply: core.Reply{Status: status, Version: version, Payload: payload}}
}

// parseDesired reads what follows "$iothub/twin/PATCH/properties/desired/": "?$version={n}". The number stands in the
// payload as well.
func parseDesired(rest string, payload []byte) arrival {
	path, query, _ := cutQuery("/" + rest)
	if path != "" {
		return arrival{}
	}
	version, ok := parseVersion(query["$version"])
	if !ok {
		var body struct {
			Version int64 `json:"$version"`
		}
		if json.Unmarshal(payload, &body) != nil || body.Version <= 0 {
			return arrival{}
		}
		version = body.Version
	}
	return arrival{kind: arrivalDesired, inbound: core.Inbound{Kind: core.InboundDesired, Version: version, Payload: payload}}
}

func parseVersion(s string) (int64, bool) {
	n, err := strconv.ParseInt(s, 10, 64)
	return n, err == nil && n >= 0 && n < math.MaxInt64
}

// cutQuery takes "path/?k=v&k=v" apart; names and values are decoded, the path is not.
func cutQuery(s string) (path string, query map[string]string, ok bool) {
	i := strings.LastIndex(s, "/?")
	if i < 0 {
		return strings.TrimSuffix(s, "/"), nil, false
	}
	query = make(map[string]string, 2)
	for pair := range strings.SplitSeq(s[i+2:], "&") {
		name, value, _ := strings.Cut(pair, "=")
		query[unescape(name)] = unescape(value)
	}
	return s[:i], query, true
}

// methodResponseTopic returns the topic of an answer to a method call.
func methodResponseTopic(r core.MethodResponse) string {
	return methodResponse + strconv.Itoa(r.Status) + "/?$rid=" + escape(r.RequestID)
}
