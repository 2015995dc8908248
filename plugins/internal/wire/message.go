package wire

import (
	"log/slog"
	"math"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/fairlead-iot/fairlead/core"
	"github.com/fairlead-iot/fairlead/plugins/pluginv1"
)

// FromMessage gives the frame's form of m. It shares m's payload and properties.
func FromMessage(m *core.Message) *pluginv1.Message {
	return &pluginv1.Message{
		Id:              m.ID,
		CorrelationId:   m.CorrelationID,
		UserId:          m.UserID,
		ContentType:     m.ContentType,
		ContentEncoding: m.ContentEncoding,
		ExpiryUnixMs:    fromTime(m.Expiry),
		CreationUnixMs:  fromTime(m.CreationTime),
		InterfaceId:     m.InterfaceID,
		Component:       m.Component,
		Output:          m.Output,
		Input:           m.Input,
		To:              m.To,
		Ack:             m.Ack,
		Properties:      m.Properties,
		Payload:         m.Payload,
	}
}

// ToMessage is the reverse of FromMessage; the result shares p's payload and properties.
func ToMessage(p *pluginv1.Message) *core.Message {
	return &core.Message{
		ID:              p.GetId(),
		CorrelationID:   p.GetCorrelationId(),
		UserID:          p.GetUserId(),
		ContentType:     p.GetContentType(),
		ContentEncoding: p.GetContentEncoding(),
		Expiry:          toTime(p.ExpiryUnixMs),
		CreationTime:    toTime(p.CreationUnixMs),
		InterfaceID:     p.GetInterfaceId(),
		Component:       p.GetComponent(),
		Output:          p.GetOutput(),
		Input:           p.GetInput(),
		To:              p.GetTo(),
		Ack:             p.GetAck(),
		Properties:      p.GetProperties(),
		Payload:         p.GetPayload(),
	}
}

func fromTime(t time.Time) *int64 {
	if t.IsZero() {
		return nil
	}
	ms := t.UnixMilli()
	return &ms
}

func toTime(ms *int64) time.Time {
	if ms == nil {
		return time.Time{}
	}
	return time.UnixMilli(*ms).UTC()
}

// FromDesired gives the frame's form of d.
func FromDesired(d *core.Desired) *pluginv1.Desired {
	return &pluginv1.Desired{Version: d.Version, Document: d.Document, Patch: d.Patch}
}

// ToDesired is the reverse of FromDesired.
func ToDesired(p *pluginv1.Desired) *core.Desired {
	return &core.Desired{Version: p.GetVersion(), Document: p.Document, Patch: p.Patch}
}

// FromVerdict gives the frame's form of v.
func FromVerdict(v core.Verdict) pluginv1.Verdict {
	switch v {
	case core.Reject:
		return pluginv1.Verdict_VERDICT_REJECT
	case core.Abandon:
		return pluginv1.Verdict_VERDICT_ABANDON
	case core.Complete:
	}
	return pluginv1.Verdict_VERDICT_COMPLETE
}

// ToVerdict is the reverse of FromVerdict. What is unknown, as from a later SDK, counts as complete: anything else would
// hand the message out again and again.
func ToVerdict(p pluginv1.Verdict) core.Verdict {
	switch p {
	case pluginv1.Verdict_VERDICT_REJECT:
		return core.Reject
	case pluginv1.Verdict_VERDICT_ABANDON:
		return core.Abandon
	case pluginv1.Verdict_VERDICT_UNSPECIFIED, pluginv1.Verdict_VERDICT_COMPLETE:
	}
	return core.Complete
}

// FromIdentity gives the frame's form of id.
func FromIdentity(id core.Identity) *pluginv1.Identity {
	return &pluginv1.Identity{Hostname: id.Hostname, DeviceId: id.DeviceID, ModuleId: id.ModuleID, Gateway: id.Gateway}
}

// ToIdentity is the reverse of FromIdentity.
func ToIdentity(p *pluginv1.Identity) core.Identity {
	return core.Identity{Hostname: p.GetHostname(), DeviceID: p.GetDeviceId(), ModuleID: p.GetModuleId(), Gateway: p.GetGateway()}
}

// FromConnection gives the frame's form of c.
func FromConnection(c core.Connection) *pluginv1.ConnectionState {
	p := &pluginv1.ConnectionState{
		State:         pluginv1.ConnectionState_State(c.State) + pluginv1.ConnectionState_STATE_DISCONNECTED,
		SinceMs:       FromDuration(c.Since),
		Reason:        Text(c.Reason),
		NextAttemptMs: FromDuration(c.NextAttempt),
		Epoch:         uint64(c.Epoch),
		Route:         Text(c.Route),
	}
	for _, cause := range c.Causes {
		p.Causes = append(p.Causes, &pluginv1.ConnectionCause{
			Route: Text(cause.Route), Kind: cause.Kind.String(), Phase: Text(cause.Phase), Reason: Text(cause.Reason), Count: uint32(max(0, min(cause.Count, math.MaxInt32))),
		})
	}
	return p
}

// ToConnection is the reverse of FromConnection. An unknown state counts as disconnected.
func ToConnection(p *pluginv1.ConnectionState) core.Connection {
	c := core.Connection{
		Since:       ToDuration(p.GetSinceMs()),
		Reason:      p.GetReason(),
		NextAttempt: ToDuration(p.GetNextAttemptMs()),
		Epoch:       core.Epoch(p.GetEpoch()),
		Route:       p.GetRoute(),
	}
	for _, cause := range p.GetCauses() {
		c.Causes = append(c.Causes, core.ConnectionCause{
			Route: cause.GetRoute(), Kind: toKind(cause.GetKind()), Phase: cause.GetPhase(), Reason: cause.GetReason(), Count: int(cause.GetCount()),
		})
	}
	if s := p.GetState() - pluginv1.ConnectionState_STATE_DISCONNECTED; s >= 0 && s <= pluginv1.ConnectionState_State(core.StateStopped) {
		c.State = core.State(s)
	}
	return c
}

// toKind reads a kind's name. An unknown one counts as transient.
func toKind(name string) core.Kind {
	for k := core.Transient; k <= core.TakenOver; k++ {
		if k.String() == name {
			return k
		}
	}
	return core.Transient
}

// FromDuration gives d in milliseconds, rounded up, so that a limit never becomes "without a limit".
func FromDuration(d time.Duration) uint64 {
	if d <= 0 {
		return 0
	}
	return uint64((d + time.Millisecond - 1) / time.Millisecond)
}

// ToDuration is the reverse of FromDuration; what does not fit is the longest duration.
func ToDuration(ms uint64) time.Duration {
	const longest = time.Duration(1<<63 - 1)
	if ms > uint64(longest/time.Millisecond) {
		return longest
	}
	return time.Duration(ms) * time.Millisecond
}

// Readable makes the strings of a message from the hub fit for a frame: one that is not UTF-8 would end the stream. It
// returns m, changed where that was needed.
func Readable(m *pluginv1.Message) *pluginv1.Message {
	for _, s := range []*string{
		&m.Id, &m.CorrelationId, &m.UserId, &m.ContentType, &m.ContentEncoding, &m.InterfaceId, &m.Component, &m.Output, &m.Input, &m.To, &m.Ack,
	} {
		*s = Text(*s)
	}
	for k, v := range m.GetProperties() {
		if utf8.ValidString(k) && utf8.ValidString(v) {
			continue
		}
		// The map is shared with the message that it came from.
		clean := make(map[string]string, len(m.GetProperties()))
		for k, v := range m.GetProperties() {
			clean[Text(k)] = Text(v)
		}
		m.Properties = clean
		break
	}
	return m
}

// FromLevel gives the frame's form of l.
func FromLevel(l slog.Level) pluginv1.Log_Level {
	switch {
	case l >= slog.LevelError:
		return pluginv1.Log_LEVEL_ERROR
	case l >= slog.LevelWarn:
		return pluginv1.Log_LEVEL_WARN
	case l >= slog.LevelInfo:
		return pluginv1.Log_LEVEL_INFO
	}
	return pluginv1.Log_LEVEL_DEBUG
}

// ToLevel is the reverse of FromLevel; an unknown level counts as info.
func ToLevel(p pluginv1.Log_Level) slog.Level {
	switch p {
	case pluginv1.Log_LEVEL_DEBUG:
		return slog.LevelDebug
	case pluginv1.Log_LEVEL_WARN:
		return slog.LevelWarn
	case pluginv1.Log_LEVEL_ERROR:
		return slog.LevelError
	case pluginv1.Log_LEVEL_UNSPECIFIED, pluginv1.Log_LEVEL_INFO:
	}
	return slog.LevelInfo
}

// Text makes s fit for a frame's string, which must be UTF-8: anything else would end the stream.
func Text(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }
