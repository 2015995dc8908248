//go:build unix

package host_test

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"os"
	"testing"

	"github.com/fairlead-iot/fairlead/core"
	"github.com/fairlead-iot/fairlead/plugins/host"
)

// nullDevice accepts everything at once and keeps nothing; done is closed when n messages came.
type nullDevice struct {
	core.Device
	n    int
	done chan struct{}
}

func (*nullDevice) Identity() core.Identity                        { return core.Identity{DeviceID: "null"} }
func (*nullDevice) OnTokenWanted(func()) func()                    { return func() {} }
func (*nullDevice) UpdateToken(context.Context, core.Secret) error { return nil }
func (*nullDevice) OnError(func(error)) func()                     { return func() {} }
func (*nullDevice) Withdraw(core.Settler, uint64)                  {}
func (*nullDevice) Watch(f func(core.Connection)) func() {
	f(core.Connection{State: core.StateConnected})
	return func() {}
}

func (d *nullDevice) Submit(_ context.Context, by core.Settler, first uint64, batch []*core.Message) error {
	by.Settled(first, first+uint64(len(batch))-1, nil)
	if d.n -= len(batch); d.n <= 0 {
		select {
		case <-d.done:
		default:
			close(d.done)
		}
	}
	return nil
}

// BenchmarkTelemetry sends messages of 256 bytes from a plugin process to a device that accepts them at once: with
// SendAsync, with SendBatch of 64, and with Send from 64 goroutines and from one.
func BenchmarkTelemetry(b *testing.B) {
	for _, how := range []string{"async", "batch64", "parallel64", "one"} {
		b.Run(how, func(b *testing.B) {
			dev := &nullDevice{n: b.N, done: make(chan struct{})}
			settings, err := json.Marshal(benchSettings{How: how, N: b.N})
			if err != nil {
				b.Fatal(err)
			}
			p, err := host.New(host.Config{
				Name: "bench", Command: []string{os.Args[0]}, Env: map[string]string{roleVar: "bench"}, RuntimeDir: b.TempDir(),
				Settings: settings, Logger: slog.New(slog.DiscardHandler),
			}).Launch(b.Context(), dev)
			if err != nil {
				b.Fatal(err)
			}
			b.ResetTimer()
			if _, err := p.Handle(b.Context(), methodCall("go", `{}`)); err != nil {
				b.Fatal(err)
			}
			<-dev.done
			b.StopTimer()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "msg/s")
			if err := errors.Join(p.Err(), p.Close(b.Context())); err != nil {
				b.Fatal(err)
			}
		})
	}
}

// BenchmarkMethod calls a method of a plugin process, one at a time.
func BenchmarkMethod(b *testing.B) {
	p, err := host.New(host.Config{
		Name: "bench", Command: []string{os.Args[0]}, Env: map[string]string{roleVar: "plugin"}, RuntimeDir: b.TempDir(),
	}).Launch(b.Context(), &nullDevice{done: make(chan struct{})})
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := p.Handle(b.Context(), methodCall("echo", `{}`)); err != nil {
			b.Fatal(err)
		}
	}
	if err := p.Close(b.Context()); err != nil {
		b.Fatal(err)
	}
}
