package restfront

import (
	"bytes"
	"cmp"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"strconv"
	"strings"

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
	at, err := parseContinuation(r.Header.Get("x-ms-continuation"))
	if err != nil {
		return nil, err
	}
	docs, ids := []map[string]any{}, []api.ID{}
	for _, t := range f.svc.Twins(q.Modules) {
		id := api.ID{Device: t.DeviceID, Module: t.ModuleID}
		if !q.IsGrouped() && !at.isBefore(id) {
			continue // it was given on an earlier page
		}
		doc, err := asDocument(t)
		if err != nil {
			return nil, err
		}
		if q.Match(doc) {
			docs, ids = append(docs, doc), append(ids, id)
		}
	}
	all := q.Results(docs)
	if q.IsGrouped() { // groups have no id to go on after
		all = all[min(at.Given, len(all)):]
	}
	if q.Top > 0 {
		all = all[:min(max(q.Top-at.Given, 0), len(all))]
	}
	n := min(max(size, 1), maxPage, len(all))
	page := listed{value: all[:n], kind: "Twin"}
	if q.IsRaw() {
		page.kind = "Raw"
	}
	if n < len(all) {
		at.Given += n
		if !q.IsGrouped() {
			at.After = ids[n-1].String()
		}
		page.continuation = at.String()
	}
	return page, nil
}

// continuation is what x-ms-continuation holds: after which identity to go on,
// so that one that comes or goes meanwhile makes no other come twice or be left
// out.
type continuation struct {
	After string `json:"after,omitempty"`
	Given int    `json:"given"` // how many results there were so far
}

func (c continuation) String() string {
	text, _ := json.Marshal(c) // a text and a number cannot fail
	return base64.StdEncoding.EncodeToString(text)
}

func parseContinuation(text string) (continuation, error) {
	var c continuation
	if text == "" {
		return c, nil
	}
	raw, err := base64.StdEncoding.DecodeString(text)
	if err == nil {
		err = json.Unmarshal(raw, &c)
	}
	if err != nil || c.Given < 0 {
		return c, api.Refuse(api.CodeArgumentInvalid, "x-ms-continuation %q is not what an earlier page gave", text)
	}
	return c, nil
}

// isBefore reports whether the identity comes after all that was given.
func (c continuation) isBefore(id api.ID) bool {
	after := api.ParseID(c.After)
	return cmp.Or(strings.Compare(after.Device, id.Device), strings.Compare(after.Module, id.Module)) < 0
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
