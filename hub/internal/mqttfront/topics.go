package mqttfront

import (
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/fairlead-iot/fairlead/hub/api"
	"github.com/fairlead-iot/fairlead/hub/internal/iot"
)

// Topics of https://learn.microsoft.com/azure/iot/iot-mqtt-connect-to-iot-hub.
const (
	methodFilter      = "$iothub/methods/POST/#"
	twinFilter        = "$iothub/twin/res/#"
	desiredFilter     = "$iothub/twin/PATCH/properties/desired/#"
	twinGetTopic      = "$iothub/twin/GET/"
	reportedTopic     = "$iothub/twin/PATCH/properties/reported/"
	methodAnswerTopic = "$iothub/methods/res/"
)

// eventsTopic is where an identity publishes telemetry, without the bag.
func eventsTopic(id api.ID) string {
	if id.Module != "" {
		return "devices/" + id.Device + "/modules/" + id.Module + "/messages/events"
	}
	return "devices/" + id.Device + "/messages/events"
}

// featureOf says what a topic filter of the identity means; false for one that
// the hub does not know. There are at most five for any identity, so the hub's
// limit of five subscriptions holds by itself.
func featureOf(id api.ID, filter string) (iot.Feature, bool) {
	switch filter {
	case methodFilter:
		return iot.FeatureMethods, true
	case twinFilter:
		return iot.FeatureTwinResponses, true
	case desiredFilter:
		return iot.FeatureDesired, true
	}
	if id.Module == "" {
		return iot.FeatureC2D, filter == "devices/"+id.Device+"/messages/devicebound/#"
	}
	rest, ok := strings.CutPrefix(filter, "devices/"+id.Device+"/modules/"+id.Module+"/")
	return iot.FeatureInputs, ok && (rest == "#" || rest == "inputs/#")
}

// maxRID bounds a request id (ours), since the answer's topic repeats it.
const maxRID = 1 << 10

// parseRequest reads "?$rid=R&$version=V" after a twin topic. The request id is
// given as it stands there, to be repeated.
func parseRequest(rest string) (rid string, version int64, err error) {
	query, ok := strings.CutPrefix(rest, "?")
	if !ok {
		return "", 0, fmt.Errorf("topic ends with %q, not with ?$rid=", rest)
	}
	for part := range strings.SplitSeq(query, "&") {
		key, value, _ := strings.Cut(part, "=")
		switch key {
		case "$rid", "%24rid":
			rid = value
		case "$version", "%24version":
			if version, err = strconv.ParseInt(value, 10, 64); err != nil {
				return "", 0, fmt.Errorf("decode $version: %w", err)
			}
		}
	}
	if rid == "" || len(rid) > maxRID {
		return "", 0, fmt.Errorf("$rid missing or longer than %d bytes", maxRID)
	}
	return rid, version, nil
}

// parseAnswer reads "{status}/?$rid=R" after the method answer topic.
func parseAnswer(rest string) (status int, rid string, err error) {
	text, query, ok := strings.Cut(rest, "/")
	if !ok {
		return 0, "", fmt.Errorf("no status in %q", rest)
	}
	if text, err = url.PathUnescape(text); err != nil {
		return 0, "", fmt.Errorf("decode status: %w", err)
	}
	if status, err = strconv.Atoi(text); err != nil {
		return 0, "", fmt.Errorf("decode status: %w", err)
	}
	if rid, _, err = parseRequest(query); err != nil {
		return 0, "", err
	}
	if rid, err = url.PathUnescape(rid); err != nil {
		return 0, "", fmt.Errorf("decode $rid: %w", err)
	}
	return status, rid, nil
}

// methodTopic is where a direct method call goes.
func methodTopic(rid, name string) string {
	return "$iothub/methods/POST/" + url.PathEscape(name) + "/?$rid=" + rid
}

// twinAnswerTopic is where the answer to a twin request goes; version 0 is left
// out.
func twinAnswerTopic(status int, rid string, version int64) string {
	topic := "$iothub/twin/res/" + strconv.Itoa(status) + "/?$rid=" + rid
	if version != 0 {
		topic += "&$version=" + strconv.FormatInt(version, 10)
	}
	return topic
}

// escape percent-encodes all but unreserved characters. Both official clients
// split the topic at every "/".
func escape(text string) string { return strings.ReplaceAll(url.QueryEscape(text), "+", "%20") }

// deviceboundTopic is where a cloud-to-device message goes, with its bag: null is
// "key", empty "key=".
func deviceboundTopic(d *iot.Delivery) string {
	m := d.Message
	var b strings.Builder
	b.WriteString("devices/" + d.Device + "/messages/devicebound/")
	b.WriteString("%24.to=" + escape("/devices/"+d.Device+"/messages/devicebound"))
	system := func(key, value string) {
		if value != "" {
			b.WriteString("&%24." + key + "=" + escape(value))
		}
	}
	system("mid", m.MessageID)
	system("cid", m.CorrelationID)
	system("uid", m.UserID)
	system("ct", m.ContentType)
	system("ce", m.ContentEncoding)
	if !m.Expiry.IsZero() {
		system("exp", m.Expiry.UTC().Format("2006-01-02T15:04:05.0000000Z"))
	}
	if m.Ack != "" && m.Ack != "none" {
		b.WriteString("&iothub-ack=" + escape(m.Ack))
	}
	keys := make([]string, 0, len(m.Properties))
	for key := range m.Properties {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	for _, key := range keys {
		b.WriteString("&" + escape(key))
		if value := m.Properties[key]; value != nil {
			b.WriteString("=" + escape(*value))
		}
	}
	return b.String()
}

// user is a decoded MQTT user name.
type user struct {
	host  string
	model string // model-id, a device twin model identifier
}

// parseUser reads "{host}/{clientId}/?api-version=…", leniently: documentation
// has examples without the slash before "?", and without a query.
func parseUser(name, clientID string) (user, error) {
	host, rest, ok := strings.Cut(name, "/")
	if !ok {
		return user{}, fmt.Errorf("the user name is not {host}/{client id}/?api-version=…")
	}
	path, query, _ := strings.Cut(rest, "?")
	if path = strings.TrimSuffix(path, "/"); path != clientID && !strings.HasPrefix(path, clientID+"/api-version=") {
		return user{}, fmt.Errorf("the user name is for %q, the client id is %q", path, clientID)
	}
	if i := strings.LastIndexByte(host, ':'); i > 0 && !strings.HasSuffix(host, "]") {
		host = host[:i]
	}
	u := user{host: strings.Trim(host, "[]")}
	for part := range strings.SplitSeq(query, "&") {
		if value, ok := strings.CutPrefix(part, "model-id="); ok {
			model, err := url.PathUnescape(value)
			if err != nil {
				return user{}, fmt.Errorf("decode model-id: %w", err)
			}
			u.model = model
		}
	}
	return u, nil
}
