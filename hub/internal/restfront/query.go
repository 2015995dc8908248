package restfront

import (
	"bytes"
	"encoding/json"
	"net/http"
	"strconv"

	"github.com/fairlead-iot/fairlead/hub/api"
	"github.com/fairlead-iot/fairlead/hub/internal/query"
)

// Pages of https://learn.microsoft.com/rest/api/iothub/service/query. The default
// is not documented.
const (
	maxPage     = 1000
	defaultPage = 100
)

func (f *Front) query(r *http.Request) (any, error) {
	var in struct {
		Query string `json:"query"`
	}
	if err := decode(r, &in); err != nil {
		return nil, err
	}
	q, err := query.Parse(in.Query)
	if err != nil {
		return nil, api.Refuse(api.CodeArgumentInvalid, "query: %v", err)
	}
	size, err := headerNumber(r, "x-ms-max-item-count", f.cfg.QueryPage)
	if err != nil {
		return nil, err
	}
	// The continuation token is the number of results that were given.
	start, err := headerNumber(r, "x-ms-continuation", 0)
	if err != nil {
		return nil, err
	}
	docs := []map[string]any{}
	for _, t := range f.svc.Twins(q.Modules) {
		doc, err := asDocument(t)
		if err != nil {
			return nil, err
		}
		if q.Match(doc) {
			docs = append(docs, doc)
		}
	}
	all := q.Results(docs)
	from := min(start, len(all))
	to := min(from+min(max(size, 1), maxPage), len(all))
	page := listed{value: all[from:to], kind: "Twin"}
	if q.IsRaw() {
		page.kind = "Raw"
	}
	if to < len(all) {
		page.continuation = strconv.Itoa(to)
	}
	return page, nil
}

func headerNumber(r *http.Request, name string, otherwise int) (int, error) {
	text := r.Header.Get(name)
	if text == "" {
		return otherwise, nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 0 {
		return 0, api.Refuse(api.CodeArgumentInvalid, "%s is %q", name, text)
	}
	return n, nil
}

// asDocument is the twin's JSON, decoded.
func asDocument(t api.Twin) (map[string]any, error) {
	text, err := json.Marshal(t)
	if err != nil {
		return nil, err
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	var doc map[string]any
	err = d.Decode(&doc)
	return doc, err
}
