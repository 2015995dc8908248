package host

import (
	"bufio"
	"context"
	"errors"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/fairlead-iot/fairlead/plugins/internal/wire"
	"github.com/fairlead-iot/fairlead/plugins/pluginv1"
)

// What a plugin may write into the host's log, and observe. Beyond it lines and observations are dropped and counted.
const (
	logRate  = 50 // lines per second
	logBurst = 500
	// tellEvery is how often a plugin's dropped lines are spoken of at most.
	tellEvery = 5 * time.Second
	// lineLimit cuts a line, in bytes.
	lineLimit = 4 << 10
	// readRate is how fast stdout and stderr are read at most, in bytes per second; a plugin that writes faster has to
	// wait.
	readRate  = 1 << 20
	readBurst = 4 << 20
	// metricRate is how many observations per second a plugin may make.
	metricRate, metricBurst = 1000, 10000
	// metricLimit is how long the name and the labels of one may be together, in bytes: each new one is kept.
	metricLimit = 1 << 10
	// lastLines is how many lines of stderr are kept for the error that tells of the plugin's end.
	lastLines = 12
)

// bucket is a token bucket. The zero value is empty.
type bucket struct {
	rate, burst float64
	mu          sync.Mutex
	tokens      float64
	at          time.Time
	denied      int
	told        time.Time // when denied was given out last
}

func newBucket(rate, burst float64) *bucket {
	return &bucket{rate: rate, burst: burst, tokens: burst, at: time.Now()}
}

// take takes n tokens if they are there; denied, given out now and then, is how many takes were refused since it was
// given out last.
func (b *bucket) take(n float64) (ok bool, denied int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.fill()
	if b.tokens < n {
		b.denied++
		return false, 0
	}
	b.tokens -= n
	if b.denied > 0 && b.at.Sub(b.told) > tellEvery {
		denied, b.denied, b.told = b.denied, 0, b.at
	}
	return true, denied
}

// owe takes n tokens in any case and returns how long to wait until they are paid.
func (b *bucket) owe(n float64) time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.fill()
	b.tokens -= n
	if b.tokens >= 0 {
		return 0
	}
	return time.Duration(-b.tokens / b.rate * float64(time.Second))
}

func (b *bucket) fill() {
	now := time.Now()
	b.tokens = min(b.burst, b.tokens+now.Sub(b.at).Seconds()*b.rate)
	b.at = now
}

// lines calls f with each line of r until its end. A line of any length is read; f gets its first lineLimit bytes. It
// reads no faster than readRate.
func lines(r io.Reader, f func(string)) {
	pace := newBucket(readRate, readBurst)
	br := bufio.NewReaderSize(r, lineLimit)
	for {
		line, err := br.ReadSlice('\n')
		n, text := len(line), strings.TrimRight(string(line), "\r\n")
		for errors.Is(err, bufio.ErrBufferFull) {
			if d := pace.owe(float64(n)); d > 0 {
				time.Sleep(d)
			}
			line, err = br.ReadSlice('\n')
			n = len(line)
		}
		if text != "" {
			f(text)
		}
		if err != nil {
			return
		}
		if d := pace.owe(float64(n)); d > 0 {
			time.Sleep(d)
		}
	}
}

// output turns what a plugin writes on stderr (and, against the rules, on stdout) into log records, and remembers the
// last lines.
type output struct {
	log   *slog.Logger
	limit *bucket

	mu    sync.Mutex
	last  []string
	panic bool // a Go stack trace has begun
}

func newOutput(log *slog.Logger) *output {
	return &output{log: log, limit: newBucket(logRate, logBurst)}
}

func (o *output) stderr(line string) {
	level := slog.LevelInfo
	o.mu.Lock()
	if strings.HasPrefix(line, "panic: ") || strings.HasPrefix(line, "fatal error: ") {
		// What came before explains less than how the trace begins.
		o.panic, o.last = true, nil
	}
	if o.panic {
		level = slog.LevelError
	}
	if !o.panic && len(o.last) == lastLines {
		o.last = append(o.last[:0], o.last[1:]...)
	}
	if len(o.last) < lastLines {
		o.last = append(o.last, line)
	}
	o.mu.Unlock()
	o.write(level, line, "stderr")
}

func (o *output) stdout(line string) { o.write(slog.LevelInfo, line, "stdout") }

func (o *output) write(level slog.Level, line, source string) {
	ok, denied := o.limit.take(1)
	if denied > 0 {
		o.log.Warn("plugin output dropped: too much", "lines", denied)
	}
	if ok {
		o.log.Log(context.Background(), level, strings.ToValidUTF8(line, "\uFFFD"), "source", source)
	}
}

// tail returns the last lines of stderr, for an error's text: "" or "; its last words: …".
func (o *output) tail() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.last) == 0 {
		return "; it wrote nothing on stderr"
	}
	return "; its last words: " + strings.ToValidUTF8(strings.Join(o.last, " | "), "\uFFFD")
}

// writeLog writes a plugin's log line, within the rate.
func (s *session) writeLog(l *pluginv1.Log) {
	level := wire.ToLevel(l.GetLevel())
	if !s.log.Enabled(s.ctx, level) {
		return
	}
	ok, denied := s.logs.take(1)
	if denied > 0 {
		s.log.Warn("plugin log lines dropped: too many", "lines", denied)
	}
	if !ok {
		// A pause here is back-pressure on the whole stream.
		time.Sleep(100 * time.Microsecond)
		return
	}
	const maxAttrs = 32
	attrs := make([]slog.Attr, 0, min(len(l.GetAttributes()), maxAttrs))
	for k, v := range l.GetAttributes() {
		if len(attrs) == maxAttrs {
			break
		}
		attrs = append(attrs, slog.String(k, cut(v)))
	}
	slices.SortFunc(attrs, func(a, b slog.Attr) int { return strings.Compare(a.Key, b.Key) })
	s.log.LogAttrs(s.ctx, level, cut(l.GetMessage()), attrs...)
}

func cut(s string) string {
	if len(s) > lineLimit {
		return strings.ToValidUTF8(s[:lineLimit], "") + "…"
	}
	return s
}

// observe hands on a plugin's observation, within the rate.
func (s *session) observe(m *pluginv1.Metric) {
	size, cost := len(m.GetName()), 1.0
	for k, v := range m.GetLabels() {
		size += len(k) + len(v)
	}
	if size > metricLimit {
		cost = metricBurst + 1 // never there
	}
	ok, denied := s.metric.take(cost)
	if denied > 0 {
		s.log.Warn("plugin metrics dropped: too many, or too long", "observations", denied, "bytes_max", metricLimit)
	}
	if !ok {
		time.Sleep(100 * time.Microsecond)
		return
	}
	s.cfg.Metric(Metric{
		Plugin: s.cfg.Name, Name: m.GetName(), Counter: m.GetKind() == pluginv1.Metric_KIND_COUNTER, Value: m.GetValue(), Labels: m.GetLabels(),
	})
}
