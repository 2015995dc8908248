package host

import "syscall"

// attributes has the kernel kill the plugin when the thread that started it ends: with the host, whatever ends it.
func attributes() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

// Limitations says what this system does not let the host do for plugins.
func Limitations() []string {
	return []string{
		"a grandchild of a plugin that leaves its process group (setsid) outlives the plugin, unless the service manager ends it",
		"a plugin runs with the user and the rights of the host: no sandbox is set up",
	}
}
