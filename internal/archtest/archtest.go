// Package archtest holds the rules of who may import whom, each with its reason, and a test that they are kept.
//
// # Usage
//
// Run its test. To add a rule, add a line to Rules with a reason that a newcomer understands.
//
// # Testing
//
// A guard that never barked may be deaf: the test also runs the rules over invented packages that break them.
package archtest

import (
	"fmt"
	"strings"
)

// Module is the path of this module.
const Module = "github.com/fairlead-iot/fairlead"

// Rule forbids packages to import others.
type Rule struct {
	// From are the packages that the rule is about: paths within the module; one that ends in "/..." includes those
	// below. "..." alone is every package.
	From []string
	// Except are packages within From that are free of the rule.
	Except []string
	// Deny are the imports forbidden, in the same form; "std" is the standard library, "other" any other module, names
	// that begin with "std:" single packages of the standard library.
	Deny []string
	// Allow are imports permitted although Deny covers them.
	Allow []string
	// Why is shown when the rule is broken.
	Why string
}

// Rules are the import rules of the project. They speak of what ships: tests may import what they like.
var Rules = []Rule{
	{
		From: []string{"core"},
		Deny: []string{"other", "..."},
		Why:  "everything points at core; core points at nothing of ours and nothing of others",
	},
	{
		From: []string{"core"}, Deny: []string{"std"},
		Allow: []string{"std:bytes", "std:cmp", "std:context", "std:crypto", "std:encoding/json", "std:errors", "std:fmt", "std:io", "std:math/rand/v2", "std:reflect", "std:slices", "std:sort", "std:strconv", "std:strings", "std:time"},
		Why:   "core has no goroutine, network, disk or log: it is a function of what it is told; what it needs of the standard library stands here",
	},
	{
		From: []string{"core/engine"}, Deny: []string{"other", "..."}, Allow: []string{"core"},
		Why: "the engine knows the ports, never what stands behind them",
	},
	{
		From: []string{"transports/...", "credentials/...", "store/...", "plugins/..."},
		Deny: []string{"core/engine", "device/...", "config/...", "hub/...", "cmd/..."},
		Why:  "what stands behind a port knows the port, not who uses it",
	},
	{
		From: []string{"transports/..."}, Deny: []string{"credentials/...", "store/...", "plugins/..."},
		Why: "siblings behind the ports never see each other",
	},
	{
		From: []string{"credentials/..."}, Deny: []string{"transports/...", "store/...", "plugins/..."},
		Why: "siblings behind the ports never see each other",
	},
	{
		From: []string{"plugins/..."}, Deny: []string{"transports/...", "store/...", "credentials/..."},
		Why: "siblings behind the ports never see each other",
	},
	{
		From: []string{"transports/mqtt", "transports/http"}, Deny: []string{"transports/..."}, Allow: []string{"transports/netdial"},
		Why: "the one sibling arrow goes mqttws → mqtt → netdial, http → netdial",
	},
	{
		From: []string{"transports/netdial"}, Deny: []string{"transports/..."},
		Why: "the one sibling arrow goes mqttws → mqtt → netdial, http → netdial",
	},
	{
		From: []string{"plugins/sdk/..."}, Except: []string{"plugins/sdk/sdktest"}, Deny: []string{"plugins/host/..."},
		Why: "a plugin's author gets the plugin's side only; the host would come with it otherwise",
	},
	{
		From: []string{"hub/..."}, Deny: []string{"..."}, Allow: []string{"hub/..."},
		Why: "the hub is the other witness: it shares no code with the client side, so that one wrong belief cannot hide on both",
	},
	{
		From: []string{"hub/..."}, Deny: []string{"other:github.com/eclipse/paho.mqtt.golang"},
		Why: "the hub's codec is its own, not the client's",
	},
	{
		From: []string{"..."}, Except: []string{"hub/...", "cmd/..."}, Deny: []string{"hub/..."},
		Why: "nothing but the command line and the demo may lean on the embedded hub",
	},
	{
		From: []string{"core/...", "transports/...", "plugins/...", "credentials/...", "hub/..."}, Deny: []string{"config/..."},
		Why: "the configuration is read in one place and handed on as plain values",
	},
	{
		From: []string{"..."}, Except: []string{"device", "cmd/...", "transports/...", "plugins/...", "internal/bench/...", "internal/doctor"},
		Deny: []string{"transports/...", "credentials/...", "store/...", "plugins/host/..."},
		Why:  "only device and the command know that a concrete thing exists; and the doctor, who looks at the transports' own layers",
	},
	{
		From: []string{"internal/doctor"}, Deny: []string{"core/engine", "device/...", "config/...", "credentials/...", "store/...", "plugins/..."},
		Why: "the doctor looks at the way to the hub as the dialer sees it, and is told the rest as plain values",
	},
	{
		From: []string{"examples/..."}, Deny: []string{"..."}, Allow: []string{"examples/...", "plugins/sdk"},
		Why: "an example imports what its reader would",
	},
}

// Package is what the rules look at.
type Package struct {
	Path    string
	Imports []string
}

// Check returns a line for each import that breaks a rule.
func Check(rules []Rule, packages []Package) []string {
	var broken []string
	for _, p := range packages {
		rel, ok := relative(p.Path)
		if !ok {
			continue
		}
		for _, r := range rules {
			if !anyMatch(r.From, rel) || anyMatch(r.Except, rel) {
				continue
			}
			for _, imported := range p.Imports {
				if denied(r.Deny, imported) && !denied(r.Allow, imported) && imported != p.Path {
					broken = append(broken, fmt.Sprintf("%s imports %s: %s", rel, imported, r.Why))
				}
			}
		}
	}
	return broken
}

// relative returns a path within the module.
func relative(path string) (string, bool) {
	if path == Module {
		return ".", true
	}
	return strings.CutPrefix(path, Module+"/")
}

func denied(patterns []string, imported string) bool {
	rel, isOurs := relative(imported)
	first, _, _ := strings.Cut(imported, "/")
	isStd := !isOurs && !strings.Contains(first, ".")
	for _, p := range patterns {
		name, isSingle := strings.CutPrefix(p, "std:")
		other, isOther := strings.CutPrefix(p, "other:")
		switch {
		case isSingle:
			if isStd && imported == name {
				return true
			}
		case isOther:
			if strings.HasPrefix(imported, other) {
				return true
			}
		case p == "std":
			if isStd {
				return true
			}
		case p == "other":
			if !isOurs && !isStd {
				return true
			}
		default:
			if isOurs && match(p, rel) {
				return true
			}
		}
	}
	return false
}

func anyMatch(patterns []string, rel string) bool {
	for _, p := range patterns {
		if match(p, rel) {
			return true
		}
	}
	return false
}

func match(pattern, rel string) bool {
	if pattern == "..." {
		return true
	}
	if tree, ok := strings.CutSuffix(pattern, "/..."); ok {
		return rel == tree || strings.HasPrefix(rel, tree+"/")
	}
	return rel == pattern
}
