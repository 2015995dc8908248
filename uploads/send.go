package uploads

import (
	"context"
	"encoding/base64"
	"errors"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blob"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/bloberror"
	"github.com/Azure/azure-sdk-for-go/sdk/storage/azblob/blockblob"

	"github.com/fairlead-iot/fairlead/core"
)

// send brings all blocks to the storage. At the first obstacle it begins no further ones, and returns when those under
// way have ended.
func (j *job) send(ctx context.Context) error {
	p := j.plan
	if err := j.list(ctx); err != nil {
		return err
	}
	tasks := make(chan block)
	failed := make(chan struct{})
	var first error
	var once sync.Once
	fail := func(err error) { once.Do(func() { first = err; close(failed) }) }
	var all sync.WaitGroup
	running := 0
	work := func() {
		for b := range tasks {
			began := time.Now()
			err := j.stage(ctx, b)
			p.ended(b, err, time.Since(began))
			if err != nil {
				fail(err)
			}
		}
	}
loop:
	for {
		b, isThere, err := p.next()
		if err != nil {
			if !errors.Is(err, io.EOF) {
				fail(err)
			}
			break
		}
		if isThere {
			j.found(b.size)
			continue
		}
		if running < p.workers() {
			running++
			all.Go(work)
		}
		select {
		case tasks <- b:
		case <-failed:
			p.again(b)
			break loop
		case <-ctx.Done():
			p.again(b)
			fail(context.Cause(ctx))
			break loop
		}
		select {
		case <-failed:
			break loop
		default:
		}
	}
	close(tasks)
	all.Wait()
	return first
}

// list asks the storage what it has of this upload, once in a process's life.
func (j *job) list(ctx context.Context) error {
	if j.plan.listed || j.rec.Size == 0 {
		return nil
	}
	resp, err := j.client.GetBlockList(ctx, blockblob.BlockListTypeAll, nil)
	switch {
	case err == nil:
		for _, blocks := range [][]*blockblob.Block{resp.UncommittedBlocks, resp.CommittedBlocks} {
			for _, b := range blocks {
				if b != nil && b.Name != nil {
					j.plan.found(*b.Name)
				}
			}
		}
	case bloberror.HasCode(err, bloberror.BlobNotFound):
	case bloberror.HasCode(err, bloberror.AuthorizationPermissionMismatch):
		// The address grants writing alone: all blocks are sent again.
		j.say(debug, "cannot ask for the blocks that were sent", "error", storageError("list blocks", err))
	default:
		return storageError("list blocks", err)
	}
	j.plan.heard()
	return nil
}

// stage sends a block.
func (j *job) stage(ctx context.Context, b block) (err error) {
	body := &body{SectionReader: io.NewSectionReader(j.plan.file, b.off, b.size), j: j, ctx: ctx}
	defer func() { j.over(body, err == nil) }()
	_, err = j.client.StageBlock(ctx, j.plan.name(b), body, &blockblob.StageBlockOptions{TransactionalValidation: blob.TransferValidationTypeCRC64(b.crc)})
	if body.err != nil {
		return readAllError(body.err)
	}
	if bloberror.HasCode(err, crcMismatch) {
		// Damaged on the way, or changed since its checksum was computed; then no further attempt would do.
		if changed := j.plan.unchanged(b); changed != nil {
			return changed
		}
	}
	if err != nil {
		return storageError("send a block", err)
	}
	return nil
}

// commit makes the blocks the blob, if the file is still what it was.
func (j *job) commit(ctx context.Context) error {
	p := j.plan
	if err := j.unchanged(); err != nil {
		return err
	}
	sum := p.sum()
	_, err := j.client.CommitBlockList(ctx, p.names(), &blockblob.CommitBlockListOptions{HTTPHeaders: &blob.HTTPHeaders{BlobContentMD5: sum}})
	if bloberror.HasCode(err, bloberror.InvalidBlockList) {
		// It has forgotten some. Read the file anew, and ask what is there.
		p.restart()
		j.set(func() { j.pace.restart() })
		return storageError("commit the blocks", err)
	}
	if err != nil {
		return storageError("commit the blocks", err)
	}
	return nil
}

// unchanged looks at the file that is being read. That another one stands at its path by now, as after a rotation of logs,
// does no harm: the one that was taken on is uploaded.
func (j *job) unchanged() error {
	now, err := lookAt(j.plan.file)
	if err == nil {
		if text := now.differs(factsOf(j.rec)); text != "" {
			return &giveUpError{reason: text}
		}
		return nil
	}
	return &giveUpError{reason: "the file cannot be looked at any more: " + err.Error()}
}

// readSize is read from a file at once, in bytes.
const readSize = 256 << 10

// body is a block on its way. Its reads are held up by the limit of bandwidth.
type body struct {
	*io.SectionReader
	j   *job
	ctx context.Context //nolint:containedctx // a Reader has no other way
	err error           // of the file

	// Guarded by q.mu.
	taken  int64 // how many of its bytes were read
	told   int64 // how many of them the progress has as written
	isOver bool  // they do not count any more, though a transport may still read
}

func (b *body) Read(p []byte) (int, error) {
	at, _ := b.Seek(0, io.SeekCurrent) // never fails, by its contract
	b.j.took(b, at)
	if l := b.j.q.limit; l != nil {
		p = p[:min(int64(len(p)), int64(l.Burst()), b.Size()-at)] // not more than there is: it is paid for
		if err := l.WaitN(b.ctx, len(p)); err != nil {
			return 0, err
		}
	}
	n, err := b.SectionReader.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		b.err = err
	}
	if errors.Is(err, io.EOF) && n == 0 {
		if at, _ := b.Seek(0, io.SeekCurrent); at < b.Size() {
			b.err = io.ErrUnexpectedEOF
			return 0, b.err
		}
	}
	return n, err
}

func (b *body) Close() error { return nil }

// transporter is what the storage client sends by.
type transporter struct{ http.RoundTripper }

// Do implements policy.Transporter.
func (t transporter) Do(r *http.Request) (*http.Response, error) { return t.RoundTrip(r) }

// storageError gives an error of the storage its kind, and takes addresses out.
func storageError(op string, err error) error {
	e := classify(op, err)
	if e.Status == http.StatusUnauthorized || e.Status == http.StatusForbidden || e.Status == http.StatusNotFound {
		return &refusedError{e}
	}
	if e.Kind == core.Refused {
		return &giveUpError{reason: e.Error(), status: e.Status}
	}
	return e
}

func blockName(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }
