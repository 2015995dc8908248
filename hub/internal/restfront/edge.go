package restfront

import (
	"net/http"
	"time"

	"github.com/fairlead-iot/fairlead/hub/api"
	"github.com/fairlead-iot/fairlead/hub/internal/iot"
)

// moduleHeader names the module of IoT Edge that calls, as DEVICE/MODULE: such a
// request goes to the Edge hub, in whose place this hub stands.
// https://github.com/Azure/azure-iot-sdk-csharp/blob/main/iothub/device/src/Transport/Http/HttpTransportHandler.cs
const moduleHeader = "x-ms-edge-moduleId"

// methodRoute adds a direct method's route. A service calls it by right of its
// policy; a module of IoT Edge by its own token, and then only its device, the
// other modules there, and the devices below the same gateway.
func (f *Front) methodRoute(pattern string) {
	f.mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get(moduleHeader) != "" {
			if err := f.authenticateModule(r); err != nil {
				f.writeError(w, r, err)
				return
			}
		} else if !f.authorize(w, r, iot.ServiceConnect) {
			return
		}
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		result, err := f.method(r)
		if err != nil {
			f.writeError(w, r, err)
			return
		}
		f.write(w, result)
	})
}

func (f *Front) authenticateModule(r *http.Request) error {
	refused := api.Refuse(api.CodeUnauthorized, "Unauthorized")
	caller, target := api.ParseID(r.Header.Get(moduleHeader)), idOf(r)
	if caller.Module == "" {
		return refused
	}
	if _, err := f.svc.AuthenticateDevice(caller, r.Header.Get("Authorization"), time.Now()); err != nil {
		f.log.Info("module refused over HTTPS", "module", caller.String(), "reason", err)
		return refused
	}
	if caller.Device == target.Device {
		return nil
	}
	gateway, err := f.svc.Device(api.ID{Device: caller.Device})
	if err != nil {
		return err
	}
	below, err := f.svc.Device(api.ID{Device: target.Device})
	if err != nil {
		return err
	}
	if gateway.DeviceScope == "" || gateway.DeviceScope != below.DeviceScope {
		f.log.Info("module refused over HTTPS", "module", caller.String(), "reason", target.Device+" is not below the same gateway")
		return refused
	}
	return nil
}
