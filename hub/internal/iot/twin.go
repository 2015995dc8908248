package iot

import (
	"encoding/json"
	"fmt"
	"maps"
	"time"

	"github.com/fairlead-iot/fairlead/hub/api"
)

// Twin returns the twin as the service sees it.
func (s *Service) Twin(id api.ID) (api.Twin, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	ident, err := s.find(id)
	if err != nil {
		return api.Twin{}, err
	}
	return s.viewTwin(ident), nil
}

// Twins returns the twins of all devices, or of all modules, in the order of
// their ids.
func (s *Service) Twins(modules bool) []api.Twin {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []api.Twin
	for _, id := range s.sortedIDs() {
		if (id.Module != "") == modules {
			all = append(all, s.viewTwin(s.identities[id]))
		}
	}
	return all
}

func (s *Service) viewTwin(ident *identity) api.Twin {
	d := s.view(ident)
	return api.Twin{
		DeviceID: d.DeviceID, ModuleID: d.ModuleID, ETag: ident.twin.ETag, DeviceETag: d.ETag,
		Status: d.Status, StatusReason: d.StatusReason, StatusUpdateTime: d.StatusUpdatedTime,
		ConnectionState: d.ConnectionState, LastActivityTime: d.LastActivityTime,
		CloudToDeviceMessageCount: d.CloudToDeviceMessageCount,
		AuthenticationType:        d.Authentication.Type, X509Thumbprint: d.Authentication.X509Thumbprint,
		ModelID: ident.twin.ModelID, Version: ident.twin.Version, Tags: cloneTree(ident.twin.Tags),
		Properties:   api.TwinProperties{Desired: ident.twin.Desired.forService(), Reported: ident.twin.Reported.forService()},
		Capabilities: d.Capabilities, DeviceScope: d.DeviceScope, ParentScopes: d.ParentScopes,
	}
}

// PatchTwin merges tags and desired properties, and pushes the desired patch to
// a device that is connected and subscribed.
func (s *Service) PatchTwin(id api.ID, p api.TwinPatch, match Match) (api.Twin, error) {
	return s.changeTwin(id, p, match, false)
}

// ReplaceTwin replaces the sections that are present.
func (s *Service) ReplaceTwin(id api.ID, p api.TwinPatch, match Match) (api.Twin, error) {
	return s.changeTwin(id, p, match, true)
}

func (s *Service) changeTwin(id api.ID, p api.TwinPatch, match Match, whole bool) (api.Twin, error) {
	var desired map[string]any
	if p.Properties != nil && p.Properties.Desired != nil {
		// What a GET gave may come back with a PUT.
		desired = maps.Clone(p.Properties.Desired)
		delete(desired, "$metadata")
		delete(desired, "$version")
		if err := checkTree("properties.desired", desired); err != nil {
			return api.Twin{}, err
		}
	}
	if err := checkTree("tags", p.Tags); err != nil {
		return api.Twin{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	ident, err := s.find(id)
	if err != nil {
		return api.Twin{}, err
	}
	if !match.fits(ident.twin.ETag) {
		return api.Twin{}, api.Refuse(api.CodePreconditionFailed, "PreconditionFailed, ETag may be invalid.")
	}
	if p.Tags == nil && desired == nil {
		return s.viewTwin(ident), nil
	}
	next, now := ident.twin, time.Now()
	if p.Tags != nil {
		tags := section{Doc: next.Tags, Meta: map[string]any{}}
		if whole {
			next.Tags = tags.replace(p.Tags, now, false).Doc
		} else {
			next.Tags = tags.patch(p.Tags, now, false).Doc
		}
		if err := checkGrowth("tags", ident.twin.Tags, next.Tags, maxTags); err != nil {
			return api.Twin{}, err
		}
	}
	push := desired
	if desired != nil {
		if whole {
			next.Desired = next.Desired.replace(desired, now, true)
			push = next.Desired.Doc
		} else {
			next.Desired = next.Desired.patch(desired, now, true)
		}
		if err := checkGrowth("properties.desired", ident.twin.Desired.Doc, next.Desired.Doc, maxProperties); err != nil {
			return api.Twin{}, err
		}
	}
	next.Version++
	next.ETag = s.newETag()
	if err := s.setTwin(ident, next); err != nil {
		return api.Twin{}, err
	}
	if whole {
		s.emitTwinReplace(ident)
	} else {
		s.emitTwinUpdate(ident, p.Tags, desired, nil)
	}
	if push != nil && ident.live != nil && ident.live.features[FeatureDesired] {
		body := maps.Clone(push)
		body["$version"] = next.Desired.Version
		text, err := json.Marshal(body)
		if err != nil {
			return api.Twin{}, fmt.Errorf("encode desired patch: %w", err)
		}
		ident.live.link.Desired(next.Desired.Version, text)
		ident.counters.DesiredPushes++
		s.saw(id, api.SawDesired, text)
	}
	return s.viewTwin(ident), nil
}

func (s *Service) setTwin(ident *identity, next twin) error {
	old := ident.twin
	ident.twin = next
	if err := s.putTwin(ident); err != nil {
		ident.twin = old
		return err
	}
	return nil
}

// TwinDocument is the twin as its device sees it, in JSON.
func (se *Session) TwinDocument() ([]byte, error) {
	s := se.svc
	s.mu.Lock()
	defer s.mu.Unlock()
	if !se.isLive() {
		return nil, errStale
	}
	se.ident.counters.TwinGets++
	s.saw(se.ident.id, api.SawTwinGet)
	se.touch()
	return json.Marshal(map[string]any{"desired": se.ident.twin.Desired.forDevice(), "reported": se.ident.twin.Reported.forDevice()})
}

// Report merges a reported patch and returns the section's new version. onVersion
// is a precondition, 0 for none.
func (se *Session) Report(patch []byte, onVersion int64) (int64, error) {
	tree, err := DecodeObject(patch)
	if err != nil {
		return 0, err
	}
	if err := checkTree("properties.reported", tree); err != nil {
		return 0, err
	}
	s := se.svc
	s.mu.Lock()
	defer s.mu.Unlock()
	if !se.isLive() {
		return 0, errStale
	}
	ident := se.ident
	se.touch()
	if onVersion != 0 && onVersion != ident.twin.Reported.Version {
		return 0, api.Refuse(api.CodePreconditionFailed, "Precondition failed: version did not match, existingVersion:%d newVersion:%d", ident.twin.Reported.Version, onVersion)
	}
	next := ident.twin
	next.Reported = next.Reported.patch(tree, time.Now(), false)
	if err := checkGrowth("properties.reported", ident.twin.Reported.Doc, next.Reported.Doc, maxProperties); err != nil {
		return 0, err
	}
	next.Version++
	if s.cfg.Unsettled.ReportedETag {
		next.ETag = s.newETag()
	}
	if err := s.setTwin(ident, next); err != nil {
		return 0, err
	}
	s.emitTwinUpdate(ident, nil, nil, tree)
	ident.counters.ReportedPatches++
	s.saw(ident.id, api.SawReported, patch)
	return next.Reported.Version, nil
}

// DecodeTwinPatch reads what of a twin the service may write. Other members of a
// twin may stand there, as they do when a client sends back what it got; but
// reported belongs to the device: a patch that has it alone changes nothing, or
// is refused where Unsettled says so.
func (s *Service) DecodeTwinPatch(data []byte) (api.TwinPatch, error) {
	return decodeTwinPatch(data, s.cfg.Unsettled.RefuseReported)
}

// decodeTwinPatch is DecodeTwinPatch where that is decided.
func decodeTwinPatch(data []byte, refuseReported bool) (api.TwinPatch, error) {
	whole, err := DecodeObject(data)
	if err != nil {
		return api.TwinPatch{}, err
	}
	var p api.TwinPatch
	var ok bool
	if tags, there := whole["tags"]; there && tags != nil {
		if p.Tags, ok = tags.(map[string]any); !ok {
			return api.TwinPatch{}, api.Refuse(api.CodeArgumentInvalid, "tags must be an object")
		}
	}
	if properties, there := whole["properties"]; there && properties != nil {
		halves, ok := properties.(map[string]any)
		if !ok {
			return api.TwinPatch{}, api.Refuse(api.CodeArgumentInvalid, "properties must be an object")
		}
		if _, there := halves["reported"]; there && refuseReported {
			return api.TwinPatch{}, api.Refuse(api.CodeArgumentInvalid, "properties.reported belongs to the device; leave it out of the patch")
		}
		if desired, there := halves["desired"]; there && desired != nil {
			p.Properties = &api.TwinPatchProperties{}
			if p.Properties.Desired, ok = desired.(map[string]any); !ok {
				return api.TwinPatch{}, api.Refuse(api.CodeArgumentInvalid, "properties.desired must be an object")
			}
		}
	}
	return p, nil
}
