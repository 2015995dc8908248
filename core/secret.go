package core

import (
	"fmt"
	"io"
)

// Secret is text that must never be shown: keys, tokens, passwords. Every way of printing or marshalling it gives
// "[redacted]"; Reveal gives the text, and is called only where the text goes out on the wire. It must not be the key of
// a map: encoding/json writes the keys of string types as they are.
type Secret string

const redacted = "[redacted]"

// Reveal returns the text itself.
func (s Secret) Reveal() string { return string(s) }

// String hides the text.
func (s Secret) String() string { return redacted }

// GoString hides the text from %#v.
func (s Secret) GoString() string { return redacted }

// Format hides the text from every verb, %x and %q included.
func (s Secret) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, redacted) }

// MarshalText hides the text from JSON, YAML, TOML and slog.
func (s Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }
