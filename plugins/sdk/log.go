package sdk

import (
	"context"
	"log/slog"
	"maps"

	"github.com/fairlead-iot/fairlead/plugins/internal/wire"
	"github.com/fairlead-iot/fairlead/plugins/pluginv1"
)

// logHandler is a slog.Handler that sends the records to the host, which writes them under the plugin's name.
type logHandler struct {
	out    *writer
	level  slog.Level
	attrs  map[string]string // with their whole names
	prefix string            // of the open groups: "a.b."
}

func (h *logHandler) Enabled(_ context.Context, l slog.Level) bool { return l >= h.level }

func (h *logHandler) Handle(_ context.Context, r slog.Record) error {
	attrs := make(map[string]string, len(h.attrs)+r.NumAttrs())
	maps.Copy(attrs, h.attrs)
	r.Attrs(func(a slog.Attr) bool {
		flatten(attrs, h.prefix, a)
		return true
	})
	h.out.offer(logFrame(wire.FromLevel(r.Level), r.Message, attrs))
	return nil
}

func (h *logHandler) WithAttrs(as []slog.Attr) slog.Handler {
	n := *h
	n.attrs = maps.Clone(h.attrs)
	if n.attrs == nil {
		n.attrs = make(map[string]string, len(as))
	}
	for _, a := range as {
		flatten(n.attrs, h.prefix, a)
	}
	return &n
}

func (h *logHandler) WithGroup(name string) slog.Handler {
	if name == "" {
		return h
	}
	n := *h
	n.prefix += name + "."
	return &n
}

// flatten puts an attribute into m as text; a group's members get its name before theirs.
func flatten(m map[string]string, prefix string, a slog.Attr) {
	v := a.Value.Resolve()
	if v.Kind() != slog.KindGroup {
		if a.Key != "" {
			m[valid(prefix+a.Key)] = valid(v.String())
		}
		return
	}
	if a.Key != "" {
		prefix += a.Key + "."
	}
	for _, member := range v.Group() {
		flatten(m, prefix, member)
	}
}

func logFrame(l pluginv1.Log_Level, text string, attrs map[string]string) *pluginv1.SessionResponse {
	return &pluginv1.SessionResponse{Frame: &pluginv1.SessionResponse_Log{
		Log: &pluginv1.Log{Level: l, Message: valid(text), Attributes: attrs},
	}}
}

// valid makes s fit for a frame.
func valid(s string) string { return wire.Text(s) }
