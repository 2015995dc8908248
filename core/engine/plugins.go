package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"

	"github.com/fairlead-iot/fairlead/core"
)

// pluginSlot is a configured plugin with its present start.
type pluginSlot struct {
	index  core.PluginIndex
	cfg    Plugin
	start  core.Start
	plugin core.Plugin
	ctx    context.Context //nolint:containedctx // the start's life, and ends with it
	cancel context.CancelFunc
	info   core.PluginInfo
	// active counts the calls under way, and exited holds the news of the start's end until they have returned: an answer
	// that was given in time counts, also when the plugin ended right after it.
	active int
	exited core.Event

	// What the start has been told of the desired properties, once wasGiven: the document, or where that is not known
	// (ensure_desired_properties off) all patches but the pending one.
	wasGiven bool
	document json.RawMessage
	pending  json.RawMessage
}

func (e *Engine) startPlugin(ctx context.Context, f core.StartPlugin) {
	p := e.plugins[f.Plugin]
	p.start, p.plugin, p.wasGiven = f.Start, nil, false
	p.ctx, p.cancel = context.WithCancel(ctx)
	startCtx, cancel := p.ctx, p.cancel
	e.background(func() {
		if !e.who.wait(startCtx) {
			cancel()
			e.inbox.post(core.PluginExited{Plugin: f.Plugin, Start: f.Start, Fault: core.FaultOf(context.Cause(startCtx))})
			return
		}
		launchCtx, done := context.WithTimeout(startCtx, launchTimeout)
		started, err := p.cfg.Launcher.Launch(launchCtx, e.Device(laneOf(f.Plugin)))
		done()
		if err != nil {
			cancel()
			e.inbox.post(core.PluginExited{Plugin: f.Plugin, Start: f.Start, Fault: core.FaultOf(err)})
			return
		}
		e.inbox.run(func() core.Event {
			// Read here: a Reregister that comes before sees no plugin yet, and relies on what is read now.
			info := started.Info()
			p.plugin, p.info = started, info
			level := slog.LevelInfo
			if info.PID == 0 {
				level = slog.LevelDebug // this process itself
			}
			e.log.Log(startCtx, level, "plugin ready", "plugin", p.cfg.Name, "pid", info.PID, "start", uint64(f.Start), "methods", info.Methods)
			return core.PluginReady{Plugin: f.Plugin, Start: f.Start, Methods: info.Methods, Messages: info.Messages, Desired: info.Desired}
		})
		select {
		case <-started.Done():
		case <-startCtx.Done(): // the launch was called off as it succeeded, or the engine ends
			ctx, done := context.WithTimeout(context.WithoutCancel(startCtx), pluginStopTimeout)
			_ = started.Close(ctx)
			done()
			<-started.Done()
		}
		err = started.Err()
		if err == nil {
			err = errors.New("ended")
		}
		cancel()
		e.inbox.run(func() core.Event {
			level := slog.LevelInfo
			if p.info.PID == 0 {
				level = slog.LevelDebug
			}
			p.info.PID = 0
			e.log.Log(context.WithoutCancel(startCtx), level, "plugin ended", "plugin", p.cfg.Name, "start", uint64(f.Start), "reason", err)
			ev := core.PluginExited{Plugin: f.Plugin, Start: f.Start, Fault: core.FaultOf(err)}
			if p.active > 0 {
				p.exited = ev
				return nil
			}
			return ev
		})
	})
}

// Reregister reads again what a plugin within this process handles.
func (e *Engine) Reregister(i core.PluginIndex) {
	e.inbox.run(func() core.Event {
		p := e.plugins[i]
		if p.plugin == nil {
			return nil // it will be read at its start
		}
		p.info = p.plugin.Info()
		return core.PluginReady{Plugin: i, Start: p.start, Methods: p.info.Methods, Messages: p.info.Messages, Desired: p.info.Desired}
	})
}

func (e *Engine) stopPlugin(ctx context.Context, f core.StopPlugin) {
	p := e.plugins[f.Plugin]
	if p.start != f.Start {
		return
	}
	if p.plugin == nil {
		p.cancel() // still launching
		return
	}
	target := p.plugin
	e.background(func() {
		ctx, cancel := context.WithTimeout(ctx, pluginStopTimeout)
		defer cancel()
		_ = target.Close(ctx) // its end, orderly or not, comes through Done
	})
}

func (e *Engine) failPlugin(ctx context.Context, f core.FailPlugin) {
	name := e.plugins[f.Plugin].cfg.Name
	e.log.ErrorContext(ctx, "plugin will not be started again until it is mended", "plugin", name, "reason", f.Reason)
	e.watch.error(&core.Error{Op: fmt.Sprintf("plugin %s: %s", name, f.Reason), Kind: core.Fatal})
	if e.cfg.OnPluginFailed != nil {
		e.cfg.OnPluginFailed(name, e.plugins[f.Plugin].start, f.Reason)
	}
}
