// Package lobby bounds how many connections are open at a time whose owner is not
// known yet.
//
// # Usage
//
//	l = lobby.Listen(l, 512)
//	nc, err := l.Accept()    // waits for a place
//	lobby.Leave(nc)          // its owner is known; tls.Conn may be around it
//
// # Concurrency
//
// Everything is safe for concurrent use.
//
// # Expected behaviour of the other side
//
// None: that is the point. Who has no place waits in the listener's queue, which
// costs this process nothing. That a stranger does not keep its place for ever is
// the fronts' business: they have the time limits.
//
// # Testing
//
// The tests count; package hub proves the bound through its listeners.
package lobby

import (
	"crypto/tls"
	"net"
	"sync"
)

// Listener accepts a connection when there is a place for it.
type Listener struct {
	net.Listener
	places chan struct{}
	closed chan struct{}
	closes sync.Once
}

var _ net.Listener = (*Listener)(nil)

// Listen puts a lobby of so many places in front of a listener.
func Listen(l net.Listener, places int) *Listener {
	return &Listener{Listener: l, places: make(chan struct{}, places), closed: make(chan struct{})}
}

// Accept implements net.Listener. The connection has its place until Leave or
// Close.
func (l *Listener) Accept() (net.Conn, error) {
	select {
	case l.places <- struct{}{}:
	case <-l.closed:
		return nil, net.ErrClosed
	}
	nc, err := l.Listener.Accept()
	if err != nil {
		<-l.places
		return nil, err
	}
	return &conn{nc, sync.OnceFunc(func() { <-l.places })}, nil
}

// Close implements net.Listener. Connections stay open.
func (l *Listener) Close() error {
	l.closes.Do(func() { close(l.closed) })
	return l.Listener.Close()
}

// Strangers is how many places are taken.
func (l *Listener) Strangers() int { return len(l.places) }

// conn is a connection that may have a place.
type conn struct {
	net.Conn
	leave func()
}

// Close implements net.Conn.
func (c *conn) Close() error {
	c.leave()
	return c.Conn.Close()
}

// Leave frees the connection's place; it may have none, or have left.
func Leave(nc net.Conn) {
	if t, ok := nc.(*tls.Conn); ok {
		nc = t.NetConn()
	}
	if c, ok := nc.(*conn); ok {
		c.leave()
	}
}
