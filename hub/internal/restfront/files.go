package restfront

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strconv"

	"github.com/fairlead-iot/fairlead/hub/api"
	"github.com/fairlead-iot/fairlead/hub/internal/iot"
)

// fileRoutes are uploads, as devices begin and complete them, and what services
// see of them. https://learn.microsoft.com/azure/iot-hub/iot-hub-devguide-file-upload
func (f *Front) fileRoutes() {
	for _, path := range []string{"/devices/{id}", "/devices/{id}/modules/{module}"} {
		f.deviceRoute("POST "+path+"/files", f.beginUpload)
		// One official client writes the correlation id into the address, another
		// into the body.
		f.deviceRoute("POST "+path+"/files/notifications", f.completeUpload)
		f.deviceRoute("POST "+path+"/files/notifications/{correlation}", f.completeUpload)
		f.route("GET /fairlead"+path+"/files", iot.ServiceConnect, f.listFiles)
		f.mux.HandleFunc("GET /fairlead"+path+"/files/content", f.readFile)
	}
	// The REST form of the notification link; clients differ in how they write it.
	for _, path := range []string{"/messages/serviceBound/filenotifications", "/messages/servicebound/filenotifications"} {
		f.route("GET "+path, iot.ServiceConnect, f.receiveFileNotification)
		f.route("DELETE "+path+"/{lock}", iot.ServiceConnect, f.settleFileNotification(true))
		f.route("POST "+path+"/{lock}/abandon", iot.ServiceConnect, f.settleFileNotification(false))
	}
	f.mux.HandleFunc("GET /fairlead/files/notifications", f.watchFileNotifications)
}

func (f *Front) beginUpload(r *http.Request, _ iot.Credential) (any, error) {
	var in struct {
		BlobName string `json:"blobName"`
	}
	if err := decode(r, &in); err != nil {
		return nil, err
	}
	return f.svc.BeginUpload(r.Context(), idOf(r), in.BlobName, f.reachedAt(r))
}

// reachedAt is the host and port at which a client on the same way can reach the
// hub again, under a name that its certificate has. Connections that come over
// loopback have an address there; for others the hub's name must do.
func (f *Front) reachedAt(r *http.Request) string {
	addr, ok := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
	if !ok {
		return f.svc.Hostname()
	}
	if at, err := netip.ParseAddrPort(addr.String()); err == nil && at.Addr().Unmap().IsLoopback() {
		return netip.AddrPortFrom(at.Addr().Unmap(), at.Port()).String()
	}
	_, port, err := net.SplitHostPort(addr.String())
	if err != nil {
		return f.svc.Hostname()
	}
	return net.JoinHostPort(f.svc.Hostname(), port)
}

func (f *Front) completeUpload(r *http.Request, _ iot.Credential) (any, error) {
	var in api.UploadCompletion
	if err := decode(r, &in); err != nil {
		return nil, err
	}
	inAddress := r.PathValue("correlation")
	if inAddress != "" && in.CorrelationID != "" && in.CorrelationID != inAddress {
		return nil, api.Refuse(api.CodeArgumentInvalid, "the address and the body name different correlation ids")
	}
	in.CorrelationID = cmp.Or(in.CorrelationID, inAddress)
	if in.CorrelationID == "" {
		return nil, api.Refuse(api.CodeArgumentInvalid, "correlationId is missing")
	}
	return nil, f.svc.CompleteUpload(r.Context(), idOf(r), in)
}

func (f *Front) listFiles(r *http.Request) (any, error) { return f.svc.Files(r.Context(), idOf(r)) }

// readFile gives the content of the file that the query names: a path would be
// cleaned of what a blob's name may hold.
func (f *Front) readFile(w http.ResponseWriter, r *http.Request) {
	if !f.authorize(w, r, iot.ServiceConnect) {
		return
	}
	content, file, err := f.svc.OpenFile(r.Context(), idOf(r), r.URL.Query().Get("name"))
	if err != nil {
		f.writeError(w, r, err)
		return
	}
	defer content.Close() //nolint:errcheck // it was read
	defer f.endWithHub(r, http.NewResponseController(w))()
	h := w.Header()
	h.Set("Content-Type", cmp.Or(file.ContentType, "application/octet-stream"))
	h.Set("ETag", file.ETag)
	h.Set("Last-Modified", file.LastModified.UTC().Format(http.TimeFormat))
	h.Set("Content-Length", strconv.FormatInt(file.Size, 10))
	if n, err := io.CopyN(w, content, file.Size); err != nil {
		f.log.Warn("file not read to its end", "device", idOf(r).String(), "blob", file.BlobName, "bytes", n, "err", err)
		panic(http.ErrAbortHandler) // the status is out: a connection that breaks is what can still be said
	}
}

// receiveFileNotification gives the oldest one that waits, with its lock as the
// ETag, or 204.
func (f *Front) receiveFileNotification(*http.Request) (any, error) {
	n, lock, ok := f.svc.ReceiveFileNotification()
	if !ok {
		return nil, nil
	}
	return tagged{n, lock}, nil
}

func (f *Front) settleFileNotification(remove bool) func(*http.Request) (any, error) {
	return func(r *http.Request) (any, error) {
		return nil, f.svc.SettleFileNotification(r.PathValue("lock"), remove)
	}
}

// watchFileNotifications streams those that wait, without taking them, a JSON
// object a line. With follow=true it goes on with those that come.
func (f *Front) watchFileNotifications(w http.ResponseWriter, r *http.Request) {
	if !f.authorize(w, r, iot.ServiceConnect) {
		return
	}
	q := r.URL.Query()
	follow, err := strconv.ParseBool(cmp.Or(q.Get("follow"), "false"))
	if err != nil {
		f.writeError(w, r, api.Refuse(api.CodeArgumentInvalid, "follow must be true or false, not %q", q.Get("follow")))
		return
	}
	w.Header().Set("Content-Type", "application/x-ndjson")
	out := http.NewResponseController(w)
	defer f.endWithHub(r, out)()
	err = f.svc.ReadFileNotifications(r.Context(), q.Get("device"), follow, func(n api.FileNotification) error {
		line, err := json.Marshal(n)
		if err != nil {
			return fmt.Errorf("encode file notification: %w", err)
		}
		_, err = w.Write(append(line, '\n'))
		return err
	}, out.Flush)
	if err != nil && r.Context().Err() == nil {
		f.log.Warn("watching file notifications ended", "err", err)
	}
}
