package engine

import (
	"context"
	"sync"

	"github.com/fairlead-iot/fairlead/core"
)

// identity is who the device is. It is known from the start, or from the first credential on, and a later credential may
// change it. Its methods may be called from any goroutine.
type identity struct {
	mu    sync.Mutex
	id    core.Identity
	known chan struct{} // closed when id names a device
}

func newIdentity(id core.Identity) *identity {
	i := &identity{known: make(chan struct{}), id: id}
	if id.DeviceID != "" {
		close(i.known)
	}
	return i
}

func (i *identity) get() core.Identity {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.id
}

// set takes over what a credential says; most say nothing.
func (i *identity) set(id core.Identity) {
	if id.DeviceID == "" {
		return
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.id = id
	select {
	case <-i.known:
	default:
		close(i.known)
	}
}

// wait waits until the identity is known; false if ctx ends before.
func (i *identity) wait(ctx context.Context) bool {
	select {
	case <-i.known:
		return true
	default:
	}
	select {
	case <-i.known:
		return true
	case <-ctx.Done():
		return false
	}
}
