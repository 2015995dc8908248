package host

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/fairlead-iot/fairlead/core"
	"github.com/fairlead-iot/fairlead/plugins/internal/wire"
	"github.com/fairlead-iot/fairlead/plugins/pluginv1"
)

func (s *session) storageInfo(ctx context.Context, r *pluginv1.StorageInfoRequest) (*pluginv1.Reply, error) {
	if s.cfg.Files == nil {
		return nil, unsupported("ask for storage information")
	}
	i, err := s.cfg.Files.StorageInfo(ctx, r.GetBlobName())
	if err != nil {
		return nil, err
	}
	return &pluginv1.Reply{StorageInfo: &pluginv1.StorageInfo{
		CorrelationId: i.CorrelationID, HostName: wire.Text(i.HostName), ContainerName: wire.Text(i.ContainerName),
		BlobName: wire.Text(i.BlobName), SasToken: i.SASToken.Reveal(),
	}}, nil
}

func (s *session) notifyUpload(ctx context.Context, r *pluginv1.NotifyUploadRequest) (*pluginv1.Reply, error) {
	if s.cfg.Files == nil {
		return nil, unsupported("notify of an upload")
	}
	return &pluginv1.Reply{}, s.cfg.Files.NotifyUpload(ctx, core.UploadOutcome{
		CorrelationID: r.GetCorrelationId(), Success: r.GetSuccess(), StatusCode: int(r.GetStatusCode()), Description: r.GetStatusDescription(),
	})
}

// upload has something uploaded. The plugin's word ends it, its death does not: what the queue has taken on goes on.
func (s *session) upload(ctx context.Context, id uint64, r *pluginv1.UploadRequest) (*pluginv1.Reply, error) {
	if s.cfg.Files == nil {
		return nil, unsupported("upload files for plugins")
	}
	own, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	defer cancel(nil)
	stop := context.AfterFunc(ctx, func() {
		if s.ctx.Err() != nil {
			cancel(core.ErrClosed)
			return
		}
		cancel(context.Cause(ctx))
	})
	defer stop()
	progress := func(u core.Upload) {
		if !s.tellsUploads {
			return
		}
		s.mu.Lock()
		s.progress[id] = wire.FromUpload(id, u)
		s.mu.Unlock()
		s.signal()
	}
	if !r.GetStream() {
		return &pluginv1.Reply{}, s.cfg.Files.Upload(own, r.GetBlobName(), r.GetPath(), progress)
	}
	s.mu.Lock()
	in := s.inflows[id]
	s.mu.Unlock()
	s.creditUpload(id, wire.UploadWindow)
	return &pluginv1.Reply{}, s.cfg.Files.UploadStream(own, r.GetBlobName(), func(ctx context.Context) ([]byte, error) {
		data, err := in.next(ctx)
		if n := len(data); n > 0 {
			s.creditUpload(id, n)
		}
		return data, err
	}, progress)
}

func (s *session) creditUpload(id uint64, n int) {
	s.queue(&pluginv1.SessionRequest{Frame: &pluginv1.SessionRequest_UploadCredit{
		UploadCredit: &pluginv1.UploadCredit{Id: id, Bytes: uint64(n)}, //nolint:gosec // a length
	}})
}

// uploadData takes a part of a stream. An error means that the plugin broke the protocol.
func (s *session) uploadData(d *pluginv1.UploadData) error {
	s.mu.Lock()
	in := s.inflows[d.GetId()]
	s.mu.Unlock()
	if in == nil {
		return nil // of an upload that has ended: it was on its way
	}
	return in.put(d)
}

// inflow holds what a plugin has sent of a stream and nobody has taken: at most wire.UploadWindow.
type inflow struct {
	mu     sync.Mutex
	parts  [][]byte
	held   int
	end    error // once there is no more
	arrive chan struct{}
}

func newInflow() *inflow { return &inflow{arrive: make(chan struct{}, 1)} }

func (i *inflow) put(d *pluginv1.UploadData) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	n := len(d.GetData())
	switch {
	case n > wire.UploadFrame:
		return fmt.Errorf("it sent %d bytes of an upload at once; at most %d are allowed", n, wire.UploadFrame)
	case i.held+n > wire.UploadWindow:
		return fmt.Errorf("it sent more of an upload than it was allowed: %d bytes at most", wire.UploadWindow)
	case i.end != nil:
		return errors.New("it sent more of an upload after its end")
	}
	if last := len(i.parts) - 1; last >= 0 && len(i.parts[last])+n <= wire.UploadFrame {
		i.parts[last] = append(i.parts[last], d.GetData()...) // a part has a cost of its own, however small it is
		i.held += n
	} else if n > 0 {
		i.parts = append(i.parts, d.GetData())
		i.held += n
	}
	switch {
	case d.GetFailure() != "":
		i.end = fmt.Errorf("the plugin's stream broke off: %w: %s", core.ErrCancelled, d.GetFailure())
	case d.GetLast():
		i.end = io.EOF
	}
	select {
	case i.arrive <- struct{}{}:
	default:
	}
	return nil
}

// next returns the next part, or the end.
func (i *inflow) next(ctx context.Context) ([]byte, error) {
	for {
		i.mu.Lock()
		if len(i.parts) > 0 {
			part := i.parts[0]
			i.parts = i.parts[1:]
			i.held -= len(part)
			i.mu.Unlock()
			return part, nil
		}
		end := i.end
		i.mu.Unlock()
		if end != nil {
			return nil, end
		}
		select {
		case <-i.arrive:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}
