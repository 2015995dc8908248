package host

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"strconv"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/fairlead-iot/fairlead/core"
	"github.com/fairlead-iot/fairlead/plugins/internal/wire"
)

var (
	errStartTimeout  = errors.New("start timeout")
	errNoCertificate = errors.New("no certificate")
)

// refusal is a plugin's word that it cannot run with its settings.
type refusal struct{ reason string }

func (r *refusal) Error() string { return r.reason }

// diagnose says what a handshake that came to nothing means, and what to do. It goes by what the process wrote and how it
// ended, since go-plugin's errors are texts.
func (l *launcher) diagnose(err error, p *process, out *output) (core.Kind, error) {
	path := p.cmd.Path
	switch {
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return core.Transient, err // the caller's word
	case !p.begun():
		return l.diagnoseExec(err, path)
	}
	line, seen := p.firstLine()
	fields := strings.Split(line, "|")
	coreVersion, notNumber := strconv.Atoi(fields[0])
	switch {
	case seen && (len(fields) < 4 || notNumber != nil):
		return core.Fatal, fmt.Errorf("%s is not a plugin: its first line on stdout is %s and not a handshake; "+
			"a plugin calls Serve before it prints anything", path, quote(line))
	case seen && coreVersion != 1:
		return core.Fatal, fmt.Errorf("%s speaks version %d of go-plugin's handshake and the host version 1; rebuild it with a current SDK", path, coreVersion)
	case seen && fields[1] != strconv.Itoa(wire.VersionRPC) && fields[1] != strconv.Itoa(wire.VersionPipes):
		return core.Fatal, fmt.Errorf("%s speaks version %s of the plugin protocol and the host versions %d and %d; "+
			"build both from the same release", path, quote(fields[1]), wire.VersionRPC, wire.VersionPipes)
	case seen && (len(fields) < 5 || fields[4] != "grpc"):
		return core.Fatal, fmt.Errorf("%s is a go-plugin plugin, but not one of Fairlead: it does not speak grpc", path)
	case errors.Is(err, errNoCertificate):
		return core.Fatal, fmt.Errorf("%s offers no certificate (PLUGIN_CLIENT_CERT asks for one); rebuild it with a current SDK", path)
	case errors.Is(err, errStartTimeout): // a busy machine may be to blame, even if the handshake has just come
		return core.Transient, fmt.Errorf("%s printed no handshake within %s and was killed%s", path, l.cfg.StartTimeout, out.tail())
	case seen:
		return core.Fatal, fmt.Errorf("%s: handshake %s cannot be used: %w", path, quote(line), err)
	}
	return core.Transient, fmt.Errorf("%s ended before the handshake: %s%s", path, p.exit(), out.tail())
}

// diagnoseExec says why the system did not execute the file.
func (l *launcher) diagnoseExec(err error, path string) (core.Kind, error) {
	switch {
	case notAProgram(err):
		return core.Fatal, fmt.Errorf("%s is not a program for this machine (%s/%s), nor a script with a #! line", path, runtime.GOOS, runtime.GOARCH)
	case errors.Is(err, fs.ErrNotExist):
		if _, e := os.Stat(path); e == nil {
			return core.Fatal, fmt.Errorf("%s is there, but the interpreter of its #! line or its dynamic loader is missing", path)
		}
		return core.Fatal, fmt.Errorf("file %s is missing", path)
	case errors.Is(err, fs.ErrPermission):
		return core.Fatal, fmt.Errorf("%s may not be executed: %w (is its file system mounted noexec?)", path, err)
	}
	return core.Transient, fmt.Errorf("execute %s: %w", path, err)
}

// diagnoseSession says what a session that did not come about means. gone says that the process has ended.
func (l *launcher) diagnoseSession(err error, gone bool, p *process, out *output) (core.Kind, error) {
	path := p.cmd.Path
	if r, ok := errors.AsType[*refusal](err); ok {
		return core.Fatal, fmt.Errorf("the plugin refuses to start: %w; see plugins.%s.settings", r, l.cfg.Name)
	}
	switch {
	case status.Code(err) == codes.Unimplemented:
		return core.Fatal, fmt.Errorf("%s is a go-plugin plugin, but not one of Fairlead: it does not serve fairlead.plugin.v1", path)
	case gone:
		return core.Transient, fmt.Errorf("%s ended before it registered: %s%s", path, p.exit(), out.tail())
	case errors.Is(err, errStartTimeout):
		return core.Transient, fmt.Errorf("%s shook hands but did not register within %s and was killed%s", path, l.cfg.StartTimeout, out.tail())
	}
	return core.Transient, fmt.Errorf("%s: %w%s", path, err, out.tail())
}

// quote shortens and quotes what a plugin wrote.
func quote(s string) string {
	if len(s) > 80 {
		s = s[:80] + "…"
	}
	return strconv.Quote(s)
}
