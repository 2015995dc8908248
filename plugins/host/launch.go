package host

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	plugin "github.com/hashicorp/go-plugin"
	"github.com/hashicorp/go-plugin/runner"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/fairlead-iot/fairlead/core"
	"github.com/fairlead-iot/fairlead/plugins/internal/wire"
)

// socketRoom is what a socket's path needs behind the base directory: "/plugin-dir" and "/plugin", each with up to ten
// digits. A socket's path has at most 107 bytes on Linux, 103 on macOS (sockaddr_un.sun_path).
const (
	socketRoom    = len("/plugin-dir") + len("/plugin") + 2*10
	socketPathMax = 103
)

// launcher starts one configured plugin, each time anew.
type launcher struct {
	cfg Config

	mu   sync.Mutex
	live map[string]bool // the socket directories of starts that are not over
}

var _ core.Launcher = (*launcher)(nil)

// Launch implements core.Launcher.
func (l *launcher) Launch(ctx context.Context, d core.Device) (core.Plugin, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, l.cfg.StartTimeout, errStartTimeout)
	defer cancel()
	cmd, err := l.command()
	if err != nil {
		return nil, l.fail(core.Fatal, err)
	}
	base, own, err := socketBase(l.cfg.RuntimeDir, l.cfg.Name)
	if err != nil {
		return nil, l.fail(core.Transient, err)
	}
	if own {
		l.sweep(base)
	}
	out := newOutput(l.cfg.Logger)
	proc := newProcess(cmd, out.stdout, out.stderr)
	versions := map[int]plugin.PluginSet{wire.VersionRPC: {}}
	var streamEnv []string
	pipes, err := handDown(cmd)
	switch {
	case err == nil:
		versions[wire.VersionPipes] = plugin.PluginSet{}
		streamEnv = []string{pipes.env}
	case !errors.Is(err, errors.ErrUnsupported):
		return nil, l.fail(core.Transient, err)
	}

	proof, err := newProof()
	if err != nil {
		pipes.close()
		return nil, l.fail(core.Transient, err)
	}

	// go-plugin does the handshake; the connection is ours, since its own comes with a broker and an output stream that
	// nobody uses, and with a Kill that waits for a hung plugin.
	var socketDir string
	cc := &plugin.ClientConfig{
		HandshakeConfig:  wire.Handshake(),
		VersionedPlugins: versions,
		AllowedProtocols: []plugin.Protocol{plugin.ProtocolGRPC},
		TLSConfig:        proof.config,
		SkipHostEnv:      true,
		// The start's limit is ctx: whoever ends the start must know that it was time.
		StartTimeout: 2 * l.cfg.StartTimeout,
		// What it would log, the errors and lines of this package say already.
		Logger:           hclog.NewNullLogger(),
		UnixSocketConfig: &plugin.UnixSocketConfig{TempDir: base},
		RunnerFunc: func(_ hclog.Logger, spec *exec.Cmd, tmpDir string) (runner.Runner, error) {
			socketDir = tmpDir
			l.mu.Lock()
			l.live[tmpDir] = true
			l.mu.Unlock()
			cmd.Env = slices.Concat(environment(l.cfg.Env), spec.Env, proof.env, streamEnv)
			return proc, nil
		},
	}
	type started struct {
		addr net.Addr
		err  error
	}
	ch := make(chan started, 1)
	client := plugin.NewClient(cc)
	go func() {
		addr, err := client.Start()
		ch <- started{addr, err}
	}()
	var st started
	select {
	case st = <-ch:
	case <-ctx.Done():
		proc.kill()
		st = <-ch
		st.err = context.Cause(ctx)
	}
	pipes.started()
	cleanup := func() {
		pipes.close()
		proc.kill()
		if proc.begun() {
			<-proc.exited
		}
		if socketDir != "" {
			_ = os.RemoveAll(socketDir)
			l.mu.Lock()
			delete(l.live, socketDir)
			l.mu.Unlock()
		}
		if own {
			_ = os.Remove(base) // fails while another start is in it
		}
	}
	byRPC := client.NegotiatedVersion() != wire.VersionPipes
	if st.err == nil && byRPC && cc.TLSConfig.RootCAs == nil {
		st.err = errNoCertificate
	}
	if st.err != nil {
		cleanup()
		return nil, l.fail(l.diagnose(st.err, proc, out))
	}

	open, hangUp := connStream(pipes.own), pipes.close
	if byRPC {
		conn, err := dial(st.addr, cc.TLSConfig)
		if err != nil {
			cleanup()
			return nil, l.fail(core.Transient, err)
		}
		open, hangUp = rpcStream(conn), func() { _ = conn.Close() }
		pipes.close()
	}
	s, err := attach(ctx, l.cfg, open, d)
	if err != nil {
		gone := proc.gone(pipeGrace)
		hangUp()
		cleanup()
		return nil, l.fail(l.diagnoseSession(err, gone, proc, out))
	}
	s.info.PID = proc.pid()
	p := &running{
		cfg: l.cfg, s: s, proc: proc, out: out, done: make(chan struct{}),
		hangUp: hangUp, cleanup: cleanup,
	}
	go p.supervise()
	l.cfg.Logger.Debug("plugin started", "pid", s.info.PID, "sdk", s.info.SDK, "methods", s.info.Methods)
	return p, nil
}

// fail is the error of a launch.
func (l *launcher) fail(kind core.Kind, err error) error {
	return &core.Error{Op: fmt.Sprintf("start plugin %q", l.cfg.Name), Kind: kind, Err: err}
}

// dial connects to the plugin. Only a socket or a loopback address can be the plugin's.
func dial(addr net.Addr, config *tls.Config) (*grpc.ClientConn, error) {
	if a, ok := addr.(*net.TCPAddr); ok && !a.IP.IsLoopback() {
		return nil, fmt.Errorf("connect: the plugin names %s, which is not on this machine", a)
	}
	return grpc.NewClient("passthrough:///plugin",
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, addr.Network(), addr.String())
		}),
		grpc.WithTransportCredentials(credentials.NewTLS(config)),
		grpc.WithNoProxy(),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(wire.MaxReceive), grpc.MaxCallSendMsgSize(wire.MaxReceive)),
		grpc.WithWriteBufferSize(64<<10), grpc.WithReadBufferSize(64<<10),
	)
}

// command returns the command to start, checked as far as can be before starting it.
func (l *launcher) command() (*exec.Cmd, error) {
	argv := l.cfg.Command
	if len(argv) == 0 {
		if len(l.cfg.BuiltinArgs) == 0 {
			return nil, errors.New("there is neither a command nor a built-in plugin: set plugins." + l.cfg.Name + ".command")
		}
		exe, err := os.Executable()
		if err != nil {
			return nil, fmt.Errorf("find this program's own file: %w", err)
		}
		argv = append([]string{exe}, l.cfg.BuiltinArgs...)
	}
	path, err := resolve(argv[0])
	if err != nil {
		return nil, fmt.Errorf("%w; see plugins.%s.command", err, l.cfg.Name)
	}
	if l.cfg.Dir != "" {
		if st, err := os.Stat(l.cfg.Dir); err != nil {
			return nil, fmt.Errorf("working directory: %w", err)
		} else if !st.IsDir() {
			return nil, fmt.Errorf("working directory: %s is not a directory", l.cfg.Dir)
		}
	}
	return &exec.Cmd{Path: path, Args: argv, Dir: l.cfg.Dir}, nil
}

// resolve finds the program's file and says what is wrong with it.
func resolve(name string) (string, error) {
	path := name
	if !strings.ContainsRune(name, '/') && !strings.ContainsRune(name, filepath.Separator) {
		found, err := exec.LookPath(name)
		if err != nil {
			return "", fmt.Errorf("program %q is not in PATH: name its file", name)
		}
		path = found
	}
	path, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	st, err := os.Stat(path)
	switch {
	case errors.Is(err, os.ErrNotExist):
		return "", fmt.Errorf("file %s is missing", path)
	case errors.Is(err, os.ErrPermission):
		return "", fmt.Errorf("file %s cannot be reached: permission denied on the way", path)
	case err != nil:
		return "", err
	case st.IsDir():
		return "", fmt.Errorf("%s is a directory: name the program in it", path)
	case !st.Mode().IsRegular():
		return "", fmt.Errorf("%s is not a regular file", path)
	case !executable(path):
		return "", fmt.Errorf("file %s is not executable: chmod +x %s", path, path)
	}
	return path, nil
}

// MaxProcsKey says how many CPUs a Go program uses at once. A plugin gets one unless its Env has another number: messages
// one by one keep one busy at most, and with more each wakes threads that find nothing to do. Programs in other languages
// do not know the variable.
//
// https://pkg.go.dev/runtime#hdr-Environment_Variables
const MaxProcsKey = "GOMAXPROCS"

// environment returns what every plugin gets of the host's environment, and extra. Everything else stays with the host:
// it may hold secrets.
func environment(extra map[string]string) []string {
	var env []string
	if _, ok := extra[MaxProcsKey]; !ok {
		env = append(env, MaxProcsKey+"=1")
	}
	for _, kv := range os.Environ() {
		name, _, _ := strings.Cut(kv, "=")
		if inherited(name) {
			env = append(env, kv)
		}
	}
	for k, v := range extra {
		env = append(env, k+"="+v)
	}
	return env
}

func inherited(name string) bool {
	switch name {
	case "PATH", "HOME", "LANG", "LANGUAGE", "TZ", "TMPDIR":
		return true
	}
	if runtime.GOOS == "windows" {
		// Without these neither sockets nor temporary files work there.
		switch strings.ToUpper(name) {
		case "PATH", "PATHEXT", "SYSTEMROOT", "WINDIR", "TEMP", "TMP", "USERPROFILE":
			return true
		}
	}
	return strings.HasPrefix(name, "LC_")
}

// socketBase returns the directory in which the socket's own is made: the plugin's under dir if a socket's path fits (own
// says that nobody else uses it), else dir itself, the system's temporary directory, or /tmp. go-plugin makes the
// socket's directory in it with mode 0700.
func socketBase(dir, name string) (base string, own bool, err error) {
	if runtime.GOOS == "windows" {
		return dir, false, nil
	}
	candidates := []string{os.TempDir(), "/tmp"}
	if dir != "" {
		if dir, err = filepath.Abs(dir); err != nil {
			return "", false, err
		}
		candidates = append([]string{filepath.Join(dir, name), dir}, candidates...)
	}
	for i, d := range candidates {
		if len(d)+socketRoom > socketPathMax || (dir != "" && i == 0 && !filepath.IsLocal(name)) {
			continue
		}
		if err := os.MkdirAll(d, 0o700); err != nil {
			return "", false, fmt.Errorf("directory for the plugin's socket: %w", err)
		}
		return d, dir != "" && i == 0, nil
	}
	return "", false, fmt.Errorf("no directory for the plugin's socket: %q is too long, and so is %q", dir, os.TempDir())
}

// sweep removes what starts left in the plugin's own directory when their host was killed.
func (l *launcher) sweep(base string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	left, _ := filepath.Glob(filepath.Join(base, "plugin-dir*"))
	for _, d := range left {
		if !l.live[d] {
			_ = os.RemoveAll(d)
		}
	}
}

// gone waits a moment for the process to have ended.
func (p *process) gone(wait time.Duration) bool {
	limit := time.NewTimer(wait)
	defer limit.Stop()
	select {
	case <-p.exited:
		return true
	case <-limit.C:
	}
	select { // both may have been ready
	case <-p.exited:
		return true
	default:
		return false
	}
}

// begun reports whether the process was started.
func (p *process) begun() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.started
}
