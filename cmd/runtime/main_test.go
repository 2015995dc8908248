//go:build unix

package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/fairlead-iot/fairlead/core"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"fairlead": main, "refusingproxy": refusingProxy})
}

// refusingProxy is a program of the scripts: an HTTP proxy that refuses every user, and adds a line to the file "asked" for
// each password that it is shown. The file "proxy.port" says where it listens.
func refusingProxy() {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	asked, err := os.Create("asked")
	if err != nil {
		log.Fatal(err)
	}
	port := strconv.Itoa(listener.Addr().(*net.TCPAddr).Port)
	if err := os.WriteFile("proxy.tmp", []byte(port), 0o600); err != nil {
		log.Fatal(err)
	}
	if err := os.Rename("proxy.tmp", "proxy.port"); err != nil {
		log.Fatal(err)
	}
	log.Fatal(http.Serve(listener, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Proxy-Authorization") != "" {
			fmt.Fprintln(asked, r.Host)
		}
		w.Header().Set("Proxy-Authenticate", `Basic realm="plant"`)
		w.WriteHeader(http.StatusProxyAuthRequired)
	})))
}

// The scripts run the program as a user does. Besides testscript's own commands there is
//
//	exits CODE PROGRAM [ARG...]
//
// which runs a program and wants that exit code, and cmdRefused and cmdUntil.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(e *testscript.Env) error {
			e.Setenv("HOME", e.WorkDir)
			e.Setenv("GOOS", runtime.GOOS)
			e.Setenv("GOARCH", runtime.GOARCH)
			e.Setenv("GORACE", "atexit_sleep_ms=0") // else each program sleeps a second at its end under -race
			return nil
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"exits": cmdExits, "refused": cmdRefused, "until": cmdUntil,
		},
	})
}

func cmdExits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE PROGRAM [ARG...]")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec(args[1], args[2:]...)
	got := 0
	if e, ok := errors.AsType[*exec.ExitError](err); ok {
		got = e.ExitCode()
	} else {
		ts.Check(err)
	}
	if got != want {
		ts.Fatalf("%q exited %d, want %d", args[1:], got, want)
	}
}

func TestSecondSignalExitsAtOnce(t *testing.T) {
	exited := make(chan int, 1)
	ctx, stop := notifyContext(context.Background(), func(code int) { exited <- code })
	defer stop()
	raise := func() {
		t.Helper()
		if err := syscall.Kill(os.Getpid(), syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
	}
	raise()
	select {
	case <-ctx.Done():
	case <-time.After(10 * time.Second):
		t.Fatal("the first signal did not cancel the context")
	}
	select {
	case code := <-exited:
		t.Fatalf("the first signal exited with %d", code)
	default:
	}
	raise()
	select {
	case code := <-exited:
		if want := 128 + int(syscall.SIGTERM); code != want {
			t.Errorf("exit code %d, want %d, as a shell has it", code, want)
		}
	case <-time.After(10 * time.Second):
		t.Fatal("the second signal did not exit")
	}
}

func TestExitCodes(t *testing.T) {
	plain := errors.New("plain")
	tests := []struct {
		name string
		err  error
		want int
	}{
		{"nothing wrong", nil, exitOK},
		{"an error that asks for none", plain, exitFailed},
		{"wrong input", usageError(plain), exitUsage},
		{"in use, wrapped", fmt.Errorf("run: %w", &exitError{exitInUse, plain}), exitInUse},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := exitCode(tt.err); got != tt.want {
				t.Errorf("exitCode = %d, want %d", got, tt.want)
			}
		})
	}
}

// The sentinel by which programs know wrong input is noise to people.
func TestPrintErrorLeavesTheSentinelOut(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		err  error
		want string
	}{
		{fmt.Errorf("parse it: %w", core.ErrInvalid), "fairlead: parse it\n"},
		{usagef("use it: %w: there is none", core.ErrInvalid), "fairlead: use it: invalid: there is none\n"},
		{errors.New("another's word: invalid"), "fairlead: another's word: invalid\n"},
	} {
		var out strings.Builder
		printError(&out, tt.err)
		if out.String() != tt.want {
			t.Errorf("printed %q, want %q", out.String(), tt.want)
		}
	}
}
