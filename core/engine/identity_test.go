package engine

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fairlead-iot/fairlead/core"
	"github.com/fairlead-iot/fairlead/core/coretest"
)

// named gives credentials that say whose they are.
type named struct {
	ids  []core.Identity // by call; the last stays
	fail int             // how many calls fail before
}

func (n *named) Credential(context.Context) (core.Credential, error) {
	if n.fail > 0 {
		n.fail--
		return core.Credential{}, &core.Error{Op: "register", Kind: core.Transient, Err: errors.New("no answer")}
	}
	id := n.ids[0]
	if len(n.ids) > 1 {
		n.ids = n.ids[1:]
	}
	return core.Credential{Token: "t", Life: time.Hour, Identity: id}, nil
}

// asked is a launcher that notes who the device was at each start.
type asked struct {
	mu  sync.Mutex
	ids []core.Identity
}

func (a *asked) seen() []core.Identity {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.ids)
}

func (a *asked) Launch(_ context.Context, d core.Device) (core.Plugin, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.ids = append(a.ids, d.Identity())
	return nil, &core.Error{Op: "start", Kind: core.Fatal, Err: errors.New("only asked")}
}

func TestPluginsStartWhenTheDeviceKnowsWhoItIs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first, second := core.Identity{Hostname: "hub-1", DeviceID: "d"}, core.Identity{Hostname: "hub-2", DeviceID: "d"}
		hub, launcher := coretest.NewHub(), &asked{}
		e := newEngine(t, hub, func(c *Config) {
			c.Identity, c.Credentials = core.Identity{}, &named{ids: []core.Identity{first, {}, second}, fail: 2}
			c.Plugins = []Plugin{{PluginConfig: core.PluginConfig{Name: "p"}, Launcher: launcher}}
			c.Machine.ConnectAtStart = true
		})
		stop := run(t, e)
		synctest.Wait()
		if seen := launcher.seen(); len(seen) != 0 {
			t.Fatalf("a plugin was started as %+v before anybody knew the device", seen)
		}
		who := func() core.Identity { return e.Device(0).Identity() }
		for range 3 {
			time.Sleep(10 * time.Second)
		}
		synctest.Wait()
		if seen := launcher.seen(); len(seen) == 0 || seen[0] != first || who() != first {
			t.Fatalf("the plugin was told %+v, and the device is %+v, want %+v", seen, who(), first)
		}
		for range 2 { // the second credential says nothing, the third another hub
			if err := e.Disconnect(t.Context(), false); err != nil {
				t.Fatal(err)
			}
			if err := e.Device(0).Connect(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		s, err := e.Status(t.Context())
		if err != nil || s.Identity != second {
			t.Errorf("status says %+v (%v), want %+v", s.Identity, err, second)
		}
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
}

func TestAShutdownDoesNotWaitForAnIdentity(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newEngine(t, coretest.NewHub(), func(c *Config) {
			c.Identity, c.Credentials = core.Identity{}, &named{fail: 1 << 30}
			c.Plugins = []Plugin{{PluginConfig: core.PluginConfig{Name: "p"}, Launcher: &asked{}}}
			c.Machine.ConnectAtStart = true
		})
		stop := run(t, e)
		time.Sleep(time.Minute)
		began := time.Now()
		if err := stop(); err != nil {
			t.Error(err)
		}
		if took := time.Since(began); took > time.Second {
			t.Errorf("it took %v", took)
		}
	})
}
