package host

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"unsafe"

	"golang.org/x/sys/windows"
)

// group is a job object that ends all its processes when its last handle is closed: with the host, whatever ends it.
//
// https://learn.microsoft.com/windows/win32/procthread/job-objects
type group struct {
	job     windows.Handle
	process *os.Process
}

// start starts cmd and puts it into the job. What the plugin starts before it is in the job escapes it.
func (g *group) start(cmd *exec.Cmd) error {
	job, err := windows.CreateJobObject(nil, nil)
	if err != nil {
		return err
	}
	info := windows.JOBOBJECT_EXTENDED_LIMIT_INFORMATION{
		BasicLimitInformation: windows.JOBOBJECT_BASIC_LIMIT_INFORMATION{LimitFlags: windows.JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE},
	}
	if _, err := windows.SetInformationJobObject(job, windows.JobObjectExtendedLimitInformation,
		uintptr(unsafe.Pointer(&info)), uint32(unsafe.Sizeof(info))); err != nil {
		_ = windows.CloseHandle(job)
		return err
	}
	if err := cmd.Start(); err != nil {
		_ = windows.CloseHandle(job)
		return err
	}
	g.job, g.process = job, cmd.Process
	h, err := windows.OpenProcess(windows.PROCESS_SET_QUOTA|windows.PROCESS_TERMINATE, false, uint32(cmd.Process.Pid))
	if err == nil {
		err = windows.AssignProcessToJobObject(job, h)
		_ = windows.CloseHandle(h)
	}
	if err != nil {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		_ = windows.CloseHandle(job)
		return err
	}
	return nil
}

// kill ends every process of the job.
func (g *group) kill() { _ = windows.TerminateJobObject(g.job, 1) }

// terminate does nothing: there is no SIGTERM here. A plugin that does not drain is killed.
func (g *group) terminate() {}

// release frees what the group holds.
func (g *group) release() { _ = windows.CloseHandle(g.job) }

// executable says whether the file's name is one that this system executes.
func executable(path string) bool {
	exts := strings.Split(strings.ToLower(os.Getenv("PATHEXT")), ";")
	return slices.Contains(append(exts, ".exe"), strings.ToLower(filepath.Ext(path)))
}

// notAProgram says whether err is the system's word that the file is no program for this machine.
func notAProgram(err error) bool { return errors.Is(err, windows.ERROR_BAD_EXE_FORMAT) }

// Limitations says what this system does not let the host do for plugins.
func Limitations() []string {
	return []string{
		"there is no SIGTERM: a plugin that does not answer Drain is killed without another word",
		"the plugin's connection is a loopback port instead of a socket in a private directory; mutual TLS protects it",
		"a plugin runs with the user and the rights of the host: no sandbox is set up",
	}
}
