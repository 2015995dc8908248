package restfront

import (
	"encoding/json"
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

// bulkItem is an identity with what is to be done with it. Its etag is the
// device's, TwinETag the twin's.
type bulkItem struct {
	api.Device
	ID         string          `json:"id"`
	ImportMode string          `json:"importMode"`
	TwinETag   string          `json:"twinETag"`
	Tags       json.RawMessage `json:"tags"`
	Properties json.RawMessage `json:"properties"`
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
		if err := f.bulkOne(d, item); err != nil {
			e := iot.AsError(err)
			result.IsSuccessful = false
			result.Errors = append(result.Errors, bulkError{d.DeviceID, d.ModuleID, e.Name, e.Message})
		}
	}
	if !result.IsSuccessful {
		return withStatus{result, http.StatusBadRequest}, nil
	}
	return result, nil
}

func (f *Front) bulkOne(d api.Device, item bulkItem) error {
	etag := iot.Match(strconv.Quote(d.ETag))
	var err error
	switch strings.ToLower(item.ImportMode) {
	case "", "create":
		if _, err = f.svc.PutDevice(d, ""); err == nil {
			err = f.bulkTwin(d.ID(), item, "*")
		}
	case "update":
		_, err = f.svc.PutDevice(d, "*")
	case "updateifmatchetag":
		_, err = f.svc.PutDevice(d, etag)
	case "delete":
		err = f.svc.DeleteDevice(d.ID(), "*")
	case "deleteifmatchetag":
		err = f.svc.DeleteDevice(d.ID(), etag)
	case "updatetwin":
		err = f.bulkTwin(d.ID(), item, "*")
	case "updatetwinifmatchetag":
		err = f.bulkTwin(d.ID(), item, iot.Match(strconv.Quote(item.TwinETag)))
	default:
		err = api.Refuse(api.CodeArgumentInvalid, "importMode %q is none of create, update, updateIfMatchETag, delete, deleteIfMatchETag, updateTwin, updateTwinIfMatchETag", item.ImportMode)
	}
	return err
}

// bulkTwin merges the twin's part of an item, if it has one.
func (f *Front) bulkTwin(id api.ID, item bulkItem, match iot.Match) error {
	if item.Tags == nil && item.Properties == nil {
		return nil
	}
	text, err := json.Marshal(map[string]json.RawMessage{"tags": orNull(item.Tags), "properties": orNull(item.Properties)})
	if err != nil {
		return err
	}
	patch, err := f.svc.DecodeTwinPatch(text)
	if err != nil {
		return err
	}
	_, err = f.svc.PatchTwin(id, patch, match)
	return err
}

func orNull(text json.RawMessage) json.RawMessage {
	if text == nil {
		return json.RawMessage("null")
	}
	return text
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
