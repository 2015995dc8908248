package device_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fairlead-iot/fairlead/core"
	"github.com/fairlead-iot/fairlead/credentials"
	"github.com/fairlead-iot/fairlead/device"
	"github.com/fairlead-iot/fairlead/hub"
	"github.com/fairlead-iot/fairlead/hub/api"
	"github.com/fairlead-iot/fairlead/hub/hubtest"
	"github.com/fairlead-iot/fairlead/store"
	"github.com/fairlead-iot/fairlead/transports/mqtt"
	"github.com/fairlead-iot/fairlead/transports/netdial"
)

// plant is a provisioning service that a test scripts, and the hubs that it may name. The service answers at once; the
// hubs, transports and credentials are real. Every hub lets the device dev1 in with the same key.
type plant struct {
	t    *testing.T
	hubs map[string]*hubtest.Hub
	key  core.Secret

	mu    sync.Mutex
	says  string // the name of the hub that the service names; "" refuses
	asked []time.Time
	kept  *store.Assignment
	odd   error // what Load says instead
}

func newPlant(t *testing.T, names ...string) *plant {
	p := &plant{t: t, hubs: map[string]*hubtest.Hub{}, key: "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=", says: names[0]}
	for _, name := range names {
		p.hubs[name] = hubtest.StartPipe(t, hubtest.WithConfig(func(c *hub.Config) { c.Hostnames = []string{name} }))
		p.enroll(name)
	}
	return p
}

// enroll makes the device known to a hub.
func (p *plant) enroll(name string) {
	p.t.Helper()
	key := api.SymmetricKey{PrimaryKey: p.key.Reveal(), SecondaryKey: p.key.Reveal()}
	if _, err := p.hubs[name].CreateDevice(api.Device{DeviceID: "dev1", Authentication: api.Authentication{SymmetricKey: key}}); err != nil {
		p.t.Fatal(err)
	}
}

func (p *plant) set(says string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.says = says
}

// questions says when the service was asked.
func (p *plant) questions() []time.Time {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.asked)
}

func (p *plant) Register(_ context.Context, c core.Credential) (core.Registration, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.asked = append(p.asked, time.Now())
	if c.Token == "" {
		p.t.Error("the device registers without proof")
	}
	if p.says == "" {
		return core.Registration{}, &core.Error{Op: "register", Kind: core.Transient, Err: errors.New("no provisioning service here")}
	}
	return core.Registration{Status: "assigned", State: core.RegistrationState{AssignedHub: p.says, DeviceID: "dev1"}}, nil
}

func (p *plant) Load() (store.Assignment, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.odd != nil:
		return store.Assignment{}, p.odd
	case p.kept == nil:
		return store.Assignment{}, fs.ErrNotExist
	}
	return *p.kept, nil
}

func (p *plant) Save(a store.Assignment) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.kept = &a
	return nil
}

func (p *plant) provisioning(change ...func(*device.Provisioning)) *device.Provisioning {
	p.t.Helper()
	proof, err := credentials.NewRegistrationKey("0ne1", "reg1", p.key, time.Hour, time.Now)
	if err != nil {
		p.t.Fatal(err)
	}
	cfg := &device.Provisioning{
		Registrar: p, Proof: proof, Keep: p, Routes: []string{"mqtt"},
		Credentials: func(id core.Identity) (core.CredentialSource, error) {
			return credentials.NewSharedKey(id, p.key, time.Hour, time.Now)
		},
		Transports: func(id core.Identity) ([]core.Transport, error) {
			cfg := mqtt.Config{Identity: id, DialContext: func(context.Context, string, string) (net.Conn, error) {
				return nil, &net.DNSError{Err: "no such host", Name: id.Hostname, IsNotFound: true}
			}}
			if h := p.hubs[id.Hostname]; h != nil {
				cfg.TLS, cfg.DialContext = netdial.TLSConfig{ServerVerificationCert: h.CAPEM()}, h.DialContext
			}
			t, err := mqtt.New(cfg)
			return []core.Transport{t}, err
		},
	}
	for _, f := range change {
		f(cfg)
	}
	return cfg
}

func (p *plant) client(change ...func(*device.Provisioning)) *device.Client {
	p.t.Helper()
	cfg := device.DefaultConfig()
	cfg.ConnectAtStart, cfg.Provisioning = true, p.provisioning(change...)
	c, err := device.New(cfg)
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { _ = c.Shutdown(context.WithoutCancel(p.t.Context())) }) // what is unsent was meant to be
	return c
}

func TestADeviceIsProvisionedByTheRealService(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := hubtest.StartPipe(t)
		g := h.AddEnrollmentGroup(api.EnrollmentGroup{EnrollmentGroupID: "plant"})
		key, err := credentials.DeriveKey(core.Secret(g.Attestation.SymmetricKey.PrimaryKey), "sn-7")
		if err != nil {
			t.Fatal(err)
		}
		trust := netdial.TLSConfig{ServerVerificationCert: h.CAPEM()}
		registrar, err := mqtt.NewRegistrar(mqtt.RegistrarConfig{Host: "localhost", IDScope: h.IDScope(), RegistrationID: "sn-7", TLS: trust, DialContext: h.DialContext})
		if err != nil {
			t.Fatal(err)
		}
		p := &plant{t: t, hubs: map[string]*hubtest.Hub{"localhost": h}, key: key}
		proof, err := credentials.NewRegistrationKey(h.IDScope(), "sn-7", key, time.Hour, time.Now)
		if err != nil {
			t.Fatal(err)
		}
		c := p.client(func(cfg *device.Provisioning) { cfg.Registrar, cfg.Proof = registrar, proof })
		if err := c.Send(t.Context(), text("1")); err != nil {
			t.Fatal(err)
		}
		if got := numbers(t, h); fmt.Sprint(got) != "[1]" {
			t.Errorf("the hub has %v", got)
		}
		s, err := c.Engine().Status(t.Context())
		if err != nil || s.Identity != (core.Identity{Hostname: "localhost", DeviceID: "sn-7"}) {
			t.Errorf("status names %+v, %v", s.Identity, err)
		}
		if st, ok := c.Provisioning(); !ok || st.Hostname != "localhost" || st.DeviceID != "sn-7" || st.Kept || st.Err != nil || time.Since(st.At) > time.Minute {
			t.Errorf("the client says of its assignment %+v, %v", st, ok)
		}
		if p.kept == nil || p.kept.Hostname != "localhost" || p.kept.DeviceID != "sn-7" {
			t.Errorf("kept %+v", p.kept)
		}
	})
}

func TestAStartUsesTheLastAssignment(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPlant(t, "hub-a.test")
		p.set("") // the service is down
		p.kept = &store.Assignment{Hostname: "hub-a.test", DeviceID: "dev1"}
		if err := p.client().Send(t.Context(), text("1")); err != nil {
			t.Fatal(err)
		}
		if n := len(p.questions()); n != 0 {
			t.Errorf("the service was asked %d times", n)
		}
		// # A policy that asks at each start does not depend on the answer.
		if err := p.client(func(cfg *device.Provisioning) { cfg.Reprovision = device.ReprovisionAtStart }).Send(t.Context(), text("2")); err != nil {
			t.Fatal(err)
		}
		if n := len(p.questions()); n != 1 {
			t.Errorf("the service was asked %d times at a start that asks", n)
		}
		atStart, kept := p.client(func(cfg *device.Provisioning) { cfg.Reprovision = device.ReprovisionAtStart }), p.client()
		if err := atStart.Connect(t.Context()); err != nil {
			t.Fatal(err)
		}
		if st, ok := atStart.Provisioning(); !ok || st.Hostname != "hub-a.test" || !st.Kept || st.Err == nil {
			t.Errorf("the client that asked in vain says %+v, %v", st, ok)
		}
		if st, ok := kept.Provisioning(); !ok || st.Hostname != "hub-a.test" || !st.Kept || st.Err != nil {
			t.Errorf("the client that did not ask says %+v, %v", st, ok)
		}
	})
}

func TestWithoutAnAssignmentADeviceWaitsForTheService(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPlant(t, "hub-a.test")
		p.set("")
		p.odd = errors.New("load assignment: unexpected end of JSON input")
		c := p.client()
		time.Sleep(time.Hour)
		state, err := c.Connection(t.Context())
		if err != nil || state.State == core.StateConnected {
			t.Fatalf("state %+v, %v", state, err)
		}
		if n := len(p.questions()); n > 80 {
			t.Errorf("the service was asked %d times within an hour", n)
		}
		p.set("hub-a.test")
		if err := c.Send(t.Context(), text("1")); err != nil {
			t.Fatal(err)
		}
	})
}

func TestAKeptAssignmentOfANewerVersionIsNotTouched(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPlant(t, "hub-a.test")
		p.odd = fmt.Errorf("load: %w", store.ErrNewer)
		cfg := device.DefaultConfig()
		cfg.Provisioning = p.provisioning()
		if _, err := device.New(cfg); !errors.Is(err, store.ErrNewer) {
			t.Errorf("error %v, want ErrNewer", err)
		}
		cfg.Provisioning.Proof = nil
		if _, err := device.New(cfg); !errors.Is(err, core.ErrInvalid) {
			t.Errorf("without proof: %v, want ErrInvalid", err)
		}
	})
}

// What waits in the outbox and in the handlers stays when another hub takes the device over.
func TestAReassignedDeviceLosesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPlant(t, "hub-a.test", "hub-b.test")
		c := p.client()
		var seen []string
		c.HandleMessages(func(_ context.Context, m *device.Message) error {
			seen = append(seen, string(m.Payload))
			return nil
		})
		if err := c.Send(t.Context(), text("0")); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Minute) // within the first, the service is not asked twice
		a, b := p.hubs["hub-a.test"], p.hubs["hub-b.test"]
		p.set("hub-b.test")
		if err := a.DeleteDevice("dev1"); err != nil { // it drops the device, and will not let it in
			t.Fatal(err)
		}
		began := time.Now()
		var sends sync.WaitGroup
		for i := range 20 {
			sends.Go(func() {
				if err := c.Send(t.Context(), text(fmt.Sprint(i+1))); err != nil {
					t.Errorf("send %d: %v", i+1, err)
				}
			})
		}
		sends.Wait()
		if took := time.Since(began); took > 10*time.Second {
			t.Errorf("the move took %v", took)
		}
		got := append(numbers(t, a), numbers(t, b)...)
		slices.Sort(got)
		if got = slices.Compact(got); len(got) != 21 || got[20] != 20 {
			t.Errorf("the hubs have %v, want 0 to 20", got)
		}
		if err := b.SendC2D("dev1", api.C2D{Body: []byte("welcome")}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if fmt.Sprint(seen) != "[welcome]" {
			t.Errorf("the handler saw %v", seen)
		}
		if p.kept.Hostname != "hub-b.test" {
			t.Errorf("kept %+v", p.kept)
		}
	})
}

func TestADeviceThatIsRefusedForLongAsksSeldom(t *testing.T) {
	for _, c := range []struct {
		name        string
		refuse      func(h *hubtest.Hub, p *plant)
		policy      device.Reprovision
		least, most int // questions in a day, the first one not counted
	}{
		{"unknown", func(h *hubtest.Hub, _ *plant) { _ = h.DeleteDevice("dev1") }, device.ReprovisionRefused, 20, 35},
		{"unavailable", func(h *hubtest.Hub, _ *plant) { h.Fault(api.Fault{Name: api.FaultConnack, Code: 3}) }, device.ReprovisionRefused, 5, 35},
		{"unknown, and the service is down", func(h *hubtest.Hub, p *plant) { p.set(""); _ = h.DeleteDevice("dev1") }, device.ReprovisionRefused, 20, 35},
		{"unknown, and the policy says never", func(h *hubtest.Hub, _ *plant) { _ = h.DeleteDevice("dev1") }, device.ReprovisionNever, 0, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := newPlant(t, "hub-a.test")
				client := p.client(func(cfg *device.Provisioning) { cfg.Reprovision = c.policy })
				if err := client.Connect(t.Context()); err != nil {
					t.Fatal(err)
				}
				h := p.hubs["hub-a.test"]
				c.refuse(h, p)
				if c.name == "unavailable" {
					h.Fault(api.Fault{Name: api.FaultCut, Count: 1})
				}
				time.Sleep(24 * time.Hour)
				asked := p.questions()
				if n := len(asked) - 1; n < c.least || n > c.most {
					t.Errorf("the service was asked %d times in a day, want %d to %d", n, c.least, c.most)
				}
				for i := 2; i < len(asked); i++ {
					if gap := asked[i].Sub(asked[i-1]); gap < time.Minute {
						t.Errorf("questions %d and %d are %v apart", i-1, i, gap)
					}
				}
				if c.name != "unknown" {
					return
				}
				// # The device comes back by itself.
				p.enroll("hub-a.test")
				ctx, cancel := context.WithTimeout(t.Context(), 15*time.Minute)
				defer cancel()
				if err := client.Send(ctx, text("1")); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

func TestAHubThatIsGoneIsLeftForTheOneThatTheServiceNames(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPlant(t, "hub-b.test")
		p.kept = &store.Assignment{Hostname: "hub-gone.test", DeviceID: "dev1"}
		c := p.client()
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
		defer cancel()
		if err := c.Send(ctx, text("1")); err != nil {
			t.Fatal(err)
		}
		if n := len(p.questions()); n != 1 {
			t.Errorf("the service was asked %d times", n)
		}
	})
}

func TestAnAssignmentThatMakesNoSenseIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPlant(t, "hub-a.test")
		p.set("https://hub/?a b")
		c := p.client()
		time.Sleep(time.Minute)
		s, err := c.Connection(t.Context())
		if err != nil || s.State == core.StateConnected || s.Kind != core.Fatal {
			t.Errorf("state %+v, %v; want a fatal error", s, err)
		}
		if p.kept != nil {
			t.Errorf("kept %+v", p.kept)
		}
	})
}
