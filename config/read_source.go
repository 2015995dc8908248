package config

import (
	"strings"

	"github.com/fairlead-iot/fairlead/core"
)

// credentialName is systemd's rule in short: it names a file.
var credentialName = pattern(`^[A-Za-z0-9._-]+$`)

var envName = pattern(`^[A-Za-z_][A-Za-z0-9_]*$`)

// source reads a secret's source. Its problems never show a value, which may be the secret in the wrong place.
func (r *reader) source(n *node, key string) any {
	const want = "write {file: NAME}, {credential: NAME}, {env: NAME} or the text itself"
	switch n.kind {
	case stringNode:
		if strings.TrimSpace(n.text) == "" {
			r.add(n.pos, key, "is empty: %s", want)
			return nil
		}
		return Source{Text: core.Secret(n.text)}
	case mapNode:
	default:
		r.add(n.pos, key, "is %s: %s", n.words(), want)
		return nil
	}
	var s Source
	bad := false
	for _, e := range n.entries {
		k := joinKey(key, e.key)
		for _, t := range n.twice {
			if t.key == e.key && len(t.key) <= len("credential") {
				r.add(t.pos, displayKey(k), "stands twice: first in line %d", e.pos.Line)
			}
		}
		var name *string
		switch e.key {
		case "file":
			name = &s.File
		case "credential":
			name = &s.Credential
		case "env":
			name = &s.Env
		default:
			near := nearest(e.key, []string{"file", "credential", "env"})
			if near == "" { // it may be the secret
				k = joinKey(key, "…")
			}
			r.add(e.pos, displayKey(k), unknownKey+"%s; %s", didYouMean(near), want)
			bad = true
			continue
		}
		switch {
		case e.val.kind != stringNode:
			r.add(e.val.pos, k, "is %s: a name is wanted", e.val.words())
			bad = true
		case e.val.text == "":
			r.add(e.val.pos, k, "is empty: a name is wanted")
			bad = true
		case e.key == "credential" && (!credentialName().MatchString(e.val.text) || len(e.val.text) > 255 || strings.Trim(e.val.text, ".") == ""):
			r.add(e.val.pos, k, "is not the name of a credential: letters, digits and . _ - are allowed")
			bad = true
		case e.key == "env" && !envName().MatchString(e.val.text):
			r.add(e.val.pos, k, "is not the name of a variable: letters, digits and _ are allowed")
			bad = true
		default:
			*name = e.val.text
		}
	}
	if !bad && len(n.entries) != 1 {
		r.add(n.pos, key, "names %d sources: %s", len(n.entries), want)
		bad = true
	}
	if bad {
		return nil
	}
	if s.File != "" {
		s.File = r.path(s.File)
	}
	return s
}

func (r *reader) pem(n *node, key string) any {
	const want = "write {file: NAME} or the PEM text itself"
	switch n.kind {
	case stringNode:
		p := PEM{Text: n.text}
		if err := checkPEM([]byte(n.text)); err != nil {
			r.add(n.pos, key, "%v; %s", err, want)
			return nil
		}
		return p
	case mapNode:
		r.twice(n, key)
		file := n.get("file")
		for _, e := range n.entries {
			if e.key != "file" {
				r.add(e.pos, displayKey(joinKey(key, e.key)), unknownKey+"%s", didYouMean(nearest(e.key, []string{"file"})))
				return nil
			}
		}
		if file == nil || file.kind != stringNode || file.text == "" {
			r.add(n.pos, key, "names no file: %s", want)
			return nil
		}
		return PEM{File: r.path(file.text)}
	default:
		r.add(n.pos, key, "is %s: %s", n.words(), want)
		return nil
	}
}

func (r *reader) proxy(f *field, n *node, key string) any {
	if n.kind == stringNode {
		switch n.text {
		case ProxyNone, ProxyEnvironment:
			return Proxy{Mode: n.text}
		}
	}
	if n.kind != mapNode {
		near := ""
		if n.kind == stringNode {
			near = nearest(n.text, []string{ProxyNone, ProxyEnvironment})
		}
		r.add(n.pos, key, "write none, environment, or a section with proxy_type, proxy_addr and proxy_port%s", didYouMean(near))
		return nil
	}
	m := r.section(f, n, key)
	r.required(f, n.pos, key)
	p := Proxy{Mode: ProxyFixed}
	p.Type, _ = m["proxy_type"].(string)
	p.Addr, _ = m["proxy_addr"].(string)
	p.Port, _ = m["proxy_port"].(int)
	p.Username, _ = m["proxy_username"].(string)
	p.Password, _ = m["proxy_password"].(Source)
	p.NoProxy, _ = m["no_proxy"].(string)
	return p
}
