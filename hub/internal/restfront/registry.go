package restfront

import (
	"net/http"
	"strconv"
	"strings"

	"github.com/fairlead-iot/fairlead/hub/api"
	"github.com/fairlead-iot/fairlead/hub/internal/iot"
)

// Limits of https://learn.microsoft.com/rest/api/iothub/service/devices and
// …/bulk-registry.
const (
	maxList = 1000
	maxBulk = 100
)

func (f *Front) listDevices(r *http.Request) (any, error) {
	top := maxList
	if text := r.URL.Query().Get("top"); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil || n < 1 || n > maxList {
			return nil, api.Refuse(api.CodeArgumentInvalid, "top must be 1 to %d, not %q", maxList, text)
		}
		top = n
	}
	return f.svc.Devices(top), nil
}

func (f *Front) getDevice(r *http.Request) (any, error) {
	d, err := f.svc.Device(idOf(r))
	return tagged{d, d.ETag}, err
}

func (f *Front) listModules(r *http.Request) (any, error) {
	return f.svc.Modules(r.PathValue("id"))
}

func (f *Front) putDevice(r *http.Request) (any, error) {
	var d api.Device
	if err := decode(r, &d); err != nil {
		return nil, err
	}
	id := idOf(r)
	if d.DeviceID != "" && d.DeviceID != id.Device || d.ModuleID != "" && d.ModuleID != id.Module {
		return nil, api.Refuse(api.CodeArgumentInvalid, "the body is for %s, the address for %s", d.ID(), id)
	}
	d.DeviceID, d.ModuleID = id.Device, id.Module
	d, err := f.svc.PutDevice(d, matchOf(r))
	return tagged{d, d.ETag}, err
}

func (f *Front) deleteDevice(r *http.Request) (any, error) {
	return nil, f.svc.DeleteDevice(idOf(r), matchOf(r))
}

func (f *Front) purge(r *http.Request) (any, error) {
	id := r.PathValue("id")
	n, err := f.svc.PurgeC2D(id)
	return map[string]any{"totalMessagesPurged": n, "deviceId": id, "moduleId": nil}, err
}

type bulkItem struct {
	api.Device
	ID         string `json:"id"`
	ImportMode string `json:"importMode"`
}

type bulkError struct {
	DeviceID    string `json:"deviceId"`
	ModuleID    string `json:"moduleId,omitempty"`
	ErrorCode   string `json:"errorCode"`
	ErrorStatus string `json:"errorStatus"`
}

type bulkResult struct {
	IsSuccessful bool        `json:"isSuccessful"`
	Errors       []bulkError `json:"errors"`
	Warnings     []any       `json:"warnings"`
}

func (f *Front) bulk(r *http.Request) (any, error) {
	var items []bulkItem
	if err := decode(r, &items); err != nil {
		return nil, err
	}
	if len(items) > maxBulk {
		return nil, api.Refuse(api.CodeArgumentInvalid, "%d devices, at most %d", len(items), maxBulk)
	}
	result := bulkResult{IsSuccessful: true, Errors: []bulkError{}, Warnings: []any{}}
	for _, item := range items {
		d := item.Device
		d.DeviceID = item.ID
		if err := f.bulkOne(d, item.ImportMode); err != nil {
			e := iot.AsError(err)
			result.IsSuccessful = false
			result.Errors = append(result.Errors, bulkError{d.DeviceID, d.ModuleID, e.Name, e.Message})
		}
	}
	return result, nil
}

func (f *Front) bulkOne(d api.Device, mode string) error {
	etag := iot.Match(strconv.Quote(d.ETag))
	var err error
	switch strings.ToLower(mode) {
	case "", "create":
		_, err = f.svc.PutDevice(d, "")
	case "update":
		_, err = f.svc.PutDevice(d, "*")
	case "updateifmatchetag":
		_, err = f.svc.PutDevice(d, etag)
	case "delete":
		err = f.svc.DeleteDevice(d.ID(), "*")
	case "deleteifmatchetag":
		err = f.svc.DeleteDevice(d.ID(), etag)
	default:
		err = api.Refuse(api.CodeArgumentInvalid, "import mode %q", mode)
	}
	return err
}

func (f *Front) deviceStatistics(*http.Request) (any, error) {
	st := f.svc.Statistics()
	return map[string]int{
		"totalDeviceCount": st.TotalDeviceCount, "enabledDeviceCount": st.EnabledDeviceCount, "disabledDeviceCount": st.DisabledDeviceCount,
	}, nil
}

func (f *Front) serviceStatistics(*http.Request) (any, error) {
	return map[string]int{"connectedDeviceCount": f.svc.Statistics().ConnectedDeviceCount}, nil
}
