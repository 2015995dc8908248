package engine

import (
	"sync"
	"time"

	"github.com/fairlead-iot/fairlead/core"
)

// watchers tells the connection's state and background errors to whoever asked. Each watcher has a goroutine, so that a
// slow one delays neither the engine nor another.
type watchers struct {
	mu       sync.Mutex
	current  core.Connection
	since    time.Time
	next     time.Time
	watchers map[*watcher]struct{}
	wanted   bool // a new token is wanted
	closed   bool
}

// watcher holds what its goroutine has not told yet: the newest state, and some errors.
type watcher struct {
	wake     chan struct{}
	stop     chan struct{}
	stopOnce sync.Once
	isNew    bool
	isWanted bool
	errors   []error
	tell     func(core.Connection)
	fail     func(error)
	ask      func()
}

// errorsKept bounds the errors that a slow watcher has not taken; later ones are left out.
const errorsKept = 64

func newWatchers() *watchers {
	return &watchers{watchers: map[*watcher]struct{}{}, current: core.Connection{Reason: "not asked to connect"}, since: time.Now()}
}

// connection makes a state known and returns the one before.
func (w *watchers) connection(c core.Connection, s core.Status, start time.Time) core.State {
	w.mu.Lock()
	defer w.mu.Unlock()
	old := w.current.State
	w.current, w.since, w.next = c, start.Add(time.Duration(s.Since)), time.Time{}
	if c.State == core.StateWaiting {
		w.next = start.Add(time.Duration(s.NextAttempt))
	}
	for one := range w.watchers {
		one.isNew = true
		one.signal()
	}
	return old
}

// get returns the state with its times relative to now.
func (w *watchers) get() core.Connection {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.getLocked()
}

func (w *watchers) getLocked() core.Connection {
	c := w.current
	c.Since = time.Since(w.since)
	if !w.next.IsZero() {
		c.NextAttempt = max(0, time.Until(w.next))
	}
	return c
}

func (w *watchers) error(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for one := range w.watchers {
		if one.fail != nil && len(one.errors) < errorsKept {
			one.errors = append(one.errors, err)
			one.signal()
		}
	}
}

// want makes known that a new token is wanted, or that it has come.
func (w *watchers) want(wanted bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.wanted = wanted
	for one := range w.watchers {
		one.isWanted = wanted
		if wanted && one.ask != nil {
			one.signal()
		}
	}
}

func (w *watcher) signal() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

func (w *watchers) add(f func(core.Connection)) (stop func()) {
	return w.start(&watcher{tell: f, isNew: true})
}

func (w *watchers) addError(f func(error)) (stop func()) { return w.start(&watcher{fail: f}) }

func (w *watchers) addWanted(f func()) (stop func()) { return w.start(&watcher{ask: f}) }

func (w *watchers) start(one *watcher) (stop func()) {
	one.wake, one.stop = make(chan struct{}, 1), make(chan struct{})
	one.signal()
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return func() {}
	}
	one.isWanted = w.wanted
	w.watchers[one] = struct{}{}
	go w.serve(one)
	return func() { one.stopOnce.Do(func() { close(one.stop) }) }
}

func (w *watchers) serve(one *watcher) {
	for isLast := false; !isLast; {
		select {
		case <-one.wake:
		case <-one.stop:
			isLast = true
		}
		w.mu.Lock()
		c, isNew, isWanted, errs := w.getLocked(), one.isNew, one.isWanted, one.errors
		one.isNew, one.isWanted, one.errors = false, false, nil
		isLast = isLast || w.closed
		if isLast {
			delete(w.watchers, one)
		}
		isStopped := isLast && !w.closed
		w.mu.Unlock()
		if isStopped {
			return // the caller asked for silence
		}
		if isNew && one.tell != nil {
			one.tell(c)
		}
		if isWanted && one.ask != nil && !isLast {
			one.ask()
		}
		for _, err := range errs {
			one.fail(err)
		}
	}
}

// close tells every watcher the last state, after which it ends. It does not wait for them: a watcher may be waiting for
// the engine's end itself.
func (w *watchers) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed = true
	for one := range w.watchers {
		one.signal()
	}
}
