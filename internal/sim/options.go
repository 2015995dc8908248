package sim

import (
	"math/rand/v2"
	"time"

	"github.com/fairlead-iot/fairlead/core"
)

// Faults are what may go wrong, by name. A field without a unit is a probability of 0 to 1 for each occasion; a field
// that ends in Every is the mean time between two occurrences, 0 for never.
type Faults struct {
	// CredentialFails: the credential source has nothing to give just now.
	CredentialFails float64
	// DialRefused: the hub's address answers with a reset. DialHangs: it does not answer, and the dial times out.
	// DialBlocked: the route does not get through here.
	DialRefused, DialHangs, DialBlocked float64
	// TokenRejected: the hub refuses a good token. Throttled: the hub refuses a CONNECT, a twin request.
	// Unavailable: the hub refuses a CONNECT, as it does to a disabled device.
	TokenRejected, Throttled, Unavailable float64
	// TokenShort: the credential source hands out what ends within ShortLife. In some worlds it has nothing else.
	TokenShort float64
	// ClockJumpedEvery: the device's wall clock jumps, forward or back, by minutes or by a day, or is set right. What is
	// signed then has an end that the hub reads otherwise than the device: it is refused as expired, or ends long before
	// or after its time. ClockUnset: the device starts in 1970.
	ClockJumpedEvery time.Duration
	ClockUnset       float64
	// SubscriptionRefused: the hub answers SUBACK with a refusal.
	SubscriptionRefused float64
	// SessionForgotten: at CONNECT the hub has nothing of the last session: no subscription, session present 0.
	SessionForgotten float64
	// AnswerLost: the hub never answers a request, or acknowledges nothing more in this session. AnswerLate: it
	// answers after seconds. AnswerDoubled: the news of an answer comes twice.
	AnswerLost, AnswerLate, AnswerDoubled float64
	// SessionLostEvery: the connection breaks. SilentLoss is the part of the breaks that neither end is told of until
	// its keep-alive says so.
	SessionLostEvery time.Duration
	SilentLoss       float64
	// HubAwayEvery: nothing gets through for up to forty minutes.
	HubAwayEvery time.Duration
	// TakenOverEvery: another client uses the identity for some minutes, and takes each session over.
	TakenOverEvery time.Duration
	// StaleEvery: an event of an earlier epoch or start is told again.
	StaleEvery time.Duration
	// PluginCrashedEvery, PluginHungEvery: of each plugin. PluginStartFails: it exits before it is ready.
	PluginCrashedEvery, PluginHungEvery time.Duration
	PluginStartFails                    float64
	// HandlerSlow: a plugin needs 10 to 70 s for one call.
	HandlerSlow float64
	// ChangeLost: the hub loses a change of the desired properties, which it sends without waiting for an answer.
	ChangeLost float64
	// TwinRecreatedEvery: the device is deleted and created anew at the hub: the twin begins again at a low version.
	TwinRecreatedEvery time.Duration
	// RouteBlockedEvery: one of the routes is swallowed, refused or hollow for up to an hour.
	RouteBlockedEvery time.Duration
	// LinkUpEvery: the platform tells of a link that came up. RouteChosenEvery: an operator says by which route to go.
	LinkUpEvery, RouteChosenEvery time.Duration
	// OperatorEvery: somebody disconnects for a while, with or without hold. WithdrawnEvery: a caller gives up a message.
	// CancelledEvery: a caller gives up an operation.
	OperatorEvery, WithdrawnEvery, CancelledEvery time.Duration
}

// Options are one world, whole: with the same options and seed it is always the same story.
type Options struct {
	Seed uint64
	// Duration is how long the faulty phase lasts, in virtual time. The healed phase comes on top.
	Duration time.Duration
	Faults   Faults
	// TokenLife is how long a credential lasts.
	TokenLife time.Duration
	// ShortLife is the longest life of the credentials of Faults.TokenShort.
	ShortLife time.Duration
	// ClockNoticed: the machine is told that credentials have changed when the clock has jumped. Else it has to find out.
	ClockNoticed bool
	Routes       int
	// Obstacles are in the way of the routes all the time until the world is healed: "swallowed", "refusing", "hollow".
	Obstacles Obstacles
	// Dialed, if set, is told of each dial.
	Dialed func(at core.Instant, route int)
	// Latency is the longest usual way from one end to the other.
	Latency time.Duration
	Limits  core.Limits
	// SubmitEvery and so on are mean times between two occurrences, SubmitEvery for each plugin.
	SubmitEvery, MethodEvery, MessageEvery, DesiredEvery, ReportEvery time.Duration
	// Wrap, if set, stands between the world and the machine: the place of planted bugs.
	Wrap func(Stepper) Stepper
	// Without are oracles that are left out.
	Without []Oracle
	// Trace keeps the transcript.
	Trace bool
}

// HealTime is how long everything may take to drain once nothing goes wrong any more: the longest wait before an attempt,
// then the longest before a subscription or twin get is tried again, and a little for the work itself.
const HealTime = 10*time.Minute + 5*time.Minute + 2*time.Minute

// Draw makes the options of a seed. Each fault is left out in more than half of the seeds: a world in which everything
// goes wrong all the time never reaches the states in which one fault alone would hurt.
func Draw(seed uint64) Options {
	r := newRand(seed, 0)
	some := func(most float64) float64 {
		if r.Float64() < 0.6 {
			return 0
		}
		return most * r.Float64()
	}
	every := func(least, most time.Duration) time.Duration {
		if r.Float64() < 0.6 {
			return 0
		}
		return between(r, least, most)
	}
	l := core.DefaultLimits()
	l.Window = 1 + r.IntN(40)
	l.WindowBytes = 1000 + r.IntN(8000)
	l.OpenCalls = 2 + r.IntN(6)
	// A better route has to be found again within HealTime.
	l.ProbeFirst, l.ProbeMax, l.ProbePatience = between(r, 20*time.Second, time.Minute), probeWithin, time.Minute
	o := Options{
		Seed: seed, Duration: 2 * time.Hour,
		Faults: Faults{
			CredentialFails: some(0.3), DialRefused: some(0.5), DialHangs: some(0.3), DialBlocked: some(0.4),
			TokenRejected: some(0.3), Throttled: some(0.3), Unavailable: some(0.3), SubscriptionRefused: some(0.3), SessionForgotten: some(1),
			AnswerLost: some(0.05), AnswerLate: some(0.2), AnswerDoubled: some(0.2),
			SessionLostEvery: every(20*time.Second, 20*time.Minute), SilentLoss: r.Float64(),
			HubAwayEvery: every(20*time.Minute, time.Hour), TakenOverEvery: every(30*time.Minute, 2*time.Hour),
			StaleEvery: every(2*time.Second, time.Minute), PluginCrashedEvery: every(time.Minute, time.Hour),
			PluginHungEvery: every(5*time.Minute, time.Hour), PluginStartFails: some(0.9), HandlerSlow: some(0.1),
			TwinRecreatedEvery: every(10*time.Minute, time.Hour), OperatorEvery: every(10*time.Minute, time.Hour),
			WithdrawnEvery: every(30*time.Second, 10*time.Minute), CancelledEvery: every(time.Minute, 20*time.Minute),
			ChangeLost: some(0.3), TokenShort: some(0.2), ClockJumpedEvery: every(5*time.Minute, time.Hour), ClockUnset: some(1),
		},
		ClockNoticed: r.IntN(2) == 0, ShortLife: between(r, 2*time.Second, 30*time.Second),
		TokenLife: between(r, 2*time.Minute, time.Hour), Routes: 1 + r.IntN(3), Latency: between(r, 5*time.Millisecond, 400*time.Millisecond),
		Limits:      l,
		SubmitEvery: between(r, 15*time.Second, time.Minute), MethodEvery: between(r, 30*time.Second, 3*time.Minute),
		MessageEvery: between(r, time.Minute, 5*time.Minute), DesiredEvery: between(r, 2*time.Minute, 15*time.Minute),
		ReportEvery: between(r, time.Minute, 5*time.Minute),
	}
	if o.Routes > 1 {
		o.Faults.RouteBlockedEvery, o.Faults.RouteChosenEvery = every(5*time.Minute, time.Hour), every(10*time.Minute, time.Hour)
	}
	o.Faults.LinkUpEvery = every(2*time.Second, 10*time.Minute)
	if r.IntN(30) == 0 {
		o.Faults.TokenShort = 1
		if r.IntN(2) == 0 {
			o.ShortLife = 1500 * time.Millisecond // an invitation to renew all the time
		}
	}
	return o
}

func between(r *rand.Rand, least, most time.Duration) time.Duration {
	if most <= least {
		return least
	}
	return least + time.Duration(r.Int64N(int64(most-least)))
}

// newRand returns one of the random sources of a seed.
func newRand(seed, stream uint64) *rand.Rand {
	return rand.New(rand.NewPCG(seed, stream)) //nolint:gosec // it has to be predictable
}
