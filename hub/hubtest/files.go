package hubtest

import (
	"context"
	"errors"
	"io"

	"github.com/fairlead-iot/fairlead/hub/api"
)

// WaitUpload returns the first file notification of the device, of those that
// wait at the hub, that ok accepts; nil accepts every one. The test fails if there
// is none within 30 seconds.
func (h *Hub) WaitUpload(device string, ok func(api.FileNotification) bool) api.FileNotification {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var found api.FileNotification
	errFound := errors.New("found")
	err := h.WatchFileNotifications(ctx, device, func(n api.FileNotification) error {
		if ok == nil || ok(n) {
			found = n
			return errFound
		}
		return nil
	})
	if !errors.Is(err, errFound) {
		h.t.Fatalf("wait for an upload of %s: %v", device, err)
	}
	return found
}

// ReadFile returns what a device, or a module, has uploaded under the name, which
// is without the device's id. The test fails if it is not there.
func (h *Hub) ReadFile(id, name string) []byte {
	h.t.Helper()
	content, _, err := h.OpenFile(context.Background(), id, name)
	if err != nil {
		h.t.Fatalf("read file: %v", err)
	}
	defer content.Close() //nolint:errcheck // it was read
	data, err := io.ReadAll(content)
	if err != nil {
		h.t.Fatalf("read file %s of %s: %v", name, id, err)
	}
	return data
}
