package uploads

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"
)

const testID = "0123456789abcdef"

// planOf makes a plan of a file of zeros.
func planOf(t *testing.T, size int64, resumed bool) *plan {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "f"))
	if err == nil {
		err = f.Truncate(size)
	}
	if err != nil {
		t.Fatal(err)
	}
	p := newPlan(f, testID, size, 4, blockMax, 0, resumed)
	t.Cleanup(p.close)
	return p
}

// TestAGapIsFilledAlone: what follows a gap in the storage's list is not sent again with it.
func TestAGapIsFilledAlone(t *testing.T) {
	const size = 16 << 20
	p := planOf(t, size, true)
	for _, off := range []int64{0, 2 * blockMin, 3 * blockMin, 7 * blockMin} {
		b := block{off: off, size: blockMin}
		if err := p.read(&b, nil); err != nil {
			t.Fatal(err)
		}
		p.found(p.name(b))
	}
	p.heard()
	p.block = p.most // as where the link has been good
	there, sent := int64(0), int64(0)
	for {
		b, isThere, err := p.next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if isThere {
			there += b.size
		} else {
			sent += b.size
		}
	}
	if there != 4*blockMin || sent != size-4*blockMin {
		t.Errorf("%d bytes were taken as there, %d sent, of %d; 4 blocks of %d are there", there, sent, size, blockMin)
	}
}

// TestAResumedUploadBeginsSmall: where lives are short and the link is slow, blocks must be there before the end.
func TestAResumedUploadBeginsSmall(t *testing.T) {
	p := planOf(t, 16<<20, true)
	p.heard()
	if b, _, err := p.next(); err != nil || b.size != blockMin {
		t.Errorf("the first block has %d bytes (%v), want %d", b.size, err, blockMin)
	}
	if n := p.workers(); n != 1 {
		t.Errorf("%d blocks at once, want 1: several would share the link, and none would be there in time", n)
	}
	p.ended(block{}, nil, 0)
	if p.block != 2*blockMin {
		t.Errorf("after a quick block the next has %d bytes, want %d", p.block, 2*blockMin)
	}
}

// TestAPlanLearnsTheLink: after a restart blocks grow before they become more, and those of a slow link shrink again.
func TestAPlanLearnsTheLink(t *testing.T) {
	p := planOf(t, 16<<20, true)
	quick := 0
	for ; p.block < p.most; quick++ {
		if n := p.workers(); n != 1 {
			t.Fatalf("%d blocks of %d at once, want 1 until they are of full size", n, p.block)
		}
		p.ended(block{}, nil, time.Second)
	}
	p.ended(block{}, nil, time.Second)
	if n := p.workers(); quick > 10 || n != 2 {
		t.Errorf("%d quick blocks to full size, then %d at once; want at most 10, and 2", quick, n)
	}
	p.ended(block{}, nil, time.Minute)
	if p.block != p.most/2 || p.workers() != 2 {
		t.Errorf("after a minute for a block, %d of %d at once; want 2 of %d", p.workers(), p.block, p.most/2)
	}
	// # a link so slow that blocks of the least size take long: fewer of them
	p.block = p.least
	p.ended(block{}, nil, time.Minute)
	if p.block != p.least || p.workers() != 1 {
		t.Errorf("%d of %d at once, want 1 of %d", p.workers(), p.block, p.least)
	}
}

// TestALimitOfBandwidthBoundsTheBlocks: one takes two seconds of it, so that what is cut costs little.
func TestALimitOfBandwidthBoundsTheBlocks(t *testing.T) {
	for limit, want := range map[int64]int64{0: blockMax, 1 << 10: blockMin, 256 << 10: 512 << 10, 100 << 20: blockMax} {
		p := newPlan(nil, testID, 16<<20, 4, blockMax, limit, false)
		if p.block != want {
			t.Errorf("at %d bytes/s the first block has %d, want %d", limit, p.block, want)
		}
	}
}
