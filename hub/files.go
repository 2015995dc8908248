package hub

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"time"

	"github.com/fairlead-iot/fairlead/hub/api"
	"github.com/fairlead-iot/fairlead/hub/internal/account"
	"github.com/fairlead-iot/fairlead/hub/internal/blob"
)

// DefaultContainer is the container for uploads unless another one is named.
const DefaultContainer = "uploads"

// maxUploadLife is what IoT Hub allows,
// https://learn.microsoft.com/azure/iot-hub/iot-hub-configure-file-upload; its
// least, a minute, is too long for a test.
const maxUploadLife = 24 * time.Hour

// Uploads decides where devices upload files to: a blob endpoint of the hub's own
// on its HTTPS port, which keeps blobs below Config.Dir, or else a storage
// account.
type Uploads struct {
	// Life is how long a device's address is good, and its upload may be
	// completed: up to 24 hours, default 1 hour.
	Life time.Duration
	// Container is where blobs go, default "uploads".
	Container string
	// StorageConnectionString names a storage account, Azure's or an Azurite, that
	// is used instead of the hub's own endpoint. It is a secret. The account must
	// be reached over HTTPS.
	StorageConnectionString string
	// StorageCAPEM is trusted beside the system's roots when the hub looks into
	// that account.
	StorageCAPEM []byte
}

// Check says what is wrong with the settings. It never names a secret.
func (u Uploads) Check() error {
	if u.Life < 0 || u.Life > maxUploadLife {
		return fmt.Errorf("hub: the life of an upload's address must be more than 0 and at most %v, not %v", maxUploadLife, u.Life)
	}
	// https://learn.microsoft.com/rest/api/storageservices/naming-and-referencing-containers--blobs--and-metadata
	if name := u.container(); len(name) < 3 || len(name) > 63 || !regexp.MustCompile(`^[a-z0-9]+(-[a-z0-9]+)*$`).MatchString(name) {
		return fmt.Errorf("hub: the container %q must have 3 to 63 lower-case letters, digits and single hyphens, and begin and end with none of the last", name)
	}
	if u.StorageConnectionString == "" {
		if u.StorageCAPEM != nil {
			return errors.New("hub: a CA for the storage account without a storage account")
		}
		return nil
	}
	a, err := u.account()
	if err == nil {
		a.Close()
	}
	return err
}

func (u Uploads) container() string { return cmp.Or(u.Container, DefaultContainer) }

func (u Uploads) account() (*account.Account, error) {
	return account.New(account.Config{ConnectionString: u.StorageConnectionString, Container: u.container(), CAPEM: u.StorageCAPEM})
}

// openUploads makes what uploads go to.
func (h *Hub) openUploads() error {
	u := h.cfg.Uploads
	if u.StorageConnectionString != "" {
		var err error
		if h.account, err = u.account(); err != nil {
			return err
		}
		h.svc.UseStorage(h.account)
		return nil
	}
	store, err := blob.Open(h.cfg.Dir, h.log)
	if err != nil {
		return err
	}
	h.blobs = blob.New(blob.Config{
		Store: store, Hostnames: h.cfg.Hostnames, Strike: h.strikeBlob, Done: h.svc.Done(), Logger: h.log,
	})
	h.svc.UseStorage(h.blobs.Container(u.container()))
	return nil
}

func (h *Hub) strikeBlob(name string) blob.Trouble {
	var t blob.Trouble
	if f, struck := h.svc.StrikeBlob(api.FaultStorageDelay, name); struck {
		t.Delay = time.Duration(f.Delay)
	}
	if f, struck := h.svc.StrikeBlob(api.FaultStorageStatus, name); struck {
		t.Status = f.Code
	}
	return t
}

// withBlobs puts the blob endpoint beside the REST front. Not within its mux,
// which would clean paths of what a blob's name may hold.
func (h *Hub) withBlobs(rest http.Handler) http.Handler {
	if h.blobs == nil {
		return rest
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if h.blobs.Serves(r) {
			h.blobs.ServeHTTP(w, r)
			return
		}
		rest.ServeHTTP(w, r)
	})
}

// Files lists what a device, or a module ("device/module"), has uploaded, in the
// order of the names.
func (h *Hub) Files(ctx context.Context, id string) ([]api.File, error) {
	return h.svc.Files(ctx, api.ParseID(id))
}

// OpenFile gives the content of an uploaded file; name is without the device's
// id. A missing one is an *api.Error, 404000. Close what it gives.
func (h *Hub) OpenFile(ctx context.Context, id, name string) (io.ReadCloser, api.File, error) {
	return h.svc.OpenFile(ctx, api.ParseID(id), name)
}

// FileNotifications returns those that wait, without taking them, oldest first:
// of one device, or of all with "". They wait for an hour, or until a service
// completes them over REST.
func (h *Hub) FileNotifications(device string) []api.FileNotification {
	all := []api.FileNotification{}
	_ = h.svc.ReadFileNotifications(context.Background(), device, false, func(n api.FileNotification) error { // f gives no error
		all = append(all, n)
		return nil
	}, nil)
	return all
}

// WatchFileNotifications calls f for every notification that waits, without
// taking it, and for those that come, in order, until the context ends, f returns
// an error, or the hub closes (nil). device "" means all.
func (h *Hub) WatchFileNotifications(ctx context.Context, device string, f func(api.FileNotification) error) error {
	return h.svc.ReadFileNotifications(ctx, device, true, f, nil)
}
