package engine

import (
	"context"
	"encoding/json"

	"github.com/fairlead-iot/fairlead/core"
)

// desired is the document behind the machine's version numbers. It belongs to the engine's goroutine.
type desired struct {
	// document is nil while it is not known: before the first twin get, and for ever without ensure_desired_properties.
	document json.RawMessage
	// patch joins all patches that have come while the document was not known.
	patch json.RawMessage
	// offered is the document of the last twin get, and pushed are the last patches, until the machine says what to do
	// with them. It does so within the same turn.
	offered json.RawMessage
	pushed  map[int64][]byte
}

// pushedKept bounds the patches that the machine has not asked for.
const pushedKept = 16

// offer keeps the document of a twin get. It returns the version and whether the document differs from the one held;
// ok is false if that is no twin.
func (d *desired) offer(twin []byte) (version int64, changed, ok bool) {
	var t struct {
		Desired json.RawMessage `json:"desired"`
	}
	var v struct {
		Version *int64 `json:"$version"`
	}
	if json.Unmarshal(twin, &t) != nil || json.Unmarshal(t.Desired, &v) != nil || v.Version == nil {
		return 0, false, false
	}
	doc, err := core.SelectKeys(t.Desired, nil)
	if err != nil {
		return 0, false, false
	}
	d.offered = doc
	return *v.Version, d.document == nil || !core.SameJSON(d.document, doc), true
}

func (d *desired) adopt() { d.document, d.offered, d.pushed = d.offered, nil, nil }

func (d *desired) push(version int64, patch []byte) {
	if d.pushed == nil || len(d.pushed) >= pushedKept {
		d.pushed = map[int64][]byte{}
	}
	d.pushed[version] = patch
}

func (e *Engine) mergeDesired(ctx context.Context, version int64) {
	d := &e.desired
	patch, err := core.SelectKeys(d.pushed[version], nil)
	delete(d.pushed, version)
	switch {
	case err != nil:
	case d.document != nil:
		d.document, err = core.MergePatch(d.document, patch)
	default:
		d.patch, err = core.JoinPatches(d.patch, patch)
		for _, p := range e.plugins {
			if err == nil {
				p.pending, err = core.JoinPatches(p.pending, patch)
			}
		}
	}
	if err != nil {
		e.log.WarnContext(ctx, "desired patch does not parse", "version", version, "error", err)
	}
}

func (e *Engine) deliverDesired(ctx context.Context, f core.DeliverDesired) {
	p := e.plugins[f.Plugin]
	state, err := e.desired.forPlugin(p, f.Version)
	if err != nil {
		e.log.WarnContext(ctx, "desired properties do not parse", "version", f.Version, "error", err)
	}
	if state == nil { // nothing that concerns this plugin
		e.inbox.post(core.Returned{Plugin: f.Plugin, Start: f.Start, Call: f.Call})
		return
	}
	c := &call{plugin: p.cfg.Name}
	e.calls[f.Call] = c
	e.handle(p, f.Start, f.Call, c, core.Delivery{Kind: core.InboundDesired, Desired: state})
}

// forPlugin computes what a plugin is given; nil if nothing of its keys has changed since it was given something.
func (d *desired) forPlugin(p *pluginSlot, version int64) (*core.Desired, error) {
	if d.document == nil {
		patch := d.patch
		if p.wasGiven {
			patch = p.pending
		}
		p.wasGiven, p.pending = true, nil
		patch, err := core.SelectKeys(patch, p.cfg.TwinKeys)
		if err != nil || string(patch) == "{}" {
			return nil, err
		}
		return &core.Desired{Version: version, Patch: patch}, nil
	}
	doc, err := core.SelectKeys(d.document, p.cfg.TwinKeys)
	if err != nil {
		return nil, err
	}
	state := &core.Desired{Version: version, Document: doc}
	if p.wasGiven {
		if core.SameJSON(p.document, doc) {
			return nil, nil
		}
		if state.Patch, err = core.DiffPatch(p.document, doc); err != nil {
			return nil, err
		}
	}
	p.wasGiven, p.document = true, doc
	return state, nil
}
