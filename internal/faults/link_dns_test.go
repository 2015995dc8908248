//go:build faults && linux

package faults

import (
	"net"
	"net/netip"
	"sync"

	"golang.org/x/net/dns/dnsmessage"
)

// dnsServer answers every question for an IPv4 address with one address, any other with nothing, and at times nobody.
type dnsServer struct {
	conn net.PacketConn
	done sync.WaitGroup

	mu     sync.Mutex
	addr   netip.Addr
	silent bool
}

func serveDNS(conn net.PacketConn) *dnsServer {
	s := &dnsServer{conn: conn}
	s.done.Go(s.serve)
	return s
}

// point changes the address of every name.
func (s *dnsServer) point(addr string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.addr = netip.MustParseAddr(addr)
}

// silence says whether questions are answered.
func (s *dnsServer) silence(yes bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.silent = yes
}

func (s *dnsServer) close() {
	_ = s.conn.Close()
	s.done.Wait()
}

func (s *dnsServer) serve() {
	question := make([]byte, 1500)
	for {
		n, from, err := s.conn.ReadFrom(question)
		if err != nil {
			return
		}
		if answer := s.answer(question[:n]); answer != nil {
			_, _ = s.conn.WriteTo(answer, from) // who asks asks again
		}
	}
}

func (s *dnsServer) answer(question []byte) []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	var m dnsmessage.Message
	if s.silent || m.Unpack(question) != nil || len(m.Questions) != 1 {
		return nil
	}
	m.Response, m.RecursionAvailable, m.Additionals = true, true, nil
	if q := m.Questions[0]; q.Type == dnsmessage.TypeA {
		m.Answers = []dnsmessage.Resource{{
			Header: dnsmessage.ResourceHeader{Name: q.Name, Class: q.Class, TTL: 30},
			Body:   &dnsmessage.AResource{A: s.addr.As4()},
		}}
	}
	out, err := m.Pack()
	if err != nil {
		return nil
	}
	return out
}
