package iot

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"

	"github.com/fairlead-iot/fairlead/hub/api"
	"github.com/fairlead-iot/fairlead/hub/internal/msglog"
)

// timeForm is how IoT Hub writes a time, in UTC.
const timeForm = "2006-01-02T15:04:05.0000000Z"

// systemNames are the system properties of a device's property bag and their
// names at the Event Hubs endpoint.
// https://learn.microsoft.com/azure/iot-hub/iot-hub-devguide-messages-construct
func systemName(key string) (string, bool) {
	switch key {
	case "$.mid":
		return "message-id", true
	case "$.cid":
		return "correlation-id", true
	case "$.uid":
		return "user-id", true
	case "$.to":
		return "to", true
	case "$.ct":
		return "content-type", true
	case "$.ce":
		return "content-encoding", true
	case "$.exp":
		return "absolute-expiry-time", true
	case "$.ifid":
		return "iothub-interface-id", true
	case "$.sub":
		return "dt-subject", true
	case "$.on":
		return "iothub-outputname", true
	case "$.cdid":
		return "iothub-connection-device-id", true
	case "$.cmid":
		return "iothub-connection-module-id", true
	case "$.ctime":
		return "iothub-creation-time-utc", true
	}
	return "", false
}

// Bag is a decoded property bag.
type Bag struct {
	System     map[string]string
	Properties map[string]string
	size       int // of system values, application names and values
}

// ParseBag decodes "k=v&k2=v2". Keys and values are percent-encoded; a plus sign
// is literal. A leading "?" and a trailing "/" are tolerated, since clients write
// them. A key without "=" has an empty value.
func ParseBag(text string) (Bag, error) {
	b := Bag{System: map[string]string{}, Properties: map[string]string{}}
	text = strings.TrimSuffix(strings.TrimPrefix(text, "?"), "/")
	if text == "" {
		return b, nil
	}
	for part := range strings.SplitSeq(text, "&") {
		rawKey, rawValue, _ := strings.Cut(part, "=")
		key, err := url.PathUnescape(rawKey)
		if err != nil {
			return Bag{}, fmt.Errorf("decode property name: %w", err)
		}
		value, err := url.PathUnescape(rawValue)
		if err != nil {
			return Bag{}, fmt.Errorf("decode property %q: %w", key, err)
		}
		if name, ok := systemName(key); ok {
			b.System[name] = value
			b.size += len(value)
			continue
		}
		if part != "" {
			b.Properties[key] = value
			b.size += len(key) + len(value)
		}
	}
	if len(b.System["message-id"]) > maxMessageID {
		return Bag{}, fmt.Errorf("message id longer than %d characters", maxMessageID)
	}
	return b, nil
}

// CheckMessage holds the rules for one device-to-cloud message: a bag that can
// be decoded, and MaxMessage. Errors are *api.Error; the hub answers them by
// closing the connection.
func CheckMessage(bag, body []byte) error {
	if len(bag) == 0 {
		if len(body) > MaxMessage {
			return api.Refuse(api.CodeMessageTooLarge, "the message has %d bytes, at most %d", len(body), MaxMessage)
		}
		return nil
	}
	if len(bag)+len(body) < MaxMessage && plainBag(bag) {
		return nil
	}
	b, err := ParseBag(string(bag))
	if err != nil {
		return api.Refuse(api.CodeArgumentInvalid, "property bag: %v", err)
	}
	if size := b.size + len(body); size > MaxMessage {
		return api.Refuse(api.CodeMessageTooLarge, "the message has %d bytes, at most %d", size, MaxMessage)
	}
	return nil
}

// plainBag spares the decoding of a bag that can hold nothing wrong: short, and
// every percent sign followed by two hexadecimal digits.
func plainBag(bag []byte) bool {
	if len(bag) > maxMessageID {
		return false
	}
	isHex := func(c byte) bool { return c >= '0' && c <= '9' || c|0x20 >= 'a' && c|0x20 <= 'f' }
	for i, c := range bag {
		if c == '%' && (i+2 >= len(bag) || !isHex(bag[i+1]) || !isHex(bag[i+2])) {
			return false
		}
	}
	return true
}

// decodeRecord makes the message that a reader sees, with the hub's stamps.
func (s *Service) decodeRecord(r msglog.Record) (api.Message, error) {
	b, err := ParseBag(string(r.Bag))
	if err != nil {
		return api.Message{}, fmt.Errorf("message %d: %w", r.Seq, err)
	}
	stamp := func(name, value string) {
		if b.System[name] = value; value == "" {
			delete(b.System, name) // the device does not say who it is
		}
	}
	stamp("iothub-connection-device-id", r.Device)
	stamp("iothub-connection-module-id", r.Module)
	stamp("iothub-connection-auth-generation-id", r.AuthGen)
	stamp("iothub-connection-auth-method", r.AuthInfo)
	stamp("iothub-enqueuedtime", r.Time.UTC().Format(timeForm))
	stamp("iothub-message-source", sourceOf(r.Flags))
	stamp("dt-dataschema", r.Model)
	if r.Flags&msglog.Retained != 0 {
		b.Properties["mqtt-retain"] = s.cfg.Unsettled.RetainValue
	}
	if r.Flags&msglog.WillSent != 0 {
		b.Properties["iothub-MessageType"] = "Will"
	}
	return api.Message{
		Sequence: r.Seq, EnqueuedTime: r.Time.UTC(), DeviceID: r.Device, ModuleID: r.Module,
		System: b.System, Properties: b.Properties, Body: append([]byte{}, r.Body...),
	}, nil
}

// ReadMessages calls f for every message that the filter chooses, in order, and
// waits for further ones until the context ends, f returns an error, or the hub
// stops (nil). caughtUp, unless nil, is called before it waits.
func (s *Service) ReadMessages(ctx context.Context, filter api.MessageFilter, f func(api.Message) error, caughtUp func() error) error {
	reader := s.msgs.Read(filter.From, filter.Since)
	defer reader.Close()
	for {
		r, ok, err := reader.TryNext()
		if err == nil && !ok {
			if caughtUp != nil {
				if err := caughtUp(); err != nil {
					return err
				}
			}
			r, err = reader.Next(ctx)
		}
		if errors.Is(err, msglog.ErrClosed) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := s.give(r, filter, f); err != nil {
			return err
		}
		if ctx.Err() != nil {
			return fmt.Errorf("read messages: %w", ctx.Err())
		}
	}
}

// Messages returns what the filter chooses of the messages that are there now.
func (s *Service) Messages(filter api.MessageFilter) ([]api.Message, error) {
	reader := s.msgs.Read(filter.From, filter.Since)
	defer reader.Close()
	var all []api.Message
	for {
		r, ok, err := reader.TryNext()
		if errors.Is(err, msglog.ErrClosed) || err == nil && !ok {
			return all, nil
		}
		if err != nil {
			return nil, err
		}
		if err := s.give(r, filter, func(m api.Message) error {
			all = append(all, m)
			return nil
		}); err != nil {
			return nil, err
		}
	}
}

func (s *Service) give(r msglog.Record, filter api.MessageFilter, f func(api.Message) error) error {
	if source := cmp.Or(filter.Source, api.SourceTelemetry); source != api.SourceAll && source != sourceOf(r.Flags) {
		return nil
	}
	if filter.Device != "" && filter.Device != r.Device || filter.Module != "" && filter.Module != r.Module {
		return nil
	}
	m, err := s.decodeRecord(r)
	if err != nil {
		return err
	}
	return f(m)
}

// NextSequence is the number that the next message will get.
func (s *Service) NextSequence() int64 { return s.msgs.Next() }
