package host

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/fairlead-iot/fairlead/core"
	"github.com/fairlead-iot/fairlead/plugins/internal/wire"
	"github.com/fairlead-iot/fairlead/plugins/pluginv1"
)

// request starts one request of the plugin; it does not wait for it.
func (s *session) request(r *pluginv1.Request) {
	ctx, cancel := s.ctx, context.CancelFunc(nil)
	if ms := r.GetTimeoutMs(); ms > 0 {
		ctx, cancel = context.WithTimeoutCause(ctx, wire.ToDuration(ms), core.ErrTimeout)
	} else {
		ctx, cancel = context.WithCancel(ctx)
	}
	id := r.GetId()
	s.mu.Lock()
	_, twice := s.requests[id]
	refused := twice || len(s.requests) >= wire.MaxRequests
	if !refused {
		s.requests[id] = cancel
		if r.GetUpload().GetStream() {
			s.inflows[id] = newInflow()
		}
	}
	s.mu.Unlock()
	if refused {
		cancel()
		err := fmt.Errorf("%w: the plugin has %d requests open already", core.ErrInvalid, wire.MaxRequests)
		if twice {
			err = fmt.Errorf("%w: request %d is open already", core.ErrInvalid, id)
		}
		s.queue(replyFrame(&pluginv1.Reply{Id: id, Error: wire.FromError(err)}))
		return
	}
	s.tasks.Go(func() {
		defer cancel()
		reply, err := s.carryOut(ctx, r)
		if err != nil {
			reply = &pluginv1.Reply{Error: wire.FromError(err)}
		}
		reply.Id = id
		s.mu.Lock()
		s.replied = append(s.replied, id)
		delete(s.inflows, id)
		s.frames = append(s.frames, replyFrame(reply))
		s.mu.Unlock()
		s.signal()
	})
}

func replyFrame(r *pluginv1.Reply) *pluginv1.SessionRequest {
	return &pluginv1.SessionRequest{Frame: &pluginv1.SessionRequest_Reply{Reply: r}}
}

// carryOut asks the device.
func (s *session) carryOut(ctx context.Context, r *pluginv1.Request) (*pluginv1.Reply, error) {
	id := r.GetId()
	switch r := r.GetRequest().(type) {
	case *pluginv1.Request_Report:
		patch := r.Report.GetPatch()
		if len(patch) > core.MaxMessageSize {
			return nil, fmt.Errorf("%w: a patch of %d bytes; the hub takes at most %d", core.ErrTooLarge, len(patch), core.MaxMessageSize)
		}
		var object map[string]json.RawMessage
		if err := json.Unmarshal(patch, &object); err != nil || object == nil {
			return nil, fmt.Errorf("%w: the patch of the reported properties is not a JSON object", core.ErrInvalid)
		}
		v, err := s.dev.Report(ctx, patch)
		return &pluginv1.Reply{Version: v}, err
	case *pluginv1.Request_Twin:
		twin, err := s.dev.Twin(ctx)
		return &pluginv1.Reply{Payload: twin}, err
	case *pluginv1.Request_Connect:
		return &pluginv1.Reply{}, s.dev.Connect(ctx)
	case *pluginv1.Request_Disconnect:
		return &pluginv1.Reply{}, s.dev.Disconnect(ctx)
	case *pluginv1.Request_StorageInfo:
		return s.storageInfo(ctx, r.StorageInfo)
	case *pluginv1.Request_NotifyUpload:
		return s.notifyUpload(ctx, r.NotifyUpload)
	case *pluginv1.Request_Upload:
		return s.upload(ctx, id, r.Upload)
	case *pluginv1.Request_UpdateSasToken:
		return &pluginv1.Reply{}, s.dev.UpdateToken(ctx, core.Secret(r.UpdateSasToken.GetToken()))
	}
	return nil, unsupported("do what was asked: the plugin's SDK is newer than the host")
}

func unsupported(what string) error {
	return fmt.Errorf("%w: this host cannot %s", core.ErrUnsupported, what)
}
