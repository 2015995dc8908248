package iot

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/fairlead-iot/fairlead/hub/api"
	"github.com/fairlead-iot/fairlead/hub/internal/msglog"
)

// Events that are not telemetry, written into the message log where the
// configuration asks for them. On a real hub they need a route; so they are off
// unless told otherwise. Their forms are those of
// https://learn.microsoft.com/azure/iot-hub/iot-hub-non-telemetry-event-schema.

// sourceOf is iothub-message-source of a record.
func sourceOf(flags msglog.Flags) string {
	switch {
	case flags&msglog.TwinChange != 0:
		return api.SourceTwinChanges
	case flags&msglog.Lifecycle != 0:
		return api.SourceLifecycle
	case flags&msglog.ConnectionState != 0:
		return api.SourceConnections
	default:
		return api.SourceTelemetry
	}
}

// tells reports whether events of that kind are asked for. It comes first, so that
// nothing is made for nobody.
func (s *Service) tells(kind msglog.Flags) bool { return slices.Contains(s.cfg.Events, sourceOf(kind)) }

// emit writes one event. It is called with the lock held, after what it tells of
// was kept; that it is lost is no reason to undo that.
func (s *Service) emit(ident *identity, kind msglog.Flags, schema, operation string, body any) {
	text, err := json.Marshal(body)
	if err != nil {
		s.log.Error("encode event", "device", ident.id.String(), "err", err)
		return
	}
	now := time.Now().UTC()
	hubName, _, _ := strings.Cut(s.Hostname(), ".")
	properties := []string{
		"$.cid", TrackingID(), "$.uid", hubName, "$.ct", "application/json", "$.ce", "utf-8",
		"hubName", hubName, "deviceId", ident.id.Device, "operationTimestamp", now.Format(timeForm),
		"iothub-message-schema", schema, "opType", operation,
	}
	if ident.id.Module != "" {
		properties = append(properties, "moduleId", ident.id.Module)
	}
	var bag strings.Builder
	for i := 0; i < len(properties); i += 2 {
		if i > 0 {
			bag.WriteByte('&')
		}
		bag.WriteString(properties[i] + "=" + url.PathEscape(properties[i+1]))
	}
	record := msglog.Record{Time: now, Flags: kind, Device: ident.id.Device, Module: ident.id.Module, Bag: []byte(bag.String()), Body: text}
	if err := s.msgs.Append([]msglog.Record{record}); err != nil && !errors.Is(err, msglog.ErrClosed) { // the hub stops
		s.log.Error("keep event", "device", ident.id.String(), "err", err)
	}
}

// emitLifecycle tells that an identity was created or deleted.
func (s *Service) emitLifecycle(ident *identity, verb string) {
	if !s.tells(msglog.Lifecycle) {
		return
	}
	kind := "Device"
	if ident.id.Module != "" {
		kind = "Module"
	}
	s.emit(ident, msglog.Lifecycle, strings.ToLower(kind)+"LifecycleNotification", verb+kind+"Identity", s.viewTwin(ident))
}

// emitConnection tells that an identity connected or disconnected. The number in
// its body is "strictly increasing", and as text as well.
func (s *Service) emitConnection(ident *identity, state string) {
	if !s.tells(msglog.ConnectionState) {
		return
	}
	kind := "device"
	if ident.id.Module != "" {
		kind = "module"
	}
	s.connectionEvents++
	number := fmt.Sprintf("%032X%032X", time.Now().UnixNano(), s.connectionEvents)
	s.emit(ident, msglog.ConnectionState, "deviceConnectionStateNotification", kind+state, map[string]string{"sequenceNumber": number})
}

// emitTwinUpdate tells what of a twin a patch changed; nil is a part that it did
// not.
func (s *Service) emitTwinUpdate(ident *identity, tags, desired, reported map[string]any) {
	if !s.tells(msglog.TwinChange) {
		return
	}
	body := map[string]any{"version": ident.twin.Version}
	if tags != nil {
		body["tags"] = tags
	}
	properties := map[string]any{}
	if desired != nil {
		properties["desired"] = ident.twin.Desired.changed(desired)
	}
	if reported != nil {
		properties["reported"] = ident.twin.Reported.changed(reported)
	}
	if len(properties) > 0 {
		body["properties"] = properties
	}
	s.emit(ident, msglog.TwinChange, "twinChangeNotification", "updateTwin", body)
}

// emitTwinReplace tells what a twin is after a replacement.
func (s *Service) emitTwinReplace(ident *identity) {
	if s.tells(msglog.TwinChange) {
		s.emit(ident, msglog.TwinChange, "twinChangeNotification", "replaceTwin", s.viewTwin(ident))
	}
}

// changed is a patch with the metadata of what it touched.
func (s section) changed(patch map[string]any) map[string]any {
	out := cloneTree(patch)
	out["$metadata"] = metaOf(patch, s.Meta)
	out["$version"] = s.Version
	return out
}

// metaOf is the part of the metadata that belongs to a patch.
func metaOf(patch, meta map[string]any) map[string]any {
	out := map[string]any{}
	for key, value := range meta {
		if strings.HasPrefix(key, "$") {
			out[key] = value
			continue
		}
		child, isObject := value.(map[string]any)
		part, touched := patch[key]
		if !touched || !isObject {
			continue
		}
		below, _ := part.(map[string]any) // of a value that is none, only its own stamps
		out[key] = metaOf(below, child)
	}
	return out
}
