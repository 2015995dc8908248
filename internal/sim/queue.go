package sim

import "github.com/fairlead-iot/fairlead/core"

// task is something that will happen. Those of one moment happen in the order in which they were planned.
type task struct {
	at core.Instant
	n  uint64
	do func()
}

func (t task) before(u task) bool { return t.at < u.at || t.at == u.at && t.n < u.n }

// queue is a binary heap of tasks. container/heap would box each of them.
type queue []task

func (q *queue) push(t task) {
	*q = append(*q, t)
	h := *q
	for i := len(h) - 1; i > 0; {
		up := (i - 1) / 2
		if !h[i].before(h[up]) {
			break
		}
		h[i], h[up] = h[up], h[i]
		i = up
	}
}

func (q *queue) pop() task {
	h := *q
	first, last := h[0], len(h)-1
	h[0], h[last] = h[last], task{}
	h = h[:last]
	*q = h
	for i := 0; ; {
		c := 2*i + 1
		if c >= last {
			return first
		}
		if c+1 < last && h[c+1].before(h[c]) {
			c++
		}
		if !h[c].before(h[i]) {
			return first
		}
		h[i], h[c] = h[c], h[i]
		i = c
	}
}
