package restfront

import (
	"encoding/json"
	"net/http"

	"github.com/fairlead-iot/fairlead/hub/api"
	"github.com/fairlead-iot/fairlead/hub/internal/iot"
)

func (f *Front) getTwin(r *http.Request) (any, error) {
	t, err := f.svc.Twin(idOf(r))
	return tagged{t, t.ETag}, err
}

func (f *Front) changeTwin(change func(api.ID, api.TwinPatch, iot.Match) (api.Twin, error)) func(*http.Request) (any, error) {
	return func(r *http.Request) (any, error) {
		data, err := readBody(r)
		if err != nil {
			return nil, err
		}
		p, err := f.svc.DecodeTwinPatch(data)
		if err != nil {
			return nil, err
		}
		t, err := change(idOf(r), p, matchOf(r))
		return tagged{t, t.ETag}, err
	}
}

func (f *Front) method(r *http.Request) (any, error) {
	var in struct {
		MethodName               string          `json:"methodName"`
		Payload                  json.RawMessage `json:"payload"`
		ResponseTimeoutInSeconds *int            `json:"responseTimeoutInSeconds"`
		ConnectTimeoutInSeconds  *int            `json:"connectTimeoutInSeconds"`
	}
	if err := decode(r, &in); err != nil {
		return nil, err
	}
	return f.svc.InvokeMethod(r.Context(), idOf(r), api.MethodRequest(in))
}
