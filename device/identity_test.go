package device_test

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fairlead-iot/fairlead/core"
	"github.com/fairlead-iot/fairlead/credentials"
	"github.com/fairlead-iot/fairlead/device"
	"github.com/fairlead-iot/fairlead/hub/api"
	"github.com/fairlead-iot/fairlead/hub/hubtest"
	"github.com/fairlead-iot/fairlead/internal/clock"
	"github.com/fairlead-iot/fairlead/transports/mqtt"
	"github.com/fairlead-iot/fairlead/transports/netdial"
)

// startWith makes a client with the real transport and this source on a real hub, all within the bubble.
func startWith(t *testing.T, hub *hubtest.Hub, id core.Identity, source core.CredentialSource) *device.Client {
	t.Helper()
	transport, err := mqtt.New(mqtt.Config{
		Identity: id, TLS: netdial.TLSConfig{ServerVerificationCert: hub.CAPEM()}, DialContext: hub.DialContext,
	})
	if err != nil {
		t.Fatal(err)
	}
	cfg := device.DefaultConfig()
	cfg.Identity, cfg.Credentials, cfg.Transports = id, source, []core.Transport{transport}
	c, err := device.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Shutdown(context.WithoutCancel(t.Context())); err != nil {
			t.Errorf("shutdown: %v", err)
		}
	})
	return c
}

// stream sends numbers until stop is called, which checks that the hub has them all, once each and in order.
func stream(t *testing.T, c *device.Client, hub *hubtest.Hub) (stop func()) {
	t.Helper()
	ended := make(chan struct{})
	var work sync.WaitGroup
	sent := 0
	work.Go(func() {
		for ; ; sent++ {
			select {
			case <-ended:
				return
			default:
			}
			if err := c.Send(t.Context(), text(strconv.Itoa(sent))); err != nil {
				t.Errorf("send %d: %v", sent, err)
				return
			}
			time.Sleep(100 * time.Millisecond)
		}
	})
	return func() {
		t.Helper()
		close(ended)
		work.Wait()
		got := numbers(t, hub)
		for i, n := range got {
			if n != i {
				t.Fatalf("number %d is %d", i, n)
			}
		}
		if len(got) != sent || sent == 0 {
			t.Errorf("%d numbers were sent, the hub has %d", sent, len(got))
		}
	}
}

// counters returns what the machine has counted.
func counters(t *testing.T, c *device.Client) core.Counters {
	t.Helper()
	s, err := c.Engine().Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return s.Machine.Counters
}

// replacedCertificates is a source of certificates of dev1 that last for ten minutes; replace puts a new one in the place of
// the last.
func replacedCertificates(t *testing.T, ca *hubtest.CA) (source core.CredentialSource, replace func()) {
	t.Helper()
	var mu sync.Mutex
	var current credentials.Certificate
	replace = func() {
		t.Helper()
		cert, key := hubtest.CertificatePEM(t, ca.IssueUntil("dev1", time.Now().Add(10*time.Minute)))
		parsed, err := credentials.ParseCertificate(cert, key, "")
		if err != nil {
			t.Fatal(err)
		}
		mu.Lock()
		defer mu.Unlock()
		current = parsed
	}
	replace()
	source, err := credentials.NewX509(func(context.Context) (credentials.Certificate, error) {
		mu.Lock()
		defer mu.Unlock()
		return current, nil
	}, time.Now)
	if err != nil {
		t.Fatal(err)
	}
	return source, replace
}

// The authority makes certificates of ten minutes; whoever replaces the file is late once. Four are used up, and nobody
// notices.
func TestACertificateThatIsReplacedRenewsTheSessionUnnoticed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hub := hubtest.StartPipe(t)
		ca := hubtest.NewCA(t, "plant")
		if _, err := hub.AddCA("plant", ca.PEM()); err != nil {
			t.Fatal(err)
		}
		if _, err := hub.CreateDevice(api.Device{DeviceID: "dev1", Authentication: api.Authentication{Type: api.AuthCA}}); err != nil {
			t.Fatal(err)
		}
		source, replace := replacedCertificates(t, ca)
		c := startWith(t, hub, core.Identity{Hostname: hub.Hostname(), DeviceID: "dev1"}, source)
		stop := stream(t, c, hub)
		for range 3 {
			time.Sleep(8*time.Minute + 40*time.Second) // past its renewal, which finds nothing new, and asks again
			replace()
			time.Sleep(50 * time.Second)
		}
		stop()
		n := counters(t, c)
		if n.Renewals != 3 || n.Losses != 0 || n.Sessions != 4 {
			t.Errorf("%d renewals, %d losses, %d sessions; want 3, 0, 4", n.Renewals, n.Losses, n.Sessions)
		}
	})
}

func TestACertificateThatTheHubDoesNotKnowIsRefusedInPlainWords(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hub := hubtest.StartPipe(t)
		hub.NewCertificateDevice("dev1", nil)
		other := hubtest.SelfSigned(t, "dev1")
		cert, key := hubtest.CertificatePEM(t, other)
		parsed, err := credentials.ParseCertificate(cert, key, "")
		if err != nil {
			t.Fatal(err)
		}
		late := func() time.Time { return parsed.NotAfter.Add(time.Hour) }
		source, err := credentials.NewX509Signer(parsed.Chain, parsed.Signer, late)
		if err != nil {
			t.Fatal(err)
		}
		c := startWith(t, hub, core.Identity{Hostname: hub.Hostname(), DeviceID: "dev1"}, source)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		err = c.Connect(ctx)
		if err == nil || !strings.Contains(err.Error(), "the device's certificate ended at ") || !strings.Contains(err.Error(), "the hub does not accept the device's proof of identity") {
			t.Errorf("got %v, want the doubt and the refusal", err)
		}
	})
}

func TestAGivenTokenIsAskedForUpdatedAndComesBackAfterItsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hub := hubtest.StartPipe(t)
		cs, err := credentials.ParseConnectionString(hub.AddDevice("dev1"))
		if err != nil {
			t.Fatal(err)
		}
		sign, err := credentials.KeySigner(cs.Key)
		if err != nil {
			t.Fatal(err)
		}
		token := func(life time.Duration) string {
			t.Helper()
			text, err := credentials.Sign(t.Context(), sign, credentials.Resource(cs.Identity), "", time.Now().Add(life))
			if err != nil {
				t.Fatal(err)
			}
			return text.Reveal()
		}
		source, err := credentials.NewGivenToken(core.Secret(token(10*time.Minute)), time.Now)
		if err != nil {
			t.Fatal(err)
		}
		c := startWith(t, hub, cs.Identity, source)
		began := time.Now()
		asked := make(chan time.Duration, 10)
		defer c.OnNewSASToken(func() { asked <- time.Since(began) })()
		stop := stream(t, c, hub)

		if at := (<-asked).Round(time.Second); at != 8*time.Minute {
			t.Errorf("asked after %v, want 8m: two minutes ahead", at)
		}
		if err := c.UpdateSASToken(t.Context(), token(10*time.Minute)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Minute) // past the first one's end
		stop()
		if n := counters(t, c); n.Renewals != 1 || n.Losses != 0 {
			t.Errorf("%d renewals, %d losses; want 1 and none", n.Renewals, n.Losses)
		}

		// Nobody answers.
		<-asked
		time.Sleep(10 * time.Minute)
		s, err := c.Connection(t.Context())
		if err != nil || s.State != core.StateWaiting || !strings.Contains(s.Reason, "the SAS token ended at ") || s.NextAttempt <= 0 {
			t.Errorf("after its end: %+v, %v", s, err)
		}
		attempts := counters(t, c).Attempts
		time.Sleep(time.Hour)
		if n := counters(t, c).Attempts - attempts; n > 12 {
			t.Errorf("%d attempts in an hour with a token that has ended", n)
		}
		late := make(chan struct{}, 1)
		defer c.OnNewSASToken(func() { late <- struct{}{} })()
		<-late // whoever comes late is asked too
		if err := c.UpdateSASToken(t.Context(), token(-time.Second)); !errors.Is(err, core.ErrInvalid) {
			t.Errorf("an ended token: %v", err)
		}
		updated := time.Now()
		if err := c.UpdateSASToken(t.Context(), token(time.Hour)); err != nil {
			t.Fatal(err)
		}
		if err := c.Connect(t.Context()); err != nil || time.Since(updated) > time.Second {
			t.Errorf("back %v after the update: %v", time.Since(updated), err)
		}
	})
}

func TestOnlyAGivenTokenCanBeUpdated(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, _ := startOnHub(t, time.Hour)
		if err := c.UpdateSASToken(t.Context(), "SharedAccessSignature sr=x"); !errors.Is(err, core.ErrUnsupported) {
			t.Errorf("got %v, want ErrUnsupported", err)
		}
	})
}

// A device without a clock of its own boots in 1970, is told the time, and later is set to and fro.
func TestAClockThatIsSetMakesTheTokenAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hub := hubtest.StartPipe(t)
		cs, err := credentials.ParseConnectionString(hub.AddDevice("dev1"))
		if err != nil {
			t.Fatal(err)
		}
		var shift atomic.Int64
		system := func() time.Time { return time.Now().Add(time.Duration(shift.Load())) }
		shift.Store(int64(time.Until(time.Unix(60, 0))))
		wall, err := clock.New(clock.Config{Built: time.Now().Add(-24 * time.Hour), System: system})
		if err != nil {
			t.Fatal(err)
		}
		source, err := credentials.NewSharedKey(cs.Identity, cs.Key, time.Hour, wall.Now)
		if err != nil {
			t.Fatal(err)
		}
		c := startWith(t, hub, cs.Identity, source)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go wall.Watch(ctx, func(time.Duration) { c.Engine().CredentialChanged() })

		early, cancelEarly := context.WithTimeout(t.Context(), 10*time.Minute)
		defer cancelEarly()
		if err := c.Connect(early); err == nil || !strings.Contains(err.Error(), "the hub does not accept the device's proof of identity") {
			t.Errorf("with the time of the build: %v", err)
		}
		shift.Store(0)
		began := time.Now()
		stop := stream(t, c, hub)
		if err := c.Connect(t.Context()); err != nil || time.Since(began) > time.Minute {
			t.Errorf("connected %v after the clock was set: %v", time.Since(began), err)
		}

		time.Sleep(time.Minute)
		before := counters(t, c).Renewals // one if the clock was set just before an attempt, and the jump seen after it
		for i, by := range []time.Duration{365 * 24 * time.Hour, 0, -30 * time.Minute, 0} {
			shift.Store(int64(by))
			time.Sleep(2 * time.Minute)
			if n := counters(t, c); n.Losses != 0 || n.Renewals-before != uint64(i+1) {
				t.Errorf("after the clock went to %v: %d losses, %d renewals; want none and %d", by, n.Losses, n.Renewals-before, i+1)
			}
		}
		stop()
	})
}
