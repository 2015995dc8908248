package control

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/fairlead-iot/fairlead/core"
	"github.com/fairlead-iot/fairlead/core/engine"
)

// net/http waits half a second before it closes a connection whose body it did not read.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("net/http.(*conn).closeWriteAndWait"))
}

// backend answers what it is told to.
type backend struct {
	err  error
	sent *core.Message
	// token is the last one given.
	token core.Secret
	route string
	// uploads are the states that an upload goes through, cancelled the last id that was called off.
	uploads   []Upload
	cancelled string
	seen      chan struct{} // closed when a blocking call has begun

	mu    sync.Mutex
	lines []engine.Line
	more  chan struct{}
}

func (b *backend) Status(context.Context) (Status, error) {
	return Status{Version: "v1", PID: 7, Plugins: []Plugin{{Name: "p", Methods: []string{"m"}}}}, b.err
}

func (b *backend) Trace(from uint64) ([]engine.Line, <-chan struct{}) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]engine.Line(nil), b.lines[min(int(from), len(b.lines)):]...), b.more
}

func (b *backend) add(text string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.lines = append(b.lines, engine.Line{Number: uint64(len(b.lines)), Text: text})
	close(b.more)
	b.more = make(chan struct{})
}

func (b *backend) Connect(ctx context.Context) error {
	if b.seen != nil {
		close(b.seen)
		<-ctx.Done()
		return ctx.Err()
	}
	return b.err
}
func (b *backend) Disconnect(context.Context) error { return b.err }

func (b *backend) Send(_ context.Context, m *core.Message) error {
	b.sent = m
	return b.err
}

func (b *backend) UpdateToken(_ context.Context, token core.Secret) error {
	b.token = token
	return b.err
}

func (b *backend) UseRoute(_ context.Context, name string) error {
	b.route = name
	return b.err
}

func (b *backend) Upload(_ context.Context, r NewUpload) (Upload, error) {
	return Upload{ID: "u1", Path: r.Path, Name: r.Name, State: "queued"}, b.err
}

// UploadState goes through upload's states, one at each question.
func (b *backend) UploadState(id string) (Upload, <-chan struct{}, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if id != "u1" {
		return Upload{}, nil, core.ErrInvalid
	}
	changed := make(chan struct{})
	close(changed)
	u := b.uploads[0]
	if len(b.uploads) > 1 {
		b.uploads = b.uploads[1:]
	}
	return u, changed, b.err
}

func (b *backend) CancelUpload(id string) error {
	b.cancelled = id
	return b.err
}

func (b *backend) Twin(context.Context) (json.RawMessage, error) {
	return json.RawMessage(`{"desired":{"$version":3}}`), b.err
}

func (b *backend) Report(_ context.Context, patch json.RawMessage) (int64, error) {
	return int64(len(patch)), b.err
}

// serve serves the backend in a directory of its own until the test ends.
func serve(t *testing.T, b *backend) (c *Client, dir string) {
	t.Helper()
	b.more = make(chan struct{})
	dir, err := os.MkdirTemp("", "fl") //nolint:usetesting // t.TempDir's names are too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	l, err := Listen(dir)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- Serve(ctx, l, b, slog.New(slog.DiscardHandler)) }()
	t.Cleanup(func() {
		cancel()
		if err := <-served; err != nil {
			t.Errorf("serve: %v", err)
		}
		_ = os.RemoveAll(dir)
	})
	return NewClient(filepath.Join(dir, SocketName)), dir
}

func TestEachOperationGoesThroughTheSocket(t *testing.T) {
	b := &backend{}
	c, _ := serve(t, b)
	if s, err := c.Status(t.Context()); err != nil || s.PID != 7 || s.Plugins[0].Methods[0] != "m" {
		t.Errorf("status %+v: %v", s, err)
	}
	if err := c.Connect(t.Context()); err != nil {
		t.Errorf("connect: %v", err)
	}
	if err := c.Disconnect(t.Context()); err != nil {
		t.Errorf("disconnect: %v", err)
	}
	m := &core.Message{ID: "1", Payload: []byte{0, 255}, Properties: map[string]string{"ä": " "}, Expiry: time.Unix(5, 0).UTC()}
	if err := c.Send(t.Context(), m); err != nil || fmt.Sprint(b.sent) != fmt.Sprint(m) {
		t.Errorf("sent %+v: %v", b.sent, err)
	}
	if err := c.UpdateToken(t.Context(), "SharedAccessSignature sr=x"); err != nil || b.token.Reveal() != "SharedAccessSignature sr=x" {
		t.Errorf("token %q: %v", b.token.Reveal(), err)
	}
	if err := c.UseRoute(t.Context(), "mqtt-2"); err != nil || b.route != "mqtt-2" {
		t.Errorf("route %q: %v", b.route, err)
	}
	if twin, err := c.Twin(t.Context()); err != nil || string(twin) != `{"desired":{"$version":3}}` {
		t.Errorf("twin %s: %v", twin, err)
	}
	if version, err := c.Report(t.Context(), json.RawMessage(`{"a":1}`)); err != nil || version != 7 {
		t.Errorf("report %d: %v", version, err)
	}
}

func TestAnUploadIsFollowedToItsEnd(t *testing.T) {
	states := []Upload{
		{ID: "u1", State: "queued", Size: 10},
		{ID: "u1", State: "uploading", Size: 10, Sent: 5, Rate: 2.5, Left: 2},
		{ID: "u1", State: "waiting", Size: 10, Sent: 5, Reason: "no network", NextAttempt: 1.5},
		{ID: "u1", State: "failed", Size: 10, Sent: 5, Reason: "changed"},
	}
	b := &backend{uploads: states}
	c, _ := serve(t, b)
	if u, err := c.Upload(t.Context(), NewUpload{Path: "/x y", Name: "a/ü"}); err != nil || u.ID != "u1" || u.Path != "/x y" || u.Name != "a/ü" {
		t.Errorf("upload %+v: %v", u, err)
	}
	var seen []Upload
	u, err := c.FollowUpload(t.Context(), "u1", func(u Upload) error { seen = append(seen, u); return nil })
	if err != nil || fmt.Sprint(seen) != fmt.Sprint(states) || u != states[3] {
		t.Errorf("followed %+v, and last %+v: %v", seen, u, err)
	}
	if !u.HasEnded() || seen[2].HasEnded() || seen[1].Percent() != 50 {
		t.Errorf("states %+v", seen)
	}
	if _, err := c.FollowUpload(t.Context(), "other/..", nil); !errors.Is(err, core.ErrInvalid) {
		t.Errorf("an unknown one: %v", err)
	}
	if err := c.CancelUpload(t.Context(), "u1"); err != nil || b.cancelled != "u1" {
		t.Errorf("cancelled %q: %v", b.cancelled, err)
	}
}

func TestTheLargestMessageFits(t *testing.T) {
	b := &backend{}
	c, _ := serve(t, b)
	if err := c.Send(t.Context(), &core.Message{Payload: make([]byte, core.MaxMessageSize)}); err != nil {
		t.Errorf("the largest message: %v", err)
	}
	if err := c.Send(t.Context(), &core.Message{Payload: make([]byte, maxBody)}); !errors.Is(err, core.ErrTooLarge) {
		t.Errorf("a giant message: %v", err)
	}
	// What another client sends is read up to the limit.
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://fairlead/v1/send", bytes.NewReader(bytes.Repeat([]byte(" "), maxBody+1)))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if err := problemError(resp); !errors.Is(err, core.ErrInvalid) {
		t.Errorf("a giant message of another client: %s, %v", resp.Status, err)
	}
}

func TestErrorsKeepTheirKindAndText(t *testing.T) {
	for _, k := range kinds {
		c, _ := serve(t, &backend{err: fmt.Errorf("do it: %w: because", k.err)})
		if err := c.Connect(t.Context()); !errors.Is(err, k.err) || err.Error() != "do it: "+k.err.Error()+": because" {
			t.Errorf("%s: %v", k.name, err)
		}
	}
	c, _ := serve(t, &backend{err: errors.New("of no kind")})
	if _, err := c.Status(t.Context()); err == nil || err.Error() != "of no kind" {
		t.Errorf("other: %v", err)
	}
}

func TestARequestEndsWhenTheClientDoes(t *testing.T) {
	b := &backend{seen: make(chan struct{})}
	c, _ := serve(t, b)
	ctx, cancel := context.WithCancel(t.Context())
	result := make(chan error, 1)
	go func() { result <- c.Connect(ctx) }()
	<-b.seen
	cancel()
	if err := <-result; !errors.Is(err, context.Canceled) {
		t.Errorf("connect: %v", err)
	}
}

func TestEventsAreFollowed(t *testing.T) {
	b := &backend{}
	c, _ := serve(t, b)
	b.add("one")
	var got []string
	if err := c.Events(t.Context(), false, func(l engine.Line) error { got = append(got, l.Text); return nil }); err != nil || fmt.Sprint(got) != "[one]" {
		t.Errorf("events %v: %v", got, err)
	}
	enough := errors.New("enough")
	got = nil
	err := c.Events(t.Context(), true, func(l engine.Line) error {
		got = append(got, l.Text)
		if len(got) == 3 {
			return enough
		}
		b.add(fmt.Sprint(len(got)))
		return nil
	})
	if !errors.Is(err, enough) || fmt.Sprint(got) != "[one 1 2]" {
		t.Errorf("followed %v: %v", got, err)
	}
}

func TestNobodyThere(t *testing.T) {
	dir := t.TempDir()
	if _, err := NewClient(filepath.Join(dir, SocketName)).Status(t.Context()); !errors.Is(err, ErrNotRunning) {
		t.Errorf("no socket: %v", err)
	}
}

func TestTheSocketIsPrivateAndReplacesAnOldOne(t *testing.T) {
	_, dir := serve(t, &backend{})
	path := filepath.Join(dir, SocketName)
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v: %v", info.Mode(), err)
	}
	l, err := Listen(dir) // as after a kill: nobody removed the socket
	if err != nil {
		t.Fatalf("listen again: %v", err)
	}
	_ = l.Close()
	if _, err := Listen(filepath.Join(dir, strings.Repeat("x", 100))); err == nil || !strings.Contains(err.Error(), "at most 103") {
		t.Errorf("a long path: %v", err)
	}
}
