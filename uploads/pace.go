package uploads

import (
	"fmt"
	"log/slog"
	"time"

	"github.com/fairlead-iot/fairlead/core"
)

const (
	// samples is how many looks the pace is computed from; sampleEvery the least time between two.
	samples     = 16
	sampleEvery = time.Second
	// firstLook is how long an attempt must have sent before its pace is told.
	firstLook = time.Second
	// progressEvery is how often the progress within blocks is announced at most.
	progressEvery = 200 * time.Millisecond
	// A line of progress comes after lineEvery, or after lineStep percent and lineLeast.
	lineEvery = 10 * time.Second
	lineLeast = time.Second
	lineStep  = 10
	// unwritten is what may have been read of a block and still lie in front of the network: transports/http gathers so
	// much before a write.
	unwritten = 64 << 10
	// longest bounds what is foretold, so that it can be written as a time.
	longest = 1000 * 24 * time.Hour
)

// pace is how far an upload is, and how quickly it goes on. It is guarded by q.mu.
type pace struct {
	sent      int64 // bytes that the storage has confirmed, in whichever life
	confirmed int64 // those of them that the present attempt has sent
	underWay  int64 // what was written of blocks that are not confirmed
	taken     int64 // what the present attempt has taken from the file for the network
	samples   []sample
	announced time.Time
	line      time.Time // when the last line of progress was told, or the upload began
	percent   int64     // what it said
}

type sample struct {
	at    time.Time
	taken int64
}

// done is how much of the file is there, or on its way.
func (p *pace) done() int64 { return p.sent + p.underWay }

// begin begins an attempt.
func (p *pace) begin(now time.Time) {
	p.confirmed, p.underWay, p.taken, p.samples = 0, 0, 0, p.samples[:0]
	if p.line.IsZero() {
		p.line = now
	}
}

// restart forgets what was sent: the storage has.
func (p *pace) restart() { *p = pace{line: p.line} }

// look takes a sample, if it is time for one. The first is of when the buffers are full: filling them takes no time.
func (p *pace) look(now time.Time) {
	if n := len(p.samples); n > 0 && now.Sub(p.samples[n-1].at) < sampleEvery {
		return
	}
	if len(p.samples) == samples {
		p.samples = append(p.samples[:0], p.samples[1:]...)
	}
	p.samples = append(p.samples, sample{now, p.taken})
}

// rate is the recent pace in bytes per second, 0 where it is not known.
func (p *pace) rate(now time.Time) float64 {
	if len(p.samples) == 0 {
		return 0
	}
	first := p.samples[0]
	d := now.Sub(first.at)
	if d < firstLook {
		return 0
	}
	return float64(p.taken-first.taken) / d.Seconds()
}

// left is how long the rest takes at a rate, 0 where that is not known.
func (p *pace) left(size int64, rate float64) time.Duration {
	if rate <= 0 {
		return 0
	}
	return time.Duration(min(float64(size-p.done())/rate, longest.Seconds()) * float64(time.Second))
}

// isLine reports whether a line of progress is to be told now.
func (p *pace) isLine(now time.Time, size int64) bool {
	percent := 100 * p.done() / max(size, 1)
	since := now.Sub(p.line)
	if percent == p.percent || since < lineEvery && (since < lineLeast || percent < p.percent+lineStep) {
		return false
	}
	p.line, p.percent = now, percent
	return true
}

// found notes bytes that the storage has of an earlier life.
func (j *job) found(n int64) {
	j.set(func() { j.pace.sent += n })
}

// took notes up to where a block was read for the network. Who reads on has written what came before, apart from what
// is gathered.
func (j *job) took(b *body, upTo int64) {
	j.progress(func(now time.Time) {
		if b.isOver {
			return
		}
		j.pace.taken += max(0, upTo-b.taken)
		b.taken = max(upTo, b.taken)
		written := b.taken - unwritten
		if written <= b.told {
			return
		}
		j.pace.underWay += written - b.told
		b.told = written
		j.pace.look(now)
		if now.Sub(j.pace.announced) >= progressEvery {
			j.pace.announced = now
			j.q.tellLocked()
		}
	})
}

// over notes that a block is not on its way any more, and whether the storage has it.
func (j *job) over(b *body, isThere bool) {
	j.progress(func(now time.Time) {
		j.pace.underWay -= b.told
		b.isOver = true
		if isThere {
			j.pace.sent += b.Size()
			j.pace.confirmed += b.Size()
			j.pace.taken += b.Size() - b.taken
			j.pace.look(now)
		}
		j.q.tellLocked()
	})
}

// progress changes the pace, and tells a line if it is time for one.
func (j *job) progress(change func(now time.Time)) {
	j.q.mu.Lock()
	now := time.Now()
	change(now)
	var attrs []any
	if j.rec.State == core.UploadRunning && j.pace.isLine(now, j.rec.Size) {
		attrs = append(attrs, "percent", j.pace.percent)
		if rate := j.pace.rate(now); rate > 0 {
			attrs = append(attrs, "rate", fmt.Sprintf("%.1fKiB/s", rate/1024), "left", j.pace.left(j.rec.Size, rate).Round(time.Second).String())
		}
	}
	j.q.mu.Unlock()
	if attrs != nil {
		j.say(slog.LevelDebug, "progress", attrs...)
	}
}
