package uploads

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
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
	p := newPlan(f, testID, size, 4, blockMax, resumed)
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
	p.ended(block{}, nil, 0)
	if p.block != 2*blockMin {
		t.Errorf("after a quick block the next has %d bytes, want %d", p.block, 2*blockMin)
	}
}
