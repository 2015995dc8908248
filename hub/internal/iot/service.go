package iot

import (
	"cmp"
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	mathrand "math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/fairlead-iot/fairlead/hub/api"
	"github.com/fairlead-iot/fairlead/hub/internal/journal"
	"github.com/fairlead-iot/fairlead/hub/internal/msglog"
)

// Config of a Service.
type Config struct {
	Dir       string        // "" keeps everything in memory
	Hostnames []string      // the names that the hub answers to, its own first
	Grace     time.Duration // how long a token is good after its end
	Messages  msglog.Limits
	// UploadLife is how long the address of a file upload is good, default an hour.
	UploadLife time.Duration
	Unsettled  Unsettled
	Events     []string // of api.EventSources: those that go into the message log
	Logger     *slog.Logger
}

// Unsettled is the part of hub.Unsettled, which explains it, that concerns the
// hub's rules. The zero value is the likeliest answer to each question.
type Unsettled struct {
	RetainValue     string
	MethodsInFlight int
	C2DNeedsSession bool
	ReportedETag    bool
	RefuseReported  bool
}

// Service is the hub without its fronts.
type Service struct {
	cfg     Config
	log     *slog.Logger
	journal *journal.Journal
	msgs    *msglog.Log
	done    chan struct{} // closed by Close

	mu          sync.Mutex
	closed      bool
	identities  map[api.ID]*identity
	policies    map[string]*policy
	authorities map[string]*authority
	etag        uint64 // last used
	calls       map[string]*call
	nextCall    uint64
	faults      []*fault
	nextFault   int
	storage     Storage
	notes       notifications

	feedback     []*feedback // oldest first
	nextFeedback int64

	connectionEvents uint64
	observers        []*observer

	faulty atomic.Bool // whether there is any fault: the telemetry path asks only this
}

// identity is everything about one device or module. Guarded by Service.mu.
type identity struct {
	id         api.ID
	device     api.Device
	twin       twin
	session    *storedSession // of CleanSession=0; nil when there is none
	live       *Session       // nil when not connected
	queue      []*c2d         // oldest first
	nextC2D    int64
	dead       []api.DeadLetter
	counters   api.Counters
	changed    chan struct{} // closed when live or its features change
	sweepTimer *time.Timer   // for the queue's next deadline
	injected   []string      // message ids whose ordered faults were applied
	expired    []string      // tokens that a fault has ended, by their digests
	uploads    []*upload     // oldest first
}

// identityRecord, twin, storedSession, c2d, upload and fileNote are the values in
// the journal, at identity/ID, twin/ID, session/ID, c2d/DEVICE/NUMBER,
// upload/CORRELATION and filenote/NUMBER; policy, authority and feedback those at
// policy/NAME, ca/NAME and feedback/NUMBER.
type identityRecord struct {
	Device api.Device `json:"device"`
}

// Open reads the state in cfg.Dir, or begins with an empty hub.
func Open(cfg Config) (*Service, error) {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	cfg.Unsettled.RetainValue = cmp.Or(cfg.Unsettled.RetainValue, "true")
	cfg.Unsettled.MethodsInFlight = cmp.Or(cfg.Unsettled.MethodsInFlight, maxCalls)
	s := &Service{
		cfg: cfg, log: cfg.Logger, done: make(chan struct{}),
		identities: map[api.ID]*identity{}, policies: map[string]*policy{}, authorities: map[string]*authority{}, calls: map[string]*call{},
		// A device may answer a call of the process before this one.
		nextCall: uint64(mathrand.Uint32()) << 20, //nolint:gosec // apart, not secret
	}
	s.cfg.UploadLife = cmp.Or(cfg.UploadLife, defaultUploadLife)
	s.notes.changed = make(chan struct{})
	var err error
	if s.journal, err = journal.Open(cfg.Dir); err != nil {
		return nil, err
	}
	if err := s.load(); err != nil {
		return nil, errors.Join(err, s.journal.Close())
	}
	if s.msgs, err = msglog.Open(cfg.Dir, cfg.Messages); err != nil {
		return nil, errors.Join(err, s.journal.Close())
	}
	return s, nil
}

func (s *Service) load() error {
	each := func(prefix string, f func(rest string, value json.RawMessage) error) error {
		return s.journal.Each(prefix, func(key string, value json.RawMessage) error {
			return f(strings.TrimPrefix(key, prefix), value)
		})
	}
	err := each("identity/", func(rest string, value json.RawMessage) error {
		var r identityRecord
		if err := json.Unmarshal(value, &r); err != nil {
			return err
		}
		ident := newIdentity(api.ParseID(rest))
		ident.device = r.Device
		ident.device.ConnectionState = api.Disconnected
		s.identities[ident.id] = ident
		s.sawETag(r.Device.ETag)
		return nil
	})
	if err != nil {
		return err
	}
	if err := each("twin/", func(rest string, value json.RawMessage) error {
		ident, ok := s.identities[api.ParseID(rest)]
		if !ok {
			return nil
		}
		if err := unmarshalNumbers(value, &ident.twin); err != nil {
			return err
		}
		s.sawETag(ident.twin.ETag)
		return nil
	}); err != nil {
		return err
	}
	if err := each("session/", func(rest string, value json.RawMessage) error {
		ident, ok := s.identities[api.ParseID(rest)]
		if !ok {
			return nil
		}
		ident.session = &storedSession{}
		return json.Unmarshal(value, ident.session)
	}); err != nil {
		return err
	}
	if err := each("c2d/", func(rest string, value json.RawMessage) error {
		device, _, _ := strings.Cut(rest, "/")
		ident, ok := s.identities[api.ID{Device: device}]
		if !ok {
			return nil
		}
		m := &c2d{}
		if err := json.Unmarshal(value, m); err != nil {
			return err
		}
		if latest := time.Now().UTC().Add(c2dLock); m.Locked.After(latest) { // the clock was ahead when it was written
			m.Locked = latest
		}
		ident.queue = append(ident.queue, m)
		ident.nextC2D = max(ident.nextC2D, m.Number)
		return nil
	}); err != nil {
		return err
	}
	if err := each("upload/", s.loadUpload); err != nil {
		return err
	}
	if err := each("filenote/", s.loadFileNote); err != nil {
		return err
	}
	if err := s.loadPolicies(); err != nil {
		return err
	}
	if err := s.loadAuthorities(); err != nil {
		return err
	}
	if err := s.loadFeedback(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, ident := range s.identities {
		s.sweep(ident)
	}
	return nil
}

func newIdentity(id api.ID) *identity {
	return &identity{id: id, twin: newTwin(), changed: make(chan struct{})}
}

// signal wakes whoever waits for a change of the identity's session.
func (i *identity) signal() {
	close(i.changed)
	i.changed = make(chan struct{})
}

// Close ends every session and closes the files.
func (s *Service) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	close(s.done)
	for _, ident := range s.identities {
		if ident.live != nil {
			ident.live.link.Drop("the hub stops")
		}
		if ident.sweepTimer != nil {
			ident.sweepTimer.Stop()
		}
	}
	for _, f := range s.faults {
		f.stop()
	}
	s.mu.Unlock()
	return errors.Join(s.msgs.Close(), s.journal.Close())
}

// Done is closed when the hub stops.
func (s *Service) Done() <-chan struct{} { return s.done }

// put writes one value to the journal. A failure is the hub's own trouble: a
// 500001 for whoever asked.
func (s *Service) put(key string, value any) error {
	if err := s.journal.Put(key, value); err != nil {
		return fmt.Errorf("keep %s: %w", key, err)
	}
	return nil
}

func (s *Service) putIdentity(ident *identity) error {
	return s.put("identity/"+ident.id.String(), identityRecord{ident.device})
}

func (s *Service) putTwin(ident *identity) error {
	return s.put("twin/"+ident.id.String(), ident.twin)
}

// newETag returns the next entity tag, base64 of a counter as IoT Hub's are.
func (s *Service) newETag() string {
	s.etag++
	return base64.StdEncoding.EncodeToString(binary.BigEndian.AppendUint64(nil, s.etag))
}

func (s *Service) sawETag(text string) {
	if raw, err := base64.StdEncoding.DecodeString(text); err == nil && len(raw) == 8 {
		s.etag = max(s.etag, binary.BigEndian.Uint64(raw))
	}
}

// find returns the identity or the error that IoT Hub gives.
func (s *Service) find(id api.ID) (*identity, error) {
	if ident, ok := s.identities[id]; ok {
		return ident, nil
	}
	return nil, notFound(id)
}

func notFound(id api.ID) error {
	if id.Module != "" {
		return api.Refuse(api.CodeModuleNotFound, "Module %s on device %s not registered.", id.Module, id.Device)
	}
	return api.Refuse(api.CodeDeviceNotFound, "%s", id.Device)
}

// Hostname returns the hub's own name.
func (s *Service) Hostname() string { return s.cfg.Hostnames[0] }

// AnswersTo reports whether the hub has the name.
func (s *Service) AnswersTo(host string) bool {
	return slices.ContainsFunc(s.cfg.Hostnames, func(name string) bool { return strings.EqualFold(name, host) })
}

// Grace returns how long a token is good after its end.
func (s *Service) Grace() time.Duration { return s.cfg.Grace }

// Counters returns what the hub saw of the identity since it started.
func (s *Service) Counters(id api.ID) (api.Counters, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	ident, err := s.find(id)
	if err != nil {
		return api.Counters{}, err
	}
	return ident.counters, nil
}

// AllCounters returns the counters of every identity by its name.
func (s *Service) AllCounters() map[string]api.Counters {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make(map[string]api.Counters, len(s.identities))
	for id, ident := range s.identities {
		all[id.String()] = ident.counters
	}
	return all
}

func randomKey() string {
	key := make([]byte, 32)
	_, _ = rand.Read(key) // never fails, by its contract
	return base64.StdEncoding.EncodeToString(key)
}
