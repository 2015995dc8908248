//go:build unix && !linux

package host

import "syscall"

// attributes has no way here to tie the plugin's life to the host's; the guard does that.
func attributes() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }

// Limitations says what this system does not let the host do for plugins.
func Limitations() []string {
	return []string{
		"a plugin outlives a host that is killed with SIGKILL if there is no /bin/sh to guard it",
		"a grandchild of a plugin that leaves its process group (setsid) outlives the plugin",
		"a plugin runs with the user and the rights of the host: no sandbox is set up",
	}
}
