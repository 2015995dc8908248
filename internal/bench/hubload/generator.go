package hubload

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"time"
)

// Client is who a connection says it is.
type Client struct{ ID, User, Password string }

// Target is a server of MQTT 3.1.1 over TLS, known as localhost.
type Target struct{ Address, CAFile string }

// Job is a run of telemetry.
type Job struct {
	Messages int // of each connection
	Size     int // bytes of a payload
	Window   int // messages without PUBACK, of each connection
	Batch    int // messages of a write: the generator waits until so many may leave
}

// dialAtOnce is how many handshakes run at a time: more would only wait for each other.
const dialAtOnce = 8

// patience is how long a server may take for a step.
const patience = 2 * time.Minute

// Generator sends telemetry over a number of connections, as cheaply as it can: packets are made once, a write carries a
// batch, and of each PUBACK only type and number are looked at. It belongs to one goroutine.
type Generator struct{ links []*link }

// Open connects each client and waits for its CONNACK. Close the generator in any case.
func (g *Generator) Open(target Target, clients []Client) error {
	pem, err := os.ReadFile(target.CAFile)
	if err != nil {
		return fmt.Errorf("read CA: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return fmt.Errorf("%s holds no certificate", target.CAFile)
	}
	config := &tls.Config{RootCAs: roots, ServerName: "localhost", MinVersion: tls.VersionTLS13}
	links, errs := make([]*link, len(clients)), make([]error, len(clients))
	atOnce := make(chan struct{}, dialAtOnce)
	var wg sync.WaitGroup
	for i, c := range clients {
		atOnce <- struct{}{}
		wg.Go(func() {
			links[i], errs[i] = dial(target.Address, config, c)
			<-atOnce
		})
	}
	wg.Wait()
	for _, l := range links {
		if l != nil {
			g.links = append(g.links, l)
		}
	}
	return errors.Join(errs...)
}

// Close closes every connection.
func (g *Generator) Close() {
	for _, l := range g.links {
		_ = l.nc.Close() // nothing is under way
	}
	g.links = nil
}

// Run carries out a job on every connection at once and returns how long it took, from the first write to the last PUBACK.
func (g *Generator) Run(j Job) (time.Duration, error) {
	if j.Window < 1 || j.Window > 0xffff || j.Batch < 1 || j.Batch > j.Window || j.Messages%j.Batch != 0 {
		return 0, fmt.Errorf("no job: %+v; a batch fits into the window, and messages are a multiple of it", j)
	}
	for _, l := range g.links {
		l.prepare(j)
	}
	errs := make([]error, 2*len(g.links))
	var wg sync.WaitGroup
	began := time.Now()
	for i, l := range g.links {
		wg.Go(func() { errs[2*i] = l.write(j) })
		wg.Go(func() { errs[2*i+1] = l.read(j) })
	}
	wg.Wait()
	return time.Since(began), errors.Join(errs...)
}

// link is one connection.
type link struct {
	id string
	nc net.Conn
	// packets are PUBLISH packets with the numbers from 1, a whole number of batches.
	packets []byte
	ring    int // packets in packets
	length  int // of each
	credit  chan int
	buf     []byte
}

func dial(address string, config *tls.Config, c Client) (*link, error) {
	nc, err := tls.DialWithDialer(&net.Dialer{Timeout: patience}, "tcp", address, config) //nolint:noctx // it has a time
	if err != nil {
		return nil, fmt.Errorf("connect %s: %w", c.ID, err)
	}
	l := &link{id: c.ID, nc: nc}
	if err := l.connect(c); err != nil {
		return nil, errors.Join(fmt.Errorf("connect %s: %w", c.ID, err), l.nc.Close())
	}
	return l, nil
}

func (l *link) connect(c Client) error {
	if err := l.nc.SetDeadline(time.Now().Add(patience)); err != nil {
		return err
	}
	body := append(text(nil, "MQTT"), 4, 0xc2, 0, 0) // clean, with user name and password, without keep-alive
	body = text(text(text(body, c.ID), c.User), c.Password)
	if _, err := l.nc.Write(append(header(0x10, len(body)), body...)); err != nil {
		return err
	}
	var answer [4]byte
	if _, err := io.ReadFull(l.nc, answer[:]); err != nil {
		return err
	}
	if answer != [4]byte{0x20, 2, 0, 0} {
		return fmt.Errorf("CONNECT was answered with %x", answer)
	}
	return nil
}

// prepare makes the packets. Their numbers run through a ring that is as long as a window at least: one that comes again
// has been acknowledged.
func (l *link) prepare(j Job) {
	l.ring = (j.Window + j.Batch - 1) / j.Batch * j.Batch
	body := text(nil, "devices/"+l.id+"/messages/events/")
	at := len(body)
	body = append(body, 0, 0)
	body = append(body, strings.Repeat("x", j.Size)...)
	head := header(0x32, len(body))
	l.length = len(head) + len(body)
	l.packets = slices.Grow(l.packets[:0], l.ring*l.length)
	for n := range l.ring {
		binary.BigEndian.PutUint16(body[at:], uint16(n+1))
		l.packets = append(append(l.packets, head...), body...)
	}
	l.credit = make(chan int, j.Window)
	if l.buf == nil {
		l.buf = make([]byte, 16<<10)
	}
}

func (l *link) write(j Job) error {
	free, next := j.Window, 0
	for sent := 0; sent < j.Messages; sent += j.Batch {
		for free < j.Batch {
			n, ok := <-l.credit
			if !ok {
				return nil // the reader says why
			}
			free += n
		}
		if _, err := l.nc.Write(l.packets[next*l.length : (next+j.Batch)*l.length]); err != nil {
			return fmt.Errorf("%s: write: %w", l.id, err)
		}
		free -= j.Batch
		next = (next + j.Batch) % l.ring
	}
	return nil
}

func (l *link) read(j Job) error {
	defer close(l.credit)
	// One deadline for all: a server that stops answering ends the run.
	if err := l.nc.SetDeadline(time.Now().Add(patience)); err != nil {
		return fmt.Errorf("%s: %w", l.id, err)
	}
	part, number := 0, 0
	for acked := 0; acked < j.Messages; {
		n, err := l.nc.Read(l.buf[part:])
		if err != nil {
			return fmt.Errorf("%s: read after %d PUBACKs: %w", l.id, acked, err)
		}
		n += part
		whole := n / 4
		for i := range whole {
			p := l.buf[4*i : 4*i+4]
			if number++; number > l.ring {
				number = 1
			}
			if p[0] != 0x40 || p[1] != 2 || int(binary.BigEndian.Uint16(p[2:])) != number {
				return fmt.Errorf("%s: %x came, and PUBACK %d is due", l.id, p, number)
			}
		}
		if acked += whole; acked > j.Messages {
			return fmt.Errorf("%s: %d PUBACKs for %d messages", l.id, acked, j.Messages)
		}
		part = copy(l.buf, l.buf[4*whole:n])
		if whole > 0 {
			l.credit <- whole
		}
	}
	return nil
}

// text appends a string with its length in front, MQTT 3.1.1 section 1.5.3.
func text(dst []byte, s string) []byte {
	return append(binary.BigEndian.AppendUint16(dst, uint16(len(s))), s...)
}

// header makes a fixed header, MQTT 3.1.1 section 2.2.
func header(first byte, length int) []byte {
	h := []byte{first}
	for ; length > 0x7f; length >>= 7 {
		h = append(h, byte(length)|0x80)
	}
	return append(h, byte(length))
}
