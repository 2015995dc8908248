//go:build faults && unix

package faults

import (
	"encoding/json"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestThreeRenewalsOfEachIdentityLoseNothingAndNobodyNotices(t *testing.T) {
	t.Parallel()
	t.Run("a key", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		w.configure(numbers("{rate: 200}"), "device: {connection_string: {file: device.cs}, sastoken_ttl: 20s}")
		w.renewThrice(nil)
	})
	t.Run("a ready token", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		sign := w.signer("device.cs")
		w.replace("token", sign(20*time.Second))
		w.configure(numbers("{rate: 200}"), "device: {sastoken: {file: token}}")
		w.renewThrice(func() { w.replace("token", sign(20*time.Second)) })
	})
	t.Run("a certificate", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		ca := w.newAuthority()
		w.hubDo("device", "delete", device)
		w.hubDo("device", "add", device, "--ca-signed")
		ca.issue(20 * time.Second)
		w.configure(numbers("{rate: 200}"), "device: {x509: {hostname: localhost, device_id: "+device+", cert_file: cert.pem, key_file: key.pem}}")
		w.renewThrice(func() { ca.issue(20 * time.Second) })
	})
	for name, how := range map[string]struct{ flags, key string }{
		"a key, by provisioning":            {"--group", "group_symmetric_key"},
		"a key of its own, by provisioning": {"", "symmetric_key"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			p := w.enroll(strings.Fields(how.flags)...)
			w.replace("enrollment.key", p.Key)
			w.configure(numbers("{rate: 200}"), p.configuration(how.key+": {file: enrollment.key}"))
			w.renewThrice(nil)
		})
	}
	t.Run("a module's key", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		w.replace("module.key", w.addModule("module.cs"))
		w.configure(numbers("{rate: 200}"), "device: {sastoken_ttl: 20s, symmetric_key: {hostname: "+hostname+", device_id: "+device+", module_id: "+edgeModule+", key: {file: module.key}}}")
		w.renewThrice(nil)
	})
	t.Run("a certificate, by provisioning", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		ca := w.newAuthority()
		p := w.enroll("--group", "--ca", w.path("ca.pem"))
		// Each new one is registered before it is shown, which takes the service three seconds.
		const life = 45 * time.Second
		ca.issue(life)
		w.configure(numbers("{rate: 200}"), p.configuration("x509: {cert_file: cert.pem, key_file: key.pem}"))
		w.renewThrice(func() { ca.issue(life) })
	})
	t.Run("a module of IoT Edge", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		edge := w.startWorkload()
		w.configure(numbers("{rate: 200}"), "device: {edge_environment: true, sastoken_ttl: 20s}")
		w.renewThrice(nil)
		if n := edge.signed.Load(); n < 4 {
			t.Errorf("the workload API signed %d tokens over three renewals", n)
		}
	})
}

// renewThrice runs the device until three renewals were seen, under telemetry and method calls that may not wait long, and
// checks that nothing was lost. replace, if set, is called half-way through each credential's life.
func (w *world) renewThrice(replace func()) {
	const wanted = 3
	t := w.t
	t.Helper()
	w.run()
	began := time.Now()

	stop := make(chan struct{})
	var callers sync.WaitGroup
	var calls int
	var slowest time.Duration
	callers.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			calls++
			at := time.Now()
			payload := strconv.Itoa(calls)
			stdout, stderr, code := w.cli("hub", "method", w.id, "echo", "--payload", payload, "--connect-timeout", "5s", "--timeout", "10s", "--dir", w.path("hub"))
			var a answer
			if err := json.Unmarshal([]byte(stdout), &a); err != nil || code != 0 || a.Status != 200 || string(a.Payload) != payload {
				t.Errorf("call %d, %v after the start: exit %d: %s%s", calls, at.Sub(began), code, stdout, stderr)
			}
			slowest = max(slowest, time.Since(at))
			time.Sleep(100 * time.Millisecond) // a process for each call, one after the other, would leave nothing to the others
		}
	})
	if replace != nil {
		callers.Go(func() {
			tick := time.NewTicker(10 * time.Second)
			defer tick.Stop()
			for {
				select {
				case <-stop:
					return
				case <-tick.C:
					replace()
				}
			}
		})
	}
	var s status
	eventually(t, 150*time.Second, "three renewals", func() bool {
		s = w.mustStatus()
		time.Sleep(200 * time.Millisecond) // the callers are to have the processor
		return s.Counters.Renewals >= wanted
	})
	took := time.Since(began)
	w.awaitAccepted(200, 30*time.Second)
	close(stop)
	callers.Wait()

	s = w.mustStatus()
	if s.Counters.Losses != 0 || s.Counters.Sessions != s.Counters.Renewals+1 {
		t.Errorf("%d losses, %d sessions, %d renewals: want none, and a session for each renewal beside the first", s.Counters.Losses, s.Counters.Sessions, s.Counters.Renewals)
	}
	gap, at := longestGap(w.accepted())
	if gap >= 2*time.Second {
		t.Errorf("nothing was acknowledged for %v, %v after the start: want less than 2 s", gap, at.Sub(began))
	}
	if refused := w.pluginFile("numbers", "refused"); len(refused) > 0 {
		t.Errorf("%d numbers were refused: %s", len(refused), refused[0])
	}
	t.Logf("%d renewals in %v, %d method calls all answered, the slowest in %v (its process included)", s.Counters.Renewals, took.Round(time.Second), calls, slowest.Round(time.Millisecond))
	w.terminate(0)
	w.checkNumbers(began)
	if got := w.pluginFile("numbers", "desired"); len(got) != 1 {
		t.Errorf("the desired state was given %d times over renewals, want once", len(got))
	}
}
