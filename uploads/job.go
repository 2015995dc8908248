package uploads

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore"
	"github.com/Azure/azure-sdk-for-go/sdk/azcore/policy"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blockblob"

	"github.com/fairlead-iot/fairlead/core"
)

// idBytes is the length of an upload's id, which stands in hexadecimal.
const idBytes = 8

// maxRefusals is how many addresses in a row the storage may refuse before the upload is given up; by then a few minutes
// have passed.
const maxRefusals = 8

// job is one upload. What is not said to be otherwise belongs to the goroutine of run.
type job struct {
	q *Queue

	// Guarded by q.mu.
	rec       core.UploadRecord
	held      bool // it is not written down yet
	stop      context.CancelFunc
	interrupt context.CancelFunc // ends the attempt
	pace      pace
	reason    string
	next      time.Time

	ctx      context.Context //nolint:containedctx // of the run
	resumed  bool            // an earlier life may have sent some of it
	plan     *plan
	client   *blockblob.Client // nil without an address
	refusals int
	wasEnded bool // as the present attempt began: it only has to tell the hub
}

// giveUpError is an error that no further attempt mends.
type giveUpError struct {
	reason string
	status int
}

func (e *giveUpError) Error() string { return e.reason }

// refusedError is an error of the storage that asks for another address.
type refusedError struct{ err *core.Error }

func (e *refusedError) Error() string { return e.err.Error() }
func (e *refusedError) Unwrap() error { return e.err }

// settled reports that nothing is left to do; q.mu is held.
func (j *job) settled() bool { return j.held || j.rec.State.Ended() && len(j.rec.Owed) == 0 }

// begin prepares a run; q.mu is held.
func (j *job) begin(ctx context.Context) {
	j.ctx, j.stop = context.WithCancel(ctx)
}

// run makes attempts until the upload has ended and the hub knows, or the queue ends.
func (j *job) run() {
	defer j.close()
	for n := 1; ; n++ {
		err := j.attempt()
		if j.ctx.Err() != nil {
			j.set(func() {
				if !j.rec.State.Ended() {
					j.rec.State = core.UploadQueued
				}
			})
			return
		}
		if err == nil {
			return
		}
		if g, ok := errors.AsType[*giveUpError](err); ok {
			j.fail(g)
			n = 0
			continue
		}
		if errors.Is(err, errInterrupted) {
			n = 0
			continue
		}
		j.q.mu.Lock()
		if j.pace.confirmed > 0 {
			n = 1
		}
		j.q.mu.Unlock()
		e := asError(err)
		d := wait(n, e.Kind, e.RetryAfter)
		j.rest(err, e.Kind, d, n)
	}
}

var errInterrupted = errors.New("called off")

// rest waits before the next attempt.
func (j *job) rest(err error, kind core.Kind, d time.Duration, n int) {
	level := slog.LevelWarn
	if n > 1 {
		level = slog.LevelDebug
	}
	j.say(level, "waiting", "error", err, "kind", kind, "next_attempt", d.Round(time.Millisecond).String())
	t := time.NewTimer(d)
	defer t.Stop()
	ctx, interrupt := context.WithCancel(j.ctx)
	defer interrupt()
	var wake chan struct{}
	j.set(func() {
		if !j.rec.State.Ended() {
			j.rec.State = core.UploadWaiting
		} else if !j.wasEnded {
			interrupt() // called off just now: the hub is to hear of it
		}
		j.reason, j.next, j.interrupt, wake = err.Error(), time.Now().Add(d), interrupt, j.q.wake
	})
	select {
	case <-t.C:
	case <-wake:
	case <-ctx.Done():
	}
	j.set(func() { j.reason, j.next, j.interrupt = "", time.Time{}, nil })
}

// attempt goes as far as it gets. nil means that nothing is left to do.
func (j *job) attempt() (err error) {
	ctx, interrupt := context.WithCancel(j.ctx)
	defer interrupt()
	var ended, committed bool
	j.set(func() {
		ended, committed = j.rec.State.Ended(), j.rec.Committed
		j.wasEnded = ended
		j.pace.begin(time.Now())
		if !ended {
			j.rec.State, j.interrupt = core.UploadRunning, interrupt
		}
	})
	defer j.set(func() { j.interrupt = nil })
	if err := j.tell(j.ctx); err != nil {
		return err
	}
	if ended {
		return nil
	}
	if !committed {
		if err := j.transfer(ctx); err != nil {
			if ctx.Err() != nil && j.ctx.Err() == nil {
				return errInterrupted
			}
			return err
		}
	}
	// Told by now: tell above saw to it, or transfer.
	j.set(func() { j.endLocked(core.UploadDone, "") })
	j.saved()
	j.dropSpool()
	j.say(slog.LevelInfo, "done", "size", j.rec.Size)
	return nil
}

// transfer brings the file to the storage, and tells the hub.
func (j *job) transfer(ctx context.Context) error {
	if err := j.openSource(); err != nil {
		return err
	}
	if err := j.address(ctx); err != nil {
		return err
	}
	err := j.send(ctx)
	if err == nil {
		err = j.commit(ctx)
	}
	if r, ok := errors.AsType[*refusedError](err); ok {
		return j.addressRefused(r)
	}
	if err != nil {
		return err
	}
	j.refusals = 0
	isLate := false
	j.set(func() {
		if isLate = j.rec.State.Ended(); isLate {
			return // called off as the last answer was on its way
		}
		j.rec.Committed = true
		j.rec.Owed = append(j.rec.Owed, core.UploadOutcome{CorrelationID: j.rec.CorrelationID, Success: true, StatusCode: 201, Description: "uploaded"})
		j.rec.CorrelationID = ""
	})
	if isLate {
		return errInterrupted
	}
	j.saved()
	return j.tell(j.ctx)
}

// openSource opens the file, unless it is open, and makes sure that it is the one that was taken on, and is what it was.
func (j *job) openSource() error {
	if j.plan != nil {
		return j.unchanged()
	}
	f, facts, err := open(j.rec.Path)
	if err != nil {
		return &giveUpError{reason: fmt.Sprintf("the file cannot be read any more: %v", err)}
	}
	if text := facts.differs(factsOf(j.rec)); text != "" {
		_ = f.Close()
		return &giveUpError{reason: text}
	}
	j.plan = newPlan(f, j.rec.ID, j.rec.Size, j.q.cfg.Blocks, j.q.cfg.MaxBlock, j.q.cfg.Bandwidth, j.resumed)
	return nil
}

// address asks the hub for an address, unless there is one.
func (j *job) address(ctx context.Context) error {
	if j.client != nil {
		return nil
	}
	j.q.mu.Lock()
	open := j.rec.CorrelationID
	j.q.mu.Unlock()
	if open != "" {
		// The address that belongs to it was in the memory of a process that is no more.
		j.abandon(0, "interrupted; another address is asked for")
		if err := j.tell(j.ctx); err != nil {
			return err
		}
	}
	info, err := j.q.cfg.Files.StorageInfo(ctx, j.rec.BlobName)
	if err != nil {
		if e := asError(err); e.Kind == core.Refused {
			return &giveUpError{reason: err.Error(), status: e.Status}
		}
		return err
	}
	j.set(func() {
		j.rec.CorrelationID = info.CorrelationID
		if j.rec.State.Ended() { // called off as the answer was on its way
			j.endLocked(j.rec.State, j.rec.Reason)
		}
	})
	j.saved()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	if j.client, err = newClient(info, j.q); err != nil {
		return &giveUpError{reason: err.Error()}
	}
	return nil
}

// addressRefused lets go of an address that the storage does not take (any more).
func (j *job) addressRefused(r *refusedError) error {
	j.client = nil
	j.q.mu.Lock()
	made := j.pace.confirmed > 0
	j.q.mu.Unlock()
	if made {
		j.refusals = 0
	}
	j.refusals++
	if j.refusals >= maxRefusals {
		return &giveUpError{reason: fmt.Sprintf("the storage refused %d addresses in a row: %v", j.refusals, r), status: r.err.Status}
	}
	j.abandon(r.err.Status, "the storage refused the address; another one is asked for")
	return r
}

// abandon owes the hub the news that nothing comes of the present number.
func (j *job) abandon(status int, why string) {
	j.set(func() {
		if j.rec.CorrelationID == "" {
			return // called off, and owed for that
		}
		j.rec.Owed = append(j.rec.Owed, core.UploadOutcome{CorrelationID: j.rec.CorrelationID, StatusCode: status, Description: why})
		j.rec.CorrelationID = ""
	})
	j.saved()
}

// tell tells the hub what is owed.
func (j *job) tell(ctx context.Context) error {
	for {
		j.q.mu.Lock()
		if len(j.rec.Owed) == 0 {
			j.q.mu.Unlock()
			return nil
		}
		o := j.rec.Owed[0]
		j.q.mu.Unlock()
		err := j.q.cfg.Files.NotifyUpload(ctx, o)
		e := asError(err)
		if err != nil && e.Kind != core.Refused {
			return err
		}
		again := ""
		if err != nil && o.Success {
			if again, err = j.renumber(ctx, err); err != nil && !isGiveUp(err) {
				return err
			}
		}
		j.set(func() {
			j.rec.Owed = slices.DeleteFunc(j.rec.Owed, func(other core.UploadOutcome) bool { return other.CorrelationID == o.CorrelationID })
			if again != "" {
				o.CorrelationID = again
				j.rec.Owed = append(j.rec.Owed, o)
			}
		})
		j.saved()
		if isGiveUp(err) {
			return err
		}
	}
}

// renumber asks for another number to report a success by, whose own was refused: its time was over before the hub heard
// of it. The file is there, and the new number tells of it as well.
func (j *job) renumber(ctx context.Context, refusal error) (string, error) {
	const reason = "the storage has the file, but the hub does not take the news: %v"
	if j.refusals >= maxRefusals-1 {
		return "", &giveUpError{reason: fmt.Sprintf(reason, refusal)}
	}
	info, err := j.q.cfg.Files.StorageInfo(ctx, j.rec.BlobName)
	if err != nil && asError(err).Kind == core.Refused {
		return "", &giveUpError{reason: fmt.Sprintf(reason, err)}
	}
	if err != nil {
		return "", err
	}
	j.refusals++ // numbers count, not attempts: a hub that is busy or away has refused nothing
	return info.CorrelationID, nil
}

// fail ends the upload.
func (j *job) fail(g *giveUpError) {
	j.set(func() {
		if j.rec.State.Ended() {
			return
		}
		j.endLocked(core.UploadFailed, g.reason)
		if n := len(j.rec.Owed); n > 0 && g.status != 0 {
			j.rec.Owed[n-1].StatusCode = g.status
		}
	})
	j.say(slog.LevelError, "failed", "reason", g.reason)
	j.saved()
	j.dropSpool()
}

// endLocked ends the upload; q.mu is held. The hub is owed the news of a number that is open.
func (j *job) endLocked(s core.UploadState, reason string) {
	j.rec.State, j.rec.Reason, j.rec.EndedAt = s, reason, time.Now().UTC()
	if j.rec.CorrelationID != "" {
		j.rec.Owed = append(j.rec.Owed, core.UploadOutcome{CorrelationID: j.rec.CorrelationID, StatusCode: 500, Description: short(reason)})
		j.rec.CorrelationID = ""
	}
}

// short cuts a text for the hub.
func short(s string) string {
	const most = 500
	if len(s) > most {
		return strings.ToValidUTF8(s[:most], "") + "…"
	}
	return s
}

// set changes what others see.
func (j *job) set(f func()) {
	j.q.mu.Lock()
	defer j.q.mu.Unlock()
	f()
	j.q.tellLocked()
}

// saved writes the record down; what cannot be written costs work after a crash, no more.
func (j *job) saved() {
	if err := j.q.save(j); err != nil {
		j.q.log.Error("the state of an upload is not kept for a restart", "upload", j.rec.ID, "error", err)
	}
}

// say tells of a change.
func (j *job) say(level slog.Level, what string, attrs ...any) {
	attrs = append([]any{"upload", j.rec.ID, "blob", j.rec.BlobName}, attrs...)
	j.q.log.Log(context.Background(), level, "upload "+what, attrs...)
	if j.q.cfg.Event == nil {
		return
	}
	var b strings.Builder
	fmt.Fprintf(&b, "upload %s", what)
	for i := 0; i+1 < len(attrs); i += 2 {
		fmt.Fprintf(&b, " %s=%v", attrs[i], attrs[i+1])
	}
	j.q.cfg.Event(b.String())
}

func (j *job) close() {
	if j.plan != nil {
		j.plan.close()
		j.plan = nil
	}
	j.client, j.resumed = nil, true
}

// view returns the upload as others see it; q.mu is held.
func (j *job) view(now time.Time) core.Upload {
	u := core.Upload{
		ID: j.rec.ID, BlobName: j.rec.BlobName, Path: j.rec.Path, Owner: j.rec.Owner, State: j.rec.State, Size: j.rec.Size, Sent: j.pace.done(), Reason: j.rec.Reason,
	}
	if j.rec.Spooled {
		u.Path = ""
	}
	if j.rec.Committed {
		u.Sent = u.Size
	}
	if !u.State.Ended() {
		u.Reason = j.reason
		if j.rec.Committed && u.Reason == "" {
			u.Reason = "the storage has the file; the hub is being told"
		}
	}
	if !j.next.IsZero() {
		u.NextAttempt = max(0, j.next.Sub(now))
	}
	if u.State == core.UploadRunning {
		u.Rate = j.pace.rate(now)
		u.Left = j.pace.left(u.Size, u.Rate)
	}
	return u
}

// newClient makes a client of the storage's for one address. Its errors do not hold the address.
func newClient(info core.StorageInfo, q *Queue) (*blockblob.Client, error) {
	base, err := url.Parse("https://" + info.HostName)
	if err != nil || base.Host == "" || base.User != nil || base.RawQuery != "" || base.Fragment != "" {
		return nil, fmt.Errorf("the hub named a storage host that is none: %.100q", info.HostName)
	}
	// Not JoinPath, which would take out what a name may hold: "..", "//".
	address := base.Scheme + "://" + base.Host + base.EscapedPath() + (&url.URL{Path: "/" + info.ContainerName + "/" + info.BlobName}).EscapedPath() + info.SASToken.Reveal()
	c, err := blockblob.NewClientWithNoCredential(address, &blockblob.ClientOptions{ClientOptions: azcore.ClientOptions{
		Transport: transporter{q.cfg.Storage},
		// An attempt ends at the first obstacle: how to go on is decided for all blocks together.
		Retry: policy.RetryOptions{MaxRetries: -1},
	}})
	if err != nil {
		return nil, errors.New("the hub gave an address that is none")
	}
	return c, nil
}
