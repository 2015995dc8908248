//go:build unix

package host_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/fairlead-iot/fairlead/plugins/sdk"
)

// The test binary started again with this variable is a plugin, or something that claims to be one.
const roleVar = "FAIRLEAD_TEST_ROLE"

func TestMain(m *testing.M) {
	role := os.Getenv(roleVar)
	if len(os.Args) == 3 && os.Args[1] == "plugin-builtin" {
		role = "plugin"
	}
	if role != "" {
		os.Exit(play(role))
	}
	goleak.VerifyTestMain(m)
}

// play is what the child process does.
func play(role string) int {
	switch role {
	case "plugin":
		testPlugin().Serve()
	case "rpc plugin":
		// As one whose SDK knows version 1 of the protocol alone.
		_ = os.Unsetenv("FAIRLEAD_PLUGIN_STREAM")
		testPlugin().Serve()
	case "bench":
		benchPlugin().Serve()
	case "exit3":
		fmt.Fprintln(os.Stderr, "cannot open /dev/press")
		return 3
	case "mute3": // as programs do that flush their stdout at their end
		fmt.Fprintln(os.Stderr, "cannot open /dev/press")
		_ = os.Stdout.Close()
		time.Sleep(100 * time.Millisecond)
		return 3
	case "garbage":
		fmt.Println("hello, world")
		time.Sleep(time.Minute)
	case "corev9":
		fmt.Println("9|1|unix|/nowhere|grpc|")
		time.Sleep(time.Minute)
	case "protov9":
		fmt.Println("1|9|unix|/nowhere|grpc|")
		time.Sleep(time.Minute)
	case "netrpc":
		fmt.Println("1|1|unix|/nowhere|netrpc|")
		time.Sleep(time.Minute)
	case "nocert":
		fmt.Println("1|1|unix|/nowhere|grpc|")
		time.Sleep(time.Minute)
	case "silent":
		fmt.Fprintln(os.Stderr, "thinking")
		time.Sleep(time.Minute)
	case "stranger":
		strangerServe()
	case "unregistered":
		unregisteredServe()
	case "host":
		return hostRole()
	}
	return 0
}

// testPlugin does, by method, all the good and bad things that the tests need.
func testPlugin() *sdk.Plugin {
	p := sdk.New("test")
	var settings struct {
		Telemetry int  `json:"telemetry"`
		GiveUp    bool `json:"give_up"`
		Stubborn  bool `json:"stubborn"`
		Flood     bool `json:"flood"`
	}
	p.Settings(&settings)
	var dev *sdk.Device
	ready := make(chan struct{})
	p.Run(func(ctx context.Context, d *sdk.Device) error {
		dev = d
		close(ready)
		if settings.GiveUp {
			return errors.New("the press is gone")
		}
		for i := range settings.Telemetry {
			if err := d.Send(ctx, &sdk.Message{Payload: fmt.Append(nil, i)}); err != nil {
				return err
			}
		}
		for settings.Flood && ctx.Err() == nil {
			_ = d.SendAsync(ctx, &sdk.Message{Payload: make([]byte, 1024)}, nil)
			d.Log().Info("flood")
			d.Metric("flood_level", 1)
			fmt.Fprintln(os.Stderr, strings.Repeat("x", 100_000))
		}
		<-ctx.Done()
		for settings.Stubborn {
			time.Sleep(time.Second)
		}
		return nil
	})
	p.HandleMethod("echo", func(_ context.Context, req *sdk.MethodRequest) (any, error) { return req.Payload, nil })
	p.HandleMethod("env", func(context.Context, *sdk.MethodRequest) (any, error) { return os.Environ(), nil })
	p.HandleMethod("cwd", func(context.Context, *sdk.MethodRequest) (any, error) { return os.Getwd() })
	// Whether a child of the plugin has the plugin's pipes open.
	var own []string
	for fd := range strings.SplitSeq(os.Getenv("FAIRLEAD_PLUGIN_STREAM"), ",") {
		if link, err := os.Readlink("/proc/self/fd/" + fd); err == nil {
			own = append(own, link)
		}
	}
	p.HandleMethod("leaks", func(ctx context.Context, _ *sdk.MethodRequest) (any, error) {
		out, err := exec.CommandContext(ctx, "/bin/sh", "-c", "ls -l /proc/self/fd").Output()
		leaks := slices.DeleteFunc(slices.Clone(own), func(link string) bool { return !strings.Contains(string(out), link) })
		return map[string]any{"own": own, "leaks": leaks}, err
	})
	p.HandleMethod("panic", func(context.Context, *sdk.MethodRequest) (any, error) { panic("ouch") })
	p.HandleMethod("crash", func(context.Context, *sdk.MethodRequest) (any, error) {
		go func() { panic("crash") }()
		select {}
	})
	p.HandleMethod("exit", func(context.Context, *sdk.MethodRequest) (any, error) { os.Exit(7); return nil, nil })
	p.HandleMethod("stop", func(context.Context, *sdk.MethodRequest) (any, error) {
		_ = syscall.Kill(os.Getpid(), syscall.SIGSTOP)
		select {} // the signal may take a moment
	})
	p.HandleMethod("hang", func(context.Context, *sdk.MethodRequest) (any, error) { select {} })
	p.HandleMethod("print", func(context.Context, *sdk.MethodRequest) (any, error) {
		fmt.Println("on stdout " + strings.Repeat("y", 200_000))
		cmd := exec.Command("/bin/sh", "-c", "echo child on stdout")
		cmd.Stdout = os.NewFile(1, "stdout")
		return nil, cmd.Run()
	})
	// A grandchild that holds the plugin's output open.
	p.HandleMethod("child", func(context.Context, *sdk.MethodRequest) (any, error) {
		cmd := exec.Command("/bin/sleep", "300")
		cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
		if err := cmd.Start(); err != nil {
			return nil, err
		}
		return cmd.Process.Pid, nil
	})
	p.HandleMethod("send", func(ctx context.Context, req *sdk.MethodRequest) (any, error) {
		<-ready
		var body []byte
		if err := json.Unmarshal(req.Payload, &body); err != nil {
			return nil, err
		}
		return nil, dev.Send(ctx, &sdk.Message{Payload: body})
	})
	// A file, whose progress it sends as telemetry, and then the same content as a stream.
	p.HandleMethod("upload", func(ctx context.Context, req *sdk.MethodRequest) (any, error) {
		<-ready
		var path string
		if err := json.Unmarshal(req.Payload, &path); err != nil {
			return nil, err
		}
		err := dev.Upload(ctx, "file", path, func(u sdk.UploadProgress) {
			_ = dev.SendAsync(ctx, &sdk.Message{Payload: fmt.Appendf(nil, "%s %d of %d", u.State, u.Sent, u.Size)}, nil)
		})
		if err != nil {
			return nil, err
		}
		f, err := os.Open(path)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		return nil, dev.UploadFrom(ctx, "stream", f, nil)
	})
	p.HandleMethod("teapot", func(context.Context, *sdk.MethodRequest) (any, error) {
		return nil, sdk.Errorf(http.StatusTeapot, "short and stout")
	})
	return p
}
