package core

import (
	"bytes"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
)

// FuzzEvents feeds events in any order with any numbers, those included that no engine would tell: completions of what was
// never ordered, numbers of plugins and calls that do not exist, the same number twice. Whatever it is told, the machine
// does not panic, comes to an end at each step, keeps to the numbers that it gives out, and stops when it is asked to.
// FuzzStep has fewer events and more promises: it plays a world that keeps the engine's.
func FuzzEvents(f *testing.F) {
	fuzz(f, 11, 800, func(t *testing.T, data []byte) {
		newChaos(t, data).play()
	})
}

// TestStepUnderAnyEvents is FuzzEvents without a fuzzer: longer stories than it likes.
func TestStepUnderAnyEvents(t *testing.T) {
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 2))
		data := make([]byte, 3000)
		for i := range data {
			data[i] = byte(r.Uint32())
		}
		newChaos(t, data).play()
		if t.Failed() {
			t.Fatalf("seed %d", seed)
		}
	}
}

// chaos is a story without sense, and what is promised even so.
type chaos struct {
	t       *testing.T
	m       *Machine
	story   *bytes.Reader
	now     Instant
	log     []string
	epoch   Epoch
	closed  map[Epoch]bool
	starts  map[PluginIndex]Start
	last    [4]Seq // submitted
	told    [4]Seq
	forgot  [4]Seq
	ops     map[Op]int // waiting callers
	orders  []Effect   // the last ones
	stopped bool
}

func newChaos(t *testing.T, data []byte) *chaos {
	t.Helper()
	c := &chaos{t: t, story: bytes.NewReader(data), closed: map[Epoch]bool{}, starts: map[PluginIndex]Start{}, ops: map[Op]int{}}
	flags := c.n(256)
	cfg := Config{
		AutoConnect: flags&1 == 0, ConnectAtStart: flags&2 == 0, ConnectionRetry: flags&12 != 0, EnsureDesired: flags&16 == 0,
		RetryInterval: 10 * time.Second, RetryMax: 10 * time.Minute, Routes: flags >> 6,
		Plugins: []PluginConfig{{Name: "one"}, {Name: "two", Methods: []string{"b"}, Match: map[string]string{"to": "two"}}}, Limits: DefaultLimits(),
	}
	cfg.Limits.Window, cfg.Limits.OpenCalls = 4, 3
	c.m = New(cfg, rand.New(rand.NewPCG(3, uint64(flags))))
	return c
}

// n takes one byte of the story and maps it to 0..n-1.
func (c *chaos) n(n int) int {
	b, err := c.story.ReadByte()
	if err != nil {
		return 0
	}
	return int(b) % n
}

func (c *chaos) play() {
	for c.story.Len() > 0 && !c.stopped {
		if c.n(3) == 0 {
			c.now = c.now.Add([]time.Duration{time.Millisecond, time.Second, 20 * time.Second, time.Hour}[c.n(4)])
		}
		if ev := c.completion(); ev != nil {
			c.feed(ev)
			continue
		}
		c.feed(c.event())
	}
	if c.stopped {
		return
	}
	c.feed(Started{}) // a machine that has not begun has nothing to end
	c.feed(ShutdownRequested{})
	end := c.now.Add(10 * time.Second)
	for n := 0; !c.stopped; n++ {
		at, ok := c.m.Deadline()
		if !ok || at > end || n > 1000 {
			c.failf("not stopped 10 s after the shutdown was requested: %+v", c.m.Status())
		}
		c.now = max(c.now, at)
		c.feed(Ticked{})
	}
	if effects := c.m.Step(c.now, Started{}); len(effects) > 0 {
		c.failf("orders after the stop: %v", effects)
	}
	for op, n := range c.ops {
		if n > 0 {
			c.failf("nobody ended operation %d", op)
		}
	}
}

// What an event may say: mostly something near to what there is, now and then something else.

func (c *chaos) anEpoch() Epoch {
	if c.n(8) == 0 {
		return Epoch(c.n(256))
	}
	return c.epoch - min(c.epoch, Epoch(c.n(3)))
}

func (c *chaos) aPlugin() (PluginIndex, Start) {
	i := PluginIndex(c.n(4) - 1) // also none, and one too many
	return i, c.starts[i] - min(c.starts[i], Start(c.n(2)))
}

func (c *chaos) aCall() Call {
	if c.n(3) == 0 {
		return DesiredCall + Call(c.n(8))
	}
	return Call(c.n(12))
}

func (c *chaos) anOp() Op {
	if c.n(2) == 0 {
		return Op(c.n(6))
	}
	return CallerOp + Op(c.n(6))
}

func (c *chaos) aFault() Fault {
	return Fault{Kind: Kind(c.n(int(TakenOver) + 3)), Reason: "any\nreason", RetryAfter: time.Duration(c.n(3)) * time.Second, Clean: c.n(2) == 0}
}

func (c *chaos) aName() string { return []string{"", "a", "b", "both\n"}[c.n(4)] }

// completion is half of the events: what would complete one of the last orders, once or again. Chance alone gets nowhere.
func (c *chaos) completion() Event {
	if len(c.orders) == 0 || c.n(2) == 0 {
		return nil
	}
	order, isBad := c.orders[c.n(len(c.orders))], c.n(5) == 0
	switch o := order.(type) {
	case FetchCredential:
		return CredentialFetched{o.Epoch, []time.Duration{0, time.Minute, time.Hour}[c.n(3)], c.n(4) == 0, c.n(4) == 0, c.n(4) == 0}
	case Open:
		if isBad {
			return OpenFailed{o.Epoch, c.aFault()}
		}
		return Opened{o.Epoch}
	case Connect:
		if isBad {
			return ConnectFailed{o.Epoch, c.aFault()}
		}
		return Connected{o.Epoch, c.n(2) == 0}
	case Close:
		return Closed{o.Epoch}
	case Subscribe:
		return Subscribed(o)
	case Ask:
		return Replied{o.Epoch, o.Op, []int{200, 200, 429, 500}[c.n(4)], int64(c.n(9)), c.n(2) == 0}
	case Send:
		return Acked{o.Epoch, o.Lane, o.To - min(o.To, Seq(c.n(3)))}
	case Respond:
		return Responded{o.Epoch, o.Call, isBad}
	case StartPlugin:
		return PluginReady{o.Plugin, o.Start, []string{[]string{"a", "b"}[o.Plugin]}, !isBad, c.n(4) != 0}
	case StopPlugin:
		return PluginExited{o.Plugin, o.Start, Fault{Reason: "ended"}}
	case Deliver:
		return Returned{o.Plugin, o.Start, o.Call, Verdict(c.n(3)), isBad}
	case DeliverDesired:
		return Returned{o.Plugin, o.Start, o.Call, 0, isBad}
	default:
		return nil
	}
}

func (c *chaos) event() Event {
	switch c.n(31) {
	case 0:
		return Started{}
	case 1, 2:
		return CredentialFetched{c.anEpoch(), []time.Duration{-time.Hour, 0, 1, time.Second, time.Hour}[c.n(5)], c.n(3) == 0, c.n(3) == 0, c.n(3) == 0}
	case 3:
		return CredentialFailed{c.anEpoch(), c.aFault()}
	case 4, 5:
		return Opened{c.anEpoch()}
	case 6:
		return OpenFailed{c.anEpoch(), c.aFault()}
	case 7, 8:
		return Connected{c.anEpoch(), c.n(2) == 0}
	case 9:
		return ConnectFailed{c.anEpoch(), c.aFault()}
	case 10:
		return Lost{c.anEpoch(), c.aFault()}
	case 11:
		return Closed{c.anEpoch()}
	case 12, 13:
		return Subscribed{c.anEpoch(), Feature(c.n(6))}
	case 14:
		return SubscribeFailed{c.anEpoch(), Feature(c.n(6)), c.aFault()}
	case 15:
		return []Event{CredentialChanged{}, NetworkChanged{}, RouteRequested{c.anOp(), c.n(5) - 1, c.n(3) == 0}}[c.n(3)]
	case 16, 17:
		l := c.n(len(c.last))
		return Submitted{Lane(l), c.last[l] + Seq(c.n(6)), c.n(200) - 50}
	case 18:
		return Withdrawn{Lane(c.n(len(c.last))), Seq(c.n(20))}
	case 19:
		return Acked{c.anEpoch(), Lane(c.n(len(c.last))), Seq(c.n(20))}
	case 20:
		return Requested{c.anOp()}
	case 21:
		return Replied{c.anEpoch(), c.anOp(), []int{-1, 0, 200, 204, 400, 429, 500}[c.n(7)], int64(c.n(9)) - 1, c.n(2) == 0}
	case 22:
		if op := c.anOp(); c.n(2) == 0 {
			return ConnectRequested{op}
		}
		return DisconnectRequested{c.anOp(), c.n(2) == 0}
	case 23:
		return OpCancelled{c.anOp()}
	case 24:
		return MethodCalled{c.anEpoch(), c.aCall(), c.aName()}
	case 25:
		return MessageReceived{c.anEpoch(), c.aCall(), c.aName(), c.n(2) == 0, map[string]string{"to": []string{"one", "two"}[c.n(2)]}}
	case 26:
		return DesiredChanged{c.anEpoch(), int64(c.n(9)) - 1}
	case 27:
		return Responded{c.anEpoch(), c.aCall(), c.n(2) == 0}
	case 28:
		i, s := c.aPlugin()
		return PluginReady{i, s, []string{c.aName(), c.aName()}, c.n(2) == 0, c.n(2) == 0}
	case 29:
		i, s := c.aPlugin()
		return PluginExited{i, s, c.aFault()}
	default:
		i, s := c.aPlugin()
		return Returned{i, s, c.aCall(), Verdict(c.n(4)), c.n(3) == 0}
	}
}

func (c *chaos) feed(ev Event) {
	switch ev := ev.(type) {
	case Submitted:
		c.last[ev.Lane] = max(c.last[ev.Lane], ev.Upto)
	case Requested:
		c.ops[ev.Op]++
	case ConnectRequested:
		c.ops[ev.Op]++
	case DisconnectRequested:
		c.ops[ev.Op]++
	case RouteRequested:
		c.ops[ev.Op]++
	case OpCancelled:
		if c.ops[ev.Op] > 0 {
			c.ops[ev.Op]-- // one of those with this number
		}
	}
	c.log = append(c.log, time.Duration(c.now).String()+" "+ev.String())
	told := false
	for _, e := range slices.Clone(c.m.Step(c.now, ev)) {
		c.log = append(c.log, "  → "+e.String())
		c.check(e)
		switch e.(type) {
		case Finish, GiveUp:
			told = true
		case Announce:
			if told {
				c.failf("a caller is told before the state is: %v", e)
			}
		}
		if c.orders = append(c.orders, e); len(c.orders) > 6 {
			c.orders = c.orders[1:]
		}
	}
	if s := c.log[len(c.log)-1]; strings.ContainsRune(s, '\n') {
		c.failf("%q is not one line", s)
	}
	if c.stopped {
		return
	}
	if at, ok := c.m.Deadline(); ok && at <= c.now {
		c.failf("deadline %v at %v", time.Duration(at), time.Duration(c.now))
	}
	if again := c.m.Step(c.now, Ticked{}); len(again) > 0 {
		c.failf("a second look gives more orders: %v", again)
	}
}

// check holds an order against the numbers that were given out.
func (c *chaos) check(e Effect) {
	isBad := false
	switch e := e.(type) {
	case FetchCredential:
		isBad = e.Epoch != c.epoch+1
		c.epoch = e.Epoch
	case Open:
		isBad = e.Epoch > c.epoch || c.closed[e.Epoch] || e.Route < 0 || e.Route >= c.m.cfg.Routes
	case RememberRoute:
		isBad = e.Route < 0 || e.Route >= c.m.cfg.Routes
	case Connect:
		isBad = e.Epoch > c.epoch || c.closed[e.Epoch]
	case Close:
		isBad = e.Epoch > c.epoch || c.closed[e.Epoch]
		c.closed[e.Epoch] = true
	case Subscribe:
		isBad = c.closed[e.Epoch]
	case Ask:
		isBad = c.closed[e.Epoch]
	case Respond:
		isBad = c.closed[e.Epoch]
	case Acknowledge:
		isBad = c.closed[e.Epoch]
	case Send:
		isBad = c.closed[e.Epoch] || e.From > e.To || e.From <= c.forgot[e.Lane] || e.To > c.last[e.Lane] || e.To-c.forgot[e.Lane] > 4
	case Resolve:
		isBad = e.Upto <= c.told[e.Lane] || e.Upto > c.last[e.Lane]
		c.told[e.Lane] = e.Upto
	case Forget:
		isBad = e.Upto <= c.forgot[e.Lane] || e.Upto > c.last[e.Lane]
		c.forgot[e.Lane] = e.Upto
	case GiveUp:
		isBad = e.From > e.To || e.From <= c.told[e.Lane] || e.To > c.last[e.Lane]
	case Finish:
		isBad = c.ops[e.Op] <= 0
		c.ops[e.Op]--
	case StartPlugin:
		isBad = e.Start != c.starts[e.Plugin]+1
		c.starts[e.Plugin] = e.Start
	case StopPlugin:
		isBad = e.Start != c.starts[e.Plugin]
	case Deliver:
		isBad = e.Start != c.starts[e.Plugin]
	case DeliverDesired:
		isBad = e.Start != c.starts[e.Plugin]
	case Stop:
		c.stopped = true
	}
	if isBad {
		c.failf("%v", e)
	}
}

func (c *chaos) failf(format string, args ...any) {
	c.t.Helper()
	from := max(0, len(c.log)-60)
	c.t.Fatalf(format+"\n%s", append(args, strings.Join(c.log[from:], "\n"))...)
}
