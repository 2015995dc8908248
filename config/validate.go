package config

import (
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// validate checks what takes more than one value to see.
func (c *Config) validate(root *field) []Problem {
	v := validator{c: c}
	v.required(root, "")
	v.identity()
	v.connection()
	v.transports()
	v.plugins()
	return v.problems
}

type validator struct {
	c        *Config
	problems []Problem
}

func (v *validator) add(key, format string, args ...any) {
	v.problems = append(v.problems, v.c.Problem(key, format, args...))
}

// required looks for missing keys in the sections that are there.
func (v *validator) required(f *field, key string) {
	for i := range f.fields {
		c := &f.fields[i]
		k := joinKey(key, c.name)
		if !v.c.IsSet(k) {
			if c.required {
				v.add(k, "is missing%s", missingHint(k))
			}
			continue
		}
		switch c.kind {
		case sectionKind:
			v.required(c, k)
		case listKind:
			for j := range len(v.c.Transports) {
				v.required(c, itemKey(k, j))
			}
		case namedKind:
			for _, p := range v.c.Plugins {
				v.required(c, joinKey(k, p.Name))
			}
		default: // a proxy's section has been looked at when it was read
		}
	}
}

func missingHint(key string) string {
	if key == "device" {
		return ": write who the device is, as in device: {connection_string: {file: device.cs}}"
	}
	return ""
}

func (v *validator) identity() {
	d := &v.c.Device
	if !v.c.IsSet("device") {
		return
	}
	all := []string{"connection_string", "symmetric_key", "sastoken", "x509", "provisioning", "edge_environment"}
	var given []string
	for _, name := range all {
		if v.c.IsSet("device."+name) && (name != "edge_environment" || d.EdgeEnvironment) {
			given = append(given, name)
		}
	}
	if x := d.X509; x != nil {
		const key = "device.x509"
		beside := v.c.IsSet("device.connection_string")
		for _, name := range []string{"hostname", "device_id", "module_id"} {
			switch isSet := v.c.IsSet(joinKey(key, name)); {
			case beside && isSet:
				v.add(joinKey(key, name), "stands in the connection string already: leave it out")
			case !beside && !isSet && name != "module_id":
				v.add(joinKey(key, name), "is missing")
			}
		}
		if beside { // one identity, in two parts
			given = slices.DeleteFunc(given, func(name string) bool { return name == "x509" })
		}
	}
	switch {
	case len(given) == 0:
		v.add("device", "no identity: write exactly one of %s", orList(all))
	case len(given) > 1:
		v.add("device."+given[1], "a second identity besides %s (line %d): keep exactly one", given[0], v.c.Where("device."+given[0]).Line)
	}
	if p := d.Provisioning; p != nil {
		const key = "device.provisioning"
		proofs := 0
		for _, name := range []string{"symmetric_key", "group_symmetric_key", "x509"} {
			if v.c.IsSet(joinKey(key, name)) {
				proofs++
			}
		}
		if proofs != 1 {
			v.add(key, "write exactly one of symmetric_key, group_symmetric_key and x509 as the proof of identity")
		}
	}
	if d.EdgeEnvironment && v.c.IsSet("tls.server_verification_cert") {
		v.add("tls.server_verification_cert", "does not go with edge_environment: the Edge runtime says whom to trust")
	}
	if d.EdgeEnvironment && d.GatewayHostname != "" {
		v.add("device.gateway_hostname", "does not go with edge_environment: the Edge runtime names the gateway")
	}
}

func (v *validator) connection() {
	c := &v.c.Connection
	if c.KeepAlive%time.Second != 0 {
		v.add("connection.keep_alive", "%s is not a whole number of seconds, which is all that MQTT can say", formatDuration(c.KeepAlive))
	}
	if c.RetryMax < c.RetryInterval {
		key := "connection.connection_retry_max"
		if !v.c.IsSet(key) {
			key = "connection.connection_retry_interval"
		}
		v.add(key, "connection_retry_max (%s) is shorter than connection_retry_interval (%s): it is the longest wait later in an outage",
			formatDuration(c.RetryMax), formatDuration(c.RetryInterval))
	}
}

func (v *validator) transports() {
	if len(v.c.Transports) == 0 {
		v.add("transports", "the list is empty: name at least one route, as in [{use: mqtt}]")
	}
	for i, t := range v.c.Transports {
		same := func(u Transport) bool { return t.Use != "" && u == t }
		if j := slices.IndexFunc(v.c.Transports[:i], same); j >= 0 {
			v.add(itemKey("transports", i), "is the same route as %s", itemKey("transports", j))
		}
	}
}

func (v *validator) plugins() {
	owner := map[string]string{} // method to plugin
	for i, p := range v.c.Plugins {
		key := "plugins." + p.Name
		builtin, command := v.c.IsSet(key+".builtin"), v.c.IsSet(key+".command")
		switch {
		case builtin && command:
			v.add(key, "builtin and command exclude each other: keep one")
		case !builtin && !command:
			v.add(key, "says nothing of what to run: write builtin or command")
		case command && p.Command != nil && (len(p.Command) == 0 || p.Command[0] == ""):
			v.add(key+".command", "names no program")
		}
		for j, m := range p.Methods {
			switch first, taken := owner[m]; {
			case taken && first == p.Name:
				v.add(itemKey(key+".methods", j), "%q stands twice in the list", m)
			case taken:
				v.add(itemKey(key+".methods", j), "method %q is claimed by plugin %s and by plugin %s: give it to one of them", m, first, p.Name)
			default:
				owner[m] = p.Name
			}
		}
		for j, k := range p.TwinKeys {
			if slices.Contains(p.TwinKeys[:j], k) {
				v.add(itemKey(key+".twin_keys", j), "%q stands twice in the list", k)
			}
		}
		for _, name := range slices.Sorted(maps.Keys(p.Env)) {
			if k := key + ".env." + name; !envName().MatchString(name) {
				v.add(k, "%q is not the name of a variable: letters, digits and _ are allowed", name)
			} else if strings.ContainsRune(p.Env[name], 0) {
				v.add(k, "holds a NUL character")
			}
		}
		v.messages(i)
	}
}

// messages refuses a match that can never be the first.
func (v *validator) messages(i int) {
	p := v.c.Plugins[i]
	key := "plugins." + p.Name + ".messages.match"
	if p.Messages == nil || !v.c.IsSet(key) {
		return
	}
	if len(p.Messages.Match) == 0 {
		v.add(key, "names no property: name at least one, or leave messages out")
		return
	}
	for _, q := range v.c.Plugins[:i] {
		if q.Messages == nil || len(q.Messages.Match) == 0 {
			continue
		}
		covered := true
		for name, value := range q.Messages.Match {
			if got, ok := p.Messages.Match[name]; !ok || got != value {
				covered = false
			}
		}
		if covered {
			v.add(key, "plugin %s never gets a message: plugin %s comes first and matches all of them", p.Name, q.Name)
			return
		}
	}
}

// resolveUploads makes the directories of plugins absolute.
func (c *Config) resolveUploads() {
	for i := range c.Plugins {
		p := &c.Plugins[i]
		where := c.Where(fmt.Sprintf("plugins.%s.uploads", p.Name))
		for j, dir := range p.Uploads {
			if filepath.IsAbs(dir) {
				continue
			}
			if abs, err := filepath.Abs(filepath.Join(filepath.Dir(where.File), dir)); err == nil {
				p.Uploads[j] = abs
			}
		}
	}
}

// resolveCommands makes a command's program absolute where its name says a place.
func (c *Config) resolveCommands() {
	for i := range c.Plugins {
		cmd := c.Plugins[i].Command
		if len(cmd) == 0 || !strings.ContainsRune(cmd[0], '/') || filepath.IsAbs(cmd[0]) {
			continue
		}
		where := c.Where(fmt.Sprintf("plugins.%s.command", c.Plugins[i].Name))
		abs, err := filepath.Abs(filepath.Join(filepath.Dir(where.File), cmd[0]))
		if err == nil {
			cmd[0] = abs
		}
	}
}
