package wire

import (
	"github.com/fairlead-iot/fairlead/core"
	"github.com/fairlead-iot/fairlead/plugins/pluginv1"
)

// FromUpload gives the frame's form of how the upload of a request stands.
func FromUpload(request uint64, u core.Upload) *pluginv1.UploadProgress {
	return &pluginv1.UploadProgress{
		Id: request, UploadId: u.ID, State: pluginv1.UploadProgress_State(u.State) + pluginv1.UploadProgress_STATE_QUEUED,
		Size: u.Size, Sent: u.Sent, Rate: u.Rate, LeftMs: FromDuration(u.Left), Reason: Text(u.Reason), NextAttemptMs: FromDuration(u.NextAttempt),
	}
}

// ToUpload is the reverse of FromUpload. An unknown state counts as running.
func ToUpload(p *pluginv1.UploadProgress) core.Upload {
	u := core.Upload{
		ID: p.GetUploadId(), State: core.UploadRunning, Size: p.GetSize(), Sent: p.GetSent(), Rate: p.GetRate(),
		Left: ToDuration(p.GetLeftMs()), Reason: p.GetReason(), NextAttempt: ToDuration(p.GetNextAttemptMs()),
	}
	if s := p.GetState() - pluginv1.UploadProgress_STATE_QUEUED; s >= 0 && s <= pluginv1.UploadProgress_State(core.UploadCancelled) {
		u.State = core.UploadState(s)
	}
	return u
}
