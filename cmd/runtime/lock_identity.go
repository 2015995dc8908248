package main

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"log/slog"
	"slices"
	"strconv"
	"strings"

	"github.com/fairlead-iot/fairlead/config"
	"github.com/fairlead-iot/fairlead/core"
)

// identityLock is the name of an identity on this host: a digest of what identifies it, which tells nobody what that is.
// Addresses and ports that are given count as part of it, since hubs that are all called localhost are told apart by
// nothing else.
func identityLock(c *config.Config, id core.Identity) string {
	h := sha256.New()
	add := func(parts ...string) {
		for _, p := range parts {
			_, _ = fmt.Fprintf(h, "%d:%s;", len(p), p) // a hash takes all
		}
	}
	if p := c.Device.Provisioning; p != nil {
		add("registration", strings.ToLower(p.Host), p.IDScope, p.RegistrationID, p.Address, givenPort(p.Port, defaultPort(c.Transports[0])))
	} else {
		add("identity", strings.ToLower(id.Hostname), id.DeviceID, id.ModuleID)
	}
	var ways []string
	for _, t := range c.Transports {
		if port := givenPort(t.Port, defaultPort(t)); t.Address != "" || port != "" {
			ways = append(ways, t.Use+" "+t.Address+" "+port)
		}
	}
	slices.Sort(ways)
	add(slices.Compact(ways)...)
	return hex.EncodeToString(h.Sum(nil))
}

// givenPort is "" for a port that is not given, or is the usual one.
func givenPort(port, usual int) string {
	if cmp.Or(port, usual) == usual {
		return ""
	}
	return strconv.Itoa(port)
}

// lockIdentity takes the identity for this process: a hub has one session for each, and two runtimes would throw each other
// out. Another one of this host that has it makes for exit code 3, whatever its state directory is. What keeps the lock from
// being taken otherwise is a warning: it must not keep a device from its hub. who names the identity.
func lockIdentity(name, who string, log *slog.Logger) (unlock func(), err error) {
	unlock, holder, err := holdName(name)
	switch {
	case err != nil:
		log.Warn("whether another fairlead of this host uses the identity is not known", "error", err)
		return func() {}, nil
	case holder == nil:
		return unlock, nil
	case !holder.counts:
		log.Warn("another user's process holds the name by which two runtimes with one identity are told: it is passed over", "pid", holder.pid, "uid", holder.uid)
		return func() {}, nil
	}
	process, advice := "a process that is not seen from here, as in another container", "stop that one"
	if holder.pid > 0 {
		process, advice = fmt.Sprintf("process %d", holder.pid), fmt.Sprintf("stop that one (kill %d, or its service)", holder.pid)
	}
	return nil, &exitError{exitInUse, fmt.Errorf(
		"the identity of %s is in use by another fairlead on this host (%s): %s, or give this device an identity of its own; the hub lets one at a time connect", who, process, advice)}
}

// holder is who has a name that was asked for.
type holder struct {
	pid    int // 0 if it is in another pid namespace
	uid    uint32
	counts bool // this user's, or root's
}
