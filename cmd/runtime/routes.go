package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/fairlead-iot/fairlead/config"
	"github.com/fairlead-iot/fairlead/core"
	"github.com/fairlead-iot/fairlead/core/engine"
	"github.com/fairlead-iot/fairlead/internal/control"
	"github.com/fairlead-iot/fairlead/internal/linkwatch"
	"github.com/fairlead-iot/fairlead/store"
)

// routeFile is where the route that worked last is kept, in the state directory.
const routeFile = "route.json"

// routeNames names the routes after what they use; the second of a kind is "mqtt-2".
func routeNames(transports []config.Transport) []string {
	var names []string
	seen := map[string]int{}
	for _, t := range transports {
		name := t.Use
		if seen[t.Use]++; seen[t.Use] > 1 {
			name += "-" + strconv.Itoa(seen[t.Use])
		}
		names = append(names, name)
	}
	return names
}

// keeper writes down what outlives the process of the connection: the route that worked, and what became of sessions and
// attempts. The disk may take its time: the writing has a goroutine of its own, and a queue with an end.
type keeper struct {
	route   store.Route
	history *store.History // nil if it cannot be written
	log     *slog.Logger
	wg      sync.WaitGroup

	mu     sync.Mutex
	queue  []any // a route's name, or a store.Entry
	lost   int   // what did not fit into the queue since it was looked at last
	wake   chan struct{}
	closed bool
}

// keptAtMost bounds the queue. A disk that takes nothing for so long is not waited for.
const keptAtMost = 256

func newKeeper(stateDir string, log *slog.Logger) *keeper {
	k := &keeper{route: store.Route{Path: filepath.Join(stateDir, routeFile)}, log: log, wake: make(chan struct{}, 1)}
	var err error
	if k.history, err = store.OpenHistory(stateDir); err != nil {
		log.Warn("what becomes of the connection is not written down (fairlead why)", "error", err)
	}
	k.add(store.Entry{What: store.Started, Version: readVersion().Version, PID: os.Getpid()})
	k.wg.Go(k.run)
	return k
}

// lastRoute is the route that worked last, "" if that is not known.
func (k *keeper) lastRoute() string {
	name, err := k.route.Load()
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		k.log.Warn("the route that worked last is not known: the first one begins", "error", err)
	}
	return name
}

// keepRoute implements device.Config.OnRoute.
func (k *keeper) keepRoute(name string) { k.post(name) }

// keepHappening implements device.Config.OnHappening.
func (k *keeper) keepHappening(h engine.Happening) {
	e := store.Entry{
		What: map[engine.HappeningKind]string{
			engine.SessionBegan: store.Connected, engine.SessionLost: store.Lost, engine.SessionClosed: store.Closed, engine.AttemptFailed: store.Failed,
		}[h.Kind],
		Epoch: uint64(h.Epoch), Route: h.Route, Reason: h.Reason,
	}
	if h.Fault.Reason != "" {
		e.Kind, e.Phase, e.Reason = h.Fault.Kind.String(), h.Fault.Phase, h.Fault.Reason
	}
	k.add(e)
}

func (k *keeper) add(e store.Entry) {
	e.At = time.Now().Round(time.Millisecond)
	k.post(e)
}

func (k *keeper) post(what any) {
	k.mu.Lock()
	if len(k.queue) < keptAtMost && !k.closed {
		k.queue = append(k.queue, what)
	} else {
		k.lost++
	}
	k.mu.Unlock()
	select {
	case k.wake <- struct{}{}:
	default:
	}
}

func (k *keeper) run() {
	var last string // of the errors, each said once
	for isOver := false; !isOver; {
		<-k.wake
		k.mu.Lock()
		queue, lost := k.queue, k.lost
		k.queue, k.lost, isOver = nil, 0, k.closed
		k.mu.Unlock()
		if lost > 0 {
			k.log.Warn("some of what became of the connection is not written down: the disk is too slow", "lost", lost)
		}
		for _, what := range queue {
			var err error
			switch what := what.(type) {
			case string:
				err = k.route.Save(what)
			case store.Entry:
				if k.history != nil {
					err = k.history.Add(what)
				}
			}
			if err != nil && err.Error() != last {
				last = err.Error()
				k.log.Warn("what becomes of the connection is not written down", "error", err)
			}
		}
	}
}

// close writes what is left. It may be called more than once.
func (k *keeper) close() {
	k.add(store.Entry{What: store.Stopped})
	k.mu.Lock()
	isFirst := !k.closed
	k.closed = true
	k.mu.Unlock()
	if !isFirst {
		return
	}
	select {
	case k.wake <- struct{}{}:
	default:
	}
	k.wg.Wait()
	if k.history != nil {
		if err := k.history.Close(); err != nil {
			k.log.Warn("what becomes of the connection is not written down", "error", err)
		}
	}
}

// watchLinks tells the device of links that come up, until ctx ends.
func (rt *running) watchLinks(ctx context.Context) {
	err := linkwatch.Watch(ctx, func() {
		rt.log.Debug("a link or an address came up")
		rt.client.NetworkChanged()
	})
	if err != nil {
		rt.log.Debug("this platform does not tell of links that come up: attempts keep to their waits", "error", err)
	}
}

// UseRoute implements control.Backend.
func (rt *running) UseRoute(ctx context.Context, name string) error {
	return rt.client.UseRoute(ctx, name)
}

// addRoutes adds to the connection's status what there is to say of its routes.
func addRoutes(c *control.Connection, e engine.Status) {
	for _, cause := range e.Connection.Causes {
		c.Causes = append(c.Causes, control.Cause{Route: cause.Route, Kind: cause.Kind.String(), Phase: cause.Phase, Reason: cause.Reason, Count: cause.Count})
	}
	c.Spared = control.Seconds(e.Spared())
	if in, ok := e.NextProbe(); ok {
		seconds := control.Seconds(in)
		c.NextProbe, c.ProbeReason = &seconds, e.Machine.ProbeFault.Reason
	}
}

func newTransportCommand() *cobra.Command {
	use := operation("use NAME", "Move the running device's session to a route, and wait for it", cobra.ExactArgs(1),
		func(ctx context.Context, c *control.Client, cmd *cobra.Command, args []string) error {
			if err := c.UseRoute(ctx, args[0]); errors.Is(err, core.ErrInvalid) {
				return usageError(err)
			} else if err != nil {
				return err
			}
			if args[0] == engine.AutoRoute {
				_, err := fmt.Fprintln(cmd.OutOrStdout(), "the order of preference holds again")
				return err
			}
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "by %s, until transport use %s\n", args[0], engine.AutoRoute)
			return err
		})
	use.Long = `Move the running device's session to one of its routes, without a loss, and prefer
that route from now on: when it does not get through it gives way to the others,
and is tried again beside them. "auto" brings the order of preference back, that
of transports: in the configuration; so does a restart, which begins with the
route that worked last.

The names are what each route uses, mqtt or mqttws; the second of a kind is
mqtt-2. Where the route does not get through, the session stays where it is, and
nothing is chosen.`
	use.Example = "  fairlead transport use mqttws\n  fairlead transport use auto"
	cmd := &cobra.Command{Use: "transport", Short: "Choose the running device's route to the hub"}
	cmd.AddCommand(use)
	return cmd
}
