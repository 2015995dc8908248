// Command numbers is the plugin of the tests under faults: it sends consecutive numbers as telemetry and writes down, in
// its working directory, what it was promised and given:
//
//	accepted  "NUMBER MILLISECONDS": a number whose Send returned nil, and when (Unix time)
//	refused   "NUMBER ERROR": a number whose Send returned an error
//	desired   "VERSION DOCUMENT": each desired state that it was given
//	messages  "ID BODY": each cloud-to-device message
//	children  the process id of a grandchild of the runtime, if settings ask for one
//
// With NUMBERS_NOTHING in its environment it does nothing at all.
//
// Settings: {"rate": 100, "window": 50, "report": true, "child": true}; rate is in messages per second, 0 for none; no more
// than window may be unsettled, 0 for any number; report has the version of the latest desired state reported, as "seen".
//
// Methods, each with a prefix from the environment (NUMBERS_PREFIX): echo returns its payload; sleep hangs for its
// payload in seconds; pid returns the process id.
package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"sync"
	"time"

	"github.com/fairlead-iot/fairlead/plugins/sdk"
)

type settings struct {
	Rate   int  `json:"rate"`
	Window int  `json:"window"`
	Report bool `json:"report"`
	Child  bool `json:"child"`
}

func main() {
	prefix := os.Getenv("NUMBERS_PREFIX")
	var s settings
	p := sdk.New("numbers")
	if os.Getenv("NUMBERS_NOTHING") != "" {
		p.Serve()
	}
	p.Settings(&s)
	p.HandleMethod(prefix+"echo", func(_ context.Context, req *sdk.MethodRequest) (any, error) { return req.Payload, nil })
	p.HandleMethod(prefix+"pid", func(context.Context, *sdk.MethodRequest) (any, error) { return os.Getpid(), nil })
	p.HandleMethod(prefix+"sleep", func(ctx context.Context, req *sdk.MethodRequest) (any, error) {
		var seconds float64
		if err := req.Decode(&seconds); err != nil {
			return nil, err
		}
		sdk.Sleep(ctx, time.Duration(seconds*float64(time.Second)))
		return "slept", nil
	})
	desired, messages := open("desired"), open("messages")
	latest := make(chan int64, 1)
	p.HandleDesired(func(_ context.Context, d *sdk.Desired) error {
		desired.line("%d %s", d.Version, d.Document)
		select { // an earlier one that nobody has taken is out of date
		case <-latest:
		default:
		}
		latest <- d.Version
		return nil
	})
	p.HandleMessages(func(_ context.Context, m *sdk.Message) error {
		messages.line("%s %s", m.ID, m.Payload)
		return nil
	})
	p.Run(func(ctx context.Context, dev *sdk.Device) error {
		if s.Child {
			cmd := exec.Command("sleep", "1000") //nolint:noctx // it is to outlive everything, if it can
			if err := cmd.Start(); err != nil {
				return fmt.Errorf("start child: %w", err)
			}
			open("children").line("%d", cmd.Process.Pid)
		}
		var working sync.WaitGroup
		defer working.Wait()
		if s.Report {
			working.Go(func() { report(ctx, dev, latest) })
		}
		if s.Rate == 0 {
			return nil
		}
		return send(ctx, dev, s)
	})
	p.Serve()
}

// report reports the latest desired version until ctx ends.
func report(ctx context.Context, dev *sdk.Device, latest <-chan int64) {
	for {
		select {
		case v := <-latest:
			if _, err := dev.Report(ctx, map[string]int64{"seen": v}); err != nil && ctx.Err() == nil {
				dev.Log().Warn("report", "version", v, "error", err)
			}
		case <-ctx.Done():
			return
		}
	}
}

// send sends numbers until ctx ends. They go on where an earlier start of the plugin stopped, so that none is sent by two.
func send(ctx context.Context, dev *sdk.Device, s settings) error {
	accepted, refused := open("accepted"), open("refused")
	counter := open("started")
	next := counter.lines() * 1_000_000
	counter.line("%d", next)
	tick := time.NewTicker(time.Second / time.Duration(s.Rate))
	defer tick.Stop()
	room := make(chan struct{}, cmp.Or(s.Window, 1<<20)) // of its elements, which are empty, none costs anything
	for ctx.Err() == nil {
		select {
		case room <- struct{}{}:
		case <-ctx.Done():
			return nil
		}
		n := next
		next++
		m := &sdk.Message{ContentType: "application/json", ContentEncoding: "utf-8", Payload: json.RawMessage(strconv.Itoa(n))}
		err := dev.SendAsync(ctx, m, func(err error) {
			if err != nil {
				refused.line("%d %v", n, err)
			} else {
				accepted.line("%d %d", n, time.Now().UnixMilli())
			}
			<-room
		})
		if err != nil {
			<-room
			refused.line("%d %v", n, err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
	return nil
}

// record is a file that lines are added to, each by one write: what was written survives a kill.
type record struct {
	mu   sync.Mutex
	file *os.File
}

func open(name string) *record {
	f, err := os.OpenFile(name, os.O_CREATE|os.O_APPEND|os.O_RDWR, 0o600)
	if err != nil {
		panic(err)
	}
	return &record{file: f}
}

func (r *record) line(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, err := fmt.Fprintf(r.file, format+"\n", args...); err != nil {
		panic(err)
	}
}

// lines counts what the file holds already.
func (r *record) lines() int {
	data, err := os.ReadFile(r.file.Name())
	if err != nil {
		panic(err)
	}
	n := 0
	for _, b := range data {
		if b == '\n' {
			n++
		}
	}
	return n
}
