package sdk

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// Duration is a time.Duration that settings and desired properties write as text: "250ms", "60s", "1h30m".
type Duration time.Duration

// D returns d as a time.Duration.
func (d Duration) D() time.Duration { return time.Duration(d) }

// String returns d as text.
func (d Duration) String() string { return time.Duration(d).String() }

// MarshalText gives d as text.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText reads d from text.
func (d *Duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	if err != nil {
		return fmt.Errorf("%q is no duration such as 250ms, 60s, 1h30m", text)
	}
	*d = Duration(v)
	return nil
}

// decodeSettings decodes one JSON object strictly into v, and validates it.
func decodeSettings(settings json.RawMessage, v any) error {
	if len(bytes.TrimSpace(settings)) > 0 {
		dec := json.NewDecoder(bytes.NewReader(settings))
		dec.DisallowUnknownFields()
		if err := dec.Decode(v); err != nil {
			if t, ok := errors.AsType[*json.UnmarshalTypeError](err); ok && t.Field != "" {
				return fmt.Errorf("settings: %s: a %s cannot be a %s", t.Field, t.Value, t.Type)
			}
			return fmt.Errorf("settings: %w", err)
		}
	}
	if c, ok := v.(interface{ Validate() error }); ok {
		if err := c.Validate(); err != nil {
			return fmt.Errorf("settings: %w", err)
		}
	}
	return nil
}
