package uploads

import (
	"cmp"
	"crypto/md5" //nolint:gosec // it is what the storage keeps of a blob
	"encoding/base64"
	"errors"
	"fmt"
	"hash"
	"hash/crc64"
	"io"
	"maps"
	"os"
	"slices"
	"sync"
	"time"
)

const (
	// blockMax is what a good link is given unless Config.MaxBlock says otherwise; blockMin what a bad one is given. A
	// block that breaks off is sent again from its beginning. blockMost is what older versions of the service take.
	blockMax  = 4 << 20
	blockMin  = 16 << 10
	blockMost = 100 << 20
	// maxBlocks is how many a blob may have: 50,000, with some room for those that were cut smaller.
	// https://learn.microsoft.com/rest/api/storageservices/understanding-block-blobs--append-blobs--and-page-blobs
	maxBlocks = 45_000
	// quickBlock: after one that took no longer the blocks grow. It is also what a block may take of a limit of bandwidth, and
	// what takes slowBlock is too much for the link.
	quickBlock = 2 * time.Second
	slowBlock  = 4 * quickBlock
)

// crcTable is of the polynomial that the storage uses.
// https://learn.microsoft.com/rest/api/storageservices/put-block
var crcTable = crc64.MakeTable(0x9A6C9329AC4BC9B5)

// block is a part of the file.
type block struct {
	off, size int64
	crc       uint64
}

// plan cuts a file into blocks, and knows which of them the storage has. Several goroutines use it.
type plan struct {
	file *os.File
	id   string // of the upload
	size int64
	// least and most are the bounds of a block's size: the limits above, or more for a very large file.
	least, most int64
	// listed: the storage has been asked what it has; there is what it said, by offset.
	listed bool
	there  map[int64][]block
	starts []int64 // the keys of there, from pos on

	mu     sync.Mutex
	pos    int64 // read up to here
	whole  hash.Hash
	buffer []byte
	redo   []block
	done   []block
	block  int64 // the present size
	width  int   // how many are sent at once now
	widest int
}

// newPlan takes f over. bandwidth is the limit, or 0.
func newPlan(f *os.File, id string, size int64, widest int, maxBlock, bandwidth int64, resumed bool) *plan {
	least := int64(blockMin)
	if n := (size + maxBlocks - 1) / maxBlocks; n > least {
		least = (n + blockMin - 1) / blockMin * blockMin
	}
	most := max(least, maxBlock)
	if perBlock := bandwidth * int64(quickBlock/time.Second); bandwidth > 0 {
		most = max(least, min(most, perBlock))
	}
	first, width := most, widest
	if resumed {
		// The life before was cut short. Where that happens again and again, on a slow link, large blocks would never be there,
		// and neither would those that share the link with others.
		first, width = least, 1
	}
	return &plan{
		file: f, id: id, size: size, least: least, most: most, block: first, listed: !resumed, there: map[int64][]block{},
		whole: md5.New(), buffer: make([]byte, readSize), width: width, widest: widest, //nolint:gosec // see the import
	}
}

func (p *plan) close() { _ = p.file.Close() }

// restart forgets what was done.
func (p *plan) restart() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.pos, p.redo, p.done, p.listed, p.there, p.starts = 0, nil, nil, false, map[int64][]block{}, nil
	p.whole.Reset()
}

// name is a block's name: all of one length, as the storage demands, and each for one content of one upload.
func (p *plan) name(b block) string {
	return blockName(fmt.Sprintf("%s%012x%08x%016x", p.id, b.off, b.size, b.crc))
}

// found notes a block that the storage has.
func (p *plan) found(name string) {
	raw, err := base64.StdEncoding.DecodeString(name)
	if err != nil || len(raw) != len(p.id)+36 || string(raw[:len(p.id)]) != p.id {
		return // another upload's
	}
	var b block
	if _, err := fmt.Sscanf(string(raw[len(p.id):]), "%12x%8x%16x", &b.off, &b.size, &b.crc); err != nil {
		return
	}
	if b.size <= 0 || b.size > blockMost || b.off+b.size > p.size { // it may have been sent under another limit
		return
	}
	p.there[b.off] = append(p.there[b.off], b)
}

// heard notes that all was found that is there.
func (p *plan) heard() {
	p.listed, p.starts = true, slices.Sorted(maps.Keys(p.there))
}

// next returns the next block to send; or one that the storage has, with isThere; or io.EOF.
func (p *plan) next() (b block, isThere bool, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if n := len(p.redo); n > 0 {
		b = p.redo[n-1]
		p.redo = p.redo[:n-1]
		if b.size <= p.block {
			return b, false, nil
		}
		// The link is worse than it was: in smaller pieces.
		head := block{off: b.off, size: p.block}
		tail := block{off: b.off + p.block, size: b.size - p.block}
		for _, piece := range []*block{&head, &tail} {
			if err := p.read(piece, nil); err != nil {
				return b, false, err
			}
		}
		p.redo = append(p.redo, tail)
		return head, false, nil
	}
	if p.pos == p.size {
		return b, false, io.EOF
	}
	b = block{off: p.pos, size: min(p.block, p.size-p.pos)}
	known := p.there[p.pos]
	if len(known) > 0 {
		b.size = slices.MaxFunc(known, func(a, b block) int { return cmp.Compare(a.size, b.size) }).size
	} else if next := p.nextKnown(); next > p.pos {
		b.size = min(b.size, next-p.pos) // a gap; what follows is there
	}
	if err := p.read(&b, p.whole); err != nil {
		return b, false, err
	}
	p.pos += b.size
	if slices.Contains(known, b) {
		p.done = append(p.done, b)
		return b, true, nil
	}
	return b, false, nil
}

// nextKnown returns where the next block begins that the storage has, from the present position on; 0 for none.
func (p *plan) nextKnown() int64 {
	for len(p.starts) > 0 && p.starts[0] < p.pos {
		p.starts = p.starts[1:]
	}
	if len(p.starts) == 0 {
		return 0
	}
	return p.starts[0]
}

// read computes a block's checksum, and has sum, if any, see the bytes.
func (p *plan) read(b *block, sum io.Writer) error {
	b.crc = 0
	for at := int64(0); at < b.size; {
		part := p.buffer[:min(int64(len(p.buffer)), b.size-at)]
		if err := readAll(p.file, part, b.off+at); err != nil {
			return err
		}
		b.crc = crc64.Update(b.crc, crcTable, part)
		if sum != nil {
			_, _ = sum.Write(part) // a hash never fails
		}
		at += int64(len(part))
	}
	return nil
}

// unchanged reads a block once more. The error says that the file has another content by now, or cannot be read.
func (p *plan) unchanged(b block) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := b
	if err := p.read(&now, nil); err != nil {
		return err
	}
	if now.crc != b.crc {
		return &giveUpError{reason: fmt.Sprintf("the file was changed meanwhile: the content from byte %d on is another; upload it again when nobody writes to it", b.off)}
	}
	return nil
}

// again puts a block back that was not sent.
func (p *plan) again(b block) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.redo = append(p.redo, b)
}

// ended notes what became of a block. After an obstacle of the network further blocks are smaller and fewer at once. As
// long as all goes well they become larger, and where that is the limit, or the link's pace is, more at once: in this
// order, so that on a slow link the first blocks are there soon.
func (p *plan) ended(b block, err error, took time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err == nil {
		p.done = append(p.done, b)
		switch {
		case took > slowBlock && p.block > p.least:
			p.block = max(p.block/2/blockMin*blockMin, p.least)
		case took > slowBlock:
			p.width = max(1, p.width/2)
		case took <= quickBlock && p.block < p.most:
			p.block = min(p.block*2, p.most)
		default:
			p.width = min(p.width+1, p.widest)
		}
		return
	}
	p.redo = append(p.redo, b)
	if e := asError(err); e.Status == 0 && !isGiveUp(err) {
		p.block = max(p.block/2/blockMin*blockMin, p.least)
		p.width = max(1, p.width/2)
	}
}

func isGiveUp(err error) bool {
	_, ok := errors.AsType[*giveUpError](err)
	return ok
}

func (p *plan) workers() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.width
}

// names returns the names of all blocks, in order.
func (p *plan) names() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	slices.SortFunc(p.done, func(a, b block) int { return cmp.Compare(a.off, b.off) })
	names := make([]string, len(p.done))
	for i, b := range p.done {
		names[i] = p.name(b)
	}
	return names
}

// sum returns the MD5 of the whole file.
func (p *plan) sum() []byte {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.whole.Sum(nil)
}
