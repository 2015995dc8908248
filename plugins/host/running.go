package host

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/fairlead-iot/fairlead/core"
	"github.com/fairlead-iot/fairlead/plugins/internal/wire"
	"github.com/fairlead-iot/fairlead/plugins/pluginv1"
)

const (
	// exitGrace is how long a process may take to exit by itself once it is done, and how long after SIGTERM.
	exitGrace = 2 * time.Second
	// endGrace is how long the end of a stream waits for the end of the process, which explains it: a busy machine may
	// take its time to end one.
	endGrace = 2 * time.Second
)

// running is one running start of a plugin.
type running struct {
	cfg     Config
	s       *session
	proc    *process // nil for one that was attached
	out     *output
	hangUp  func() // closes the connection
	cleanup func()
	done    chan struct{}

	mu      sync.Mutex
	closing bool
	err     error
}

var _ core.Plugin = (*running)(nil)

// Info implements core.Plugin.
func (p *running) Info() core.PluginInfo { return p.s.info }

// Done implements core.Plugin.
func (p *running) Done() <-chan struct{} { return p.done }

// Err implements core.Plugin.
func (p *running) Err() error {
	select {
	case <-p.done:
	default:
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.err
}

// Handle implements core.Plugin.
func (p *running) Handle(ctx context.Context, d core.Delivery) (core.Answer, error) {
	a, err := p.s.call(ctx, d)
	if err != nil {
		return core.Answer{}, fmt.Errorf("call plugin %q: %w", p.cfg.Name, err)
	}
	return a, nil
}

// exited is closed when the process has ended; never for an attached plugin.
func (p *running) exited() <-chan struct{} {
	if p.proc == nil {
		return nil
	}
	return p.proc.exited
}

// supervise waits for the end, whichever comes first of the process's and the stream's, makes it complete, and says why.
func (p *running) supervise() {
	defer close(p.done)
	select {
	case <-p.exited():
		// What the process sent last may still be in the socket.
		select {
		case <-p.s.ctx.Done():
		case <-time.After(endGrace):
		}
	case <-p.s.ctx.Done():
	}
	cause := context.Cause(p.s.ctx)
	p.hangUp() // the plugin, if it is there, waits for that to know that its last words were heard
	if p.proc != nil {
		byItself := p.proc.gone(p.grace(cause))
		p.proc.kill()
		<-p.proc.exited
		cause = p.why(cause, byItself)
	} else if cause == nil {
		cause = errFinished
	}
	p.s.end(cause)
	<-p.s.ended
	p.cleanup()
	p.mu.Lock()
	if !p.closing {
		p.err = &core.Error{Op: fmt.Sprintf("plugin %q", p.cfg.Name), Kind: core.Transient, Err: cause}
	}
	p.mu.Unlock()
}

// grace is how long the process may take to end after its stream ended with cause.
func (p *running) grace(cause error) time.Duration {
	if _, ok := errors.AsType[*hung](cause); ok {
		return 0
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closing {
		return exitGrace
	}
	return endGrace
}

// why explains the end of the process.
func (p *running) why(cause error, byItself bool) error {
	if st, ok := status.FromError(cause); ok && cause != nil && st.Code() == codes.Aborted {
		return fmt.Errorf("it gave up: %s", st.Message()) // the author's loop returned an error
	}
	_, broken := status.FromError(cause)
	if byItself && (cause == nil || broken || errors.Is(cause, errFinished)) {
		return fmt.Errorf("it ended: %s%s", p.proc.exit(), p.out.tail())
	}
	if cause == nil {
		return errFinished
	}
	if broken {
		return fmt.Errorf("its stream ended: %w; it was killed", cause)
	}
	return fmt.Errorf("%w; it was killed", cause)
}

// Close implements core.Plugin: drain, end of the stream, SIGTERM, SIGKILL, each with its share of ctx's time.
func (p *running) Close(ctx context.Context) error {
	p.mu.Lock()
	first := !p.closing
	p.closing = true
	p.mu.Unlock()
	if !first {
		select {
		case <-p.done:
		case <-ctx.Done():
			p.kill(errFinished)
			<-p.done
		}
		return nil
	}

	// The last part of the time is for ending by force.
	total := wire.StartTimeout
	if d, ok := ctx.Deadline(); ok {
		total = time.Until(d)
	}
	drain := total - min(exitGrace, total/3)
	p.s.queue(&pluginv1.SessionRequest{Frame: &pluginv1.SessionRequest_Drain{Drain: &pluginv1.Drain{TimeoutMs: wire.FromDuration(max(drain, 1))}}})
	limit := time.NewTimer(drain)
	defer limit.Stop()
	select {
	case <-p.s.drained:
	case <-p.done:
		return nil
	case <-limit.C:
		p.cfg.Logger.Warn("plugin did not drain in time", "limit", drain)
		if p.proc != nil {
			p.proc.terminate()
		}
	case <-ctx.Done():
	}
	p.s.finishSending()

	last := time.NewTimer(max(0, total-drain))
	defer last.Stop()
	select {
	case <-p.done:
		return nil
	case <-last.C:
	case <-ctx.Done():
	}
	p.kill(errFinished)
	<-p.done
	return nil
}

// kill ends the plugin at once.
func (p *running) kill(cause error) {
	if p.proc != nil {
		p.proc.kill()
	}
	p.s.end(cause)
}

// finishSending closes the stream towards the plugin when all is sent; the plugin then ends it.
func (s *session) finishSending() {
	s.mu.Lock()
	s.finish = true
	s.mu.Unlock()
	s.signal()
}
