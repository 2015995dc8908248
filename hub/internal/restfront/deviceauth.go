package restfront

import (
	"net/http"
	"time"

	"github.com/fairlead-iot/fairlead/hub/api"
	"github.com/fairlead-iot/fairlead/hub/internal/iot"
)

// deviceRoute adds a handler behind the check of the device's own credential.
// What it returns is written as route does.
func (f *Front) deviceRoute(pattern string, handle func(r *http.Request, cred iot.Credential) (any, error)) {
	f.mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
		cred, err := f.authenticateDevice(r)
		if err != nil {
			f.writeError(w, r, err)
			return
		}
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		result, err := handle(r, cred)
		if err != nil {
			f.writeError(w, r, err)
			return
		}
		f.write(w, result)
	})
}

// authenticateDevice wants a token in Authorization. Why it refuses is in the
// hub's log only.
func (f *Front) authenticateDevice(r *http.Request) (iot.Credential, error) {
	id := idOf(r)
	cred, err := f.svc.AuthenticateDevice(id, r.Header.Get("Authorization"), time.Now())
	if err == nil {
		return cred, nil
	}
	f.log.Info("device refused over HTTPS", "device", id.String(), "reason", err)
	if iot.AsError(err).Code == api.CodeDeviceDisabled {
		return cred, err
	}
	return cred, api.Refuse(api.CodeUnauthorized, "Unauthorized")
}
