package msglog

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"time"
)

// Record is one device-to-cloud message as it came, with what the hub stamps.
// When it was read, the byte slices alias a buffer of the reader.
type Record struct {
	Seq      int64 // set by Append, from 1, without gaps
	Time     time.Time
	Flags    Flags
	Device   string
	Module   string
	AuthGen  string // generation id of the identity
	AuthInfo string // the text of iothub-connection-auth-method
	Model    string // model id that the device gave when it connected
	Bag      []byte // property bag, still encoded
	Body     []byte
}

// Flags say where a record came from.
type Flags byte

// The flags.
const (
	Retained Flags = 1 << iota // PUBLISH with RETAIN
	WillSent                   // a will of a connection that ended badly
	// Not telemetry, but the hub's own: a twin that changed, an identity that was
	// created or deleted, one that connected or disconnected.
	TwinChange
	Lifecycle
	ConnectionState
)

// errCorrupt is a record that does not match its checksum, or is cut short.
var errCorrupt = errors.New("msglog: corrupt record")

var table = crc32.MakeTable(crc32.Castagnoli)

// A record on disk: length of the rest (4 bytes, little endian), CRC-32C of the
// rest after the checksum (4 bytes), then the fields; strings and byte fields
// with a uvarint length in front.
const recordHeader = 8

// maxRecord bounds what a reader believes of a length: a message of 256 KiB, its
// topic, and some.
const maxRecord = 512 << 10

func appendRecord(dst []byte, r *Record) []byte {
	start := len(dst)
	dst = append(dst, 0, 0, 0, 0, 0, 0, 0, 0)
	dst = binary.AppendVarint(dst, r.Seq)
	dst = binary.AppendVarint(dst, r.Time.UnixNano())
	dst = append(dst, byte(r.Flags))
	dst = appendField(dst, r.Device)
	dst = appendField(dst, r.Module)
	dst = appendField(dst, r.AuthGen)
	dst = appendField(dst, r.AuthInfo)
	dst = appendField(dst, r.Model)
	dst = appendField(dst, r.Bag)
	dst = append(dst, r.Body...)
	body := dst[start+recordHeader:]
	binary.LittleEndian.PutUint32(dst[start:], uint32(len(body))) //nolint:gosec // below maxRecord
	binary.LittleEndian.PutUint32(dst[start+4:], crc32.Checksum(body, table))
	return dst
}

func appendField[T string | []byte](dst []byte, v T) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(v)))
	return append(dst, v...)
}

// parseRecord reads the first record of b and returns its length; 0 when b does
// not hold all of it.
func parseRecord(b []byte) (Record, int, error) {
	if len(b) < recordHeader {
		return Record{}, 0, nil
	}
	length := binary.LittleEndian.Uint32(b)
	if length > maxRecord {
		return Record{}, 0, fmt.Errorf("%w: length %d", errCorrupt, length)
	}
	total := recordHeader + int(length)
	if len(b) < total {
		return Record{}, 0, nil
	}
	body := b[recordHeader:total]
	if crc32.Checksum(body, table) != binary.LittleEndian.Uint32(b[4:]) {
		return Record{}, 0, fmt.Errorf("%w: checksum", errCorrupt)
	}
	var r Record
	d := fields{b: body}
	r.Seq = d.varint()
	r.Time = time.Unix(0, d.varint())
	if flags := d.take(1); len(flags) == 1 {
		r.Flags = Flags(flags[0])
	}
	r.Device, r.Module = string(d.field()), string(d.field())
	r.AuthGen, r.AuthInfo, r.Model = string(d.field()), string(d.field()), string(d.field())
	r.Bag = d.field()
	r.Body = d.b
	if d.bad {
		return Record{}, 0, fmt.Errorf("%w: fields", errCorrupt)
	}
	return r, total, nil
}

// fields takes fields off the front of b; bad says that one was missing.
type fields struct {
	b   []byte
	bad bool
}

func (f *fields) varint() int64 {
	v, n := binary.Varint(f.b)
	if n <= 0 {
		f.bad = true
		return 0
	}
	f.b = f.b[n:]
	return v
}

func (f *fields) field() []byte {
	n, used := binary.Uvarint(f.b)
	if used <= 0 || n > uint64(len(f.b)-used) {
		f.bad = true
		return nil
	}
	f.b = f.b[used:]
	return f.take(int(n)) //nolint:gosec // compared above
}

func (f *fields) take(n int) []byte {
	if n > len(f.b) {
		f.bad = true
		return nil
	}
	v := f.b[:n:n]
	f.b = f.b[n:]
	return v
}
