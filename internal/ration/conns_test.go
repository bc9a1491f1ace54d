package ration_test

import (
	"io"
	"net"
	"testing"

	"hanode/internal/ration"
)

// from is a connection whose other end has an address.
type from struct {
	net.Conn
	at net.Addr
}

func (f from) RemoteAddr() net.Addr { return f.at }

func TestConns(t *testing.T) {
	l := ration.Conns{Most: 5, MostOf: 2, Bytes: 10}
	open := func(host int) (net.Conn, net.Conn, bool) {
		a, b := net.Pipe()
		t.Cleanup(func() { _, _ = a.Close(), b.Close() })
		c, ok := l.Admit(from{a, &net.TCPAddr{IP: net.IPv4(10, 0, 0, byte(host)), Port: 1000 + host}})
		return c, b, ok
	}
	first, other, ok := open(1)
	if !ok {
		t.Fatal("the first one was refused")
	}
	if _, _, ok := open(1); !ok {
		t.Error("the second of one host was refused")
	}
	if _, b, ok := open(1); ok {
		t.Error("the third of one host was let in")
	} else if _, err := b.Read(make([]byte, 1)); err == nil {
		t.Error("it was not closed")
	}
	for host := 2; host < 5; host++ {
		if _, _, ok := open(host); !ok {
			t.Errorf("host %d was refused", host)
		}
	}
	if _, _, ok := open(9); ok {
		t.Error("more than Most were let in")
	}
	go func() { _, _ = other.Write(make([]byte, 100)) }()
	if n, err := io.Copy(io.Discard, first); n != 10 || err == nil {
		t.Errorf("%d bytes were read, %v", n, err)
	}
	_, _ = first.Close(), first.Close() // counts once
	if _, _, ok := open(9); !ok {
		t.Error("a place that is free again was not given")
	}
	if _, _, ok := open(8); ok {
		t.Error("one that was closed twice made two places")
	}
}
