package dps

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/fairlead-iot/fairlead/hub/api"
	"github.com/fairlead-iot/fairlead/hub/internal/iot"
)

// Config of a Service.
type Config struct {
	// Hub is where devices are assigned to; its journal keeps the state.
	Hub *iot.Service
	// RetryAfter is what a device is told to wait between two requests, in whole
	// seconds, 0 for the 3 s of Azure.
	RetryAfter time.Duration
	Logger     *slog.Logger
}

// Service is the provisioning service.
type Service struct {
	hub   *iot.Service
	log   *slog.Logger
	retry time.Duration
	scope string // the id scope, as it is shown

	mu            sync.Mutex
	entries       [2]map[string]*Entry     // by kind and folded id
	registrations map[string]*registration // by folded registration id
}

// Keys in the journal: the id scope, then entries and registrations by their
// folded ids.
const (
	scopeKey           = "provisioning/scope"
	registrationPrefix = "registration/"
)

// registration is what is kept of a device that registered.
type registration struct {
	State api.RegistrationState `json:"state"`
	// Operations are the ids of the latest requests, the newest last.
	Operations []string `json:"operations"`
}

// Open reads the state from the hub's journal, or begins with an id scope and
// nothing else.
func Open(cfg Config) (*Service, error) {
	s := &Service{hub: cfg.Hub, log: cfg.Logger, retry: cfg.RetryAfter, registrations: map[string]*registration{}}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if s.retry <= 0 {
		s.retry = retryAfter
	}
	j := s.hub.Journal()
	if err := j.Each(scopeKey, func(_ string, value json.RawMessage) error {
		return json.Unmarshal(value, &s.scope)
	}); err != nil {
		return nil, err
	}
	if s.scope == "" {
		s.scope = newScope()
		if err := j.Put(scopeKey, s.scope); err != nil {
			return nil, err
		}
	}
	for _, kind := range []Kind{Individual, Group} {
		s.entries[kind] = map[string]*Entry{}
		if err := j.Each(kind.prefix(), func(key string, value json.RawMessage) error {
			e := &Entry{}
			s.entries[kind][strings.TrimPrefix(key, kind.prefix())] = e
			return unmarshalNumbers(value, e)
		}); err != nil {
			return nil, err
		}
	}
	err := j.Each(registrationPrefix, func(key string, value json.RawMessage) error {
		r := &registration{}
		s.registrations[strings.TrimPrefix(key, registrationPrefix)] = r
		return json.Unmarshal(value, r)
	})
	return s, err
}

// unmarshalNumbers decodes JSON and keeps the numbers of twins as they are
// written.
func unmarshalNumbers(data []byte, into any) error {
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	return d.Decode(into)
}

// newScope makes an id scope in the form of Azure's, such as 0ne00055500.
func newScope() string { return "0ne" + strings.ToUpper(randomHex(4)) }

// Scope returns the id scope, which devices have to name.
func (s *Service) Scope() string { return s.scope }

// put writes one value to the journal.
func (s *Service) put(key string, value any) error {
	if err := s.hub.Journal().Put(key, value); err != nil {
		return fmt.Errorf("keep %s: %w", key, err)
	}
	return nil
}

// fold makes equal what the service takes as equal: registration ids are
// "case-insensitive".
func fold(id string) string { return strings.ToLower(id) }

// checkID refuses what is no registration id or group id.
// https://learn.microsoft.com/azure/iot-dps/concepts-service#registration-id
func checkID(what, id string) error {
	bad := strings.ContainsFunc(id, func(r rune) bool { return !alphanumeric(r) && !strings.ContainsRune("-._:", r) })
	if id == "" || len(id) > maxID || bad || !alphanumeric(rune(id[len(id)-1])) && id[len(id)-1] != '-' {
		return api.RefuseProvisioning(api.CodeArgumentInvalid,
			"%s %.140q must be 1 to %d letters, digits and -._: with a letter, a digit or - at its end", what, id, maxID)
	}
	return nil
}

func alphanumeric(r rune) bool {
	return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9'
}

// utc is a time as the service writes it: in steps of 100 ns.
func utc(now time.Time) time.Time { return now.UTC().Truncate(100 * time.Nanosecond) }

// newETag makes an entity tag in the form of Azure's: its quotes belong to it.
func newETag() string { return `"` + newUUID() + `"` }

func newUUID() string {
	h := randomHex(16)
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
}

func randomHex(n int) string {
	raw := make([]byte, n)
	_, _ = rand.Read(raw) // never fails, by its contract
	return hex.EncodeToString(raw)
}
