package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/raft"

	"hanode/internal/grid"
)

// streamLayer lets raft speak to nodes by name: the address of a server is the
// node's name, so a dead link or a new DHCP lease changes nothing in raft's
// configuration.
//
// A name is not enough to say who is meant: a node whose disk was emptied has the
// name of the server that it was before, and must not answer for it (R12). So each
// connection begins with the ID of the server that is dialled, and any other hangs
// up.
type streamLayer struct {
	name string
	id   string
	l    net.Listener
	dial func(ctx context.Context, node string) (net.Conn, error)
}

func (s *streamLayer) Accept() (net.Conn, error) {
	c, err := s.l.Accept()
	if err != nil {
		return nil, err
	}
	return &accepted{Conn: c, id: s.id}, nil
}
func (s *streamLayer) Close() error   { return s.l.Close() }
func (s *streamLayer) Addr() net.Addr { return nodeAddr(s.name) }

// Dial gets a server's ID, see ServerAddr.
func (s *streamLayer) Dial(to raft.ServerAddress, timeout time.Duration) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout)
	defer cancel()
	id := string(to)
	dot := strings.LastIndexByte(id, '.')
	if dot < 0 || len(id) > 255 {
		return nil, fmt.Errorf("dial %q: not a raft server", id)
	}
	c, err := s.dial(ctx, id[:dot])
	if err != nil {
		return nil, err
	}
	if _, err := c.Write(append([]byte{byte(len(id))}, id...)); err != nil {
		return nil, errors.Join(fmt.Errorf("dial %s: %w", id, err), c.Close())
	}
	return c, nil
}

// ServerAddr makes raft dial servers by ID. It implements
// raft.ServerAddressProvider.
func (s *streamLayer) ServerAddr(id raft.ServerID) (raft.ServerAddress, error) {
	return raft.ServerAddress(id), nil
}

// accepted is a connection that must begin with our ID. Only raft's one reader of
// the connection calls Read.
type accepted struct {
	net.Conn
	id      string
	checked bool
}

func (c *accepted) Read(b []byte) (int, error) {
	if !c.checked {
		head := make([]byte, 1, 256)
		if _, err := io.ReadFull(c.Conn, head); err != nil {
			return 0, err
		}
		want := head[1 : 1+int(head[0])]
		if _, err := io.ReadFull(c.Conn, want); err != nil {
			return 0, err
		}
		if string(want) != c.id {
			return 0, fmt.Errorf("a peer asks for raft server %q, but this is %q: %w", want, c.id, io.EOF)
		}
		c.checked = true
	}
	return c.Conn.Read(b)
}

type nodeAddr string

func (nodeAddr) Network() string  { return "hanode" }
func (a nodeAddr) String() string { return string(a) }

// transport is raft's network transport with a door of our own in its consumer
// channel, for telling this node itself to stand for election.
type transport struct {
	*raft.NetworkTransport
	id, name  string
	hung      func() bool            // a leader that is must fall silent
	reachable func(node string) bool // nil = always
	settled   func(node string) bool // nil = never
	grid      *grid.Grid             // of idle appends
	abstains  atomic.Bool            // asks nobody for votes
	idle      idle
	raft      atomic.Pointer[raft.Raft] // nil until it exists
	ch        chan raft.RPC
	done      chan struct{}
	once      sync.Once
	wg        sync.WaitGroup
}

func newTransport(inner *raft.NetworkTransport, id, name string, hung func() bool, reachable, settled func(string) bool) *transport {
	t := &transport{NetworkTransport: inner, id: id, name: name, hung: hung, reachable: reachable, settled: settled, grid: grid.New(), ch: make(chan raft.RPC), done: make(chan struct{})}
	t.wg.Go(func() {
		for {
			select {
			case rpc := <-inner.Consumer():
				t.anyCandidate(rpc.Command)
				select {
				case t.ch <- rpc:
				case <-t.done:
					return
				}
			case <-t.done:
				return
			}
		}
	})
	return t
}

func (t *transport) Consumer() <-chan raft.RPC { return t.ch }

// anyCandidate has raft judge who asks for a vote by the candidate's log alone, as the
// thesis wants it (Ongaro, 4.1: the configuration of the caller counts, also for votes). Raft here refuses one that its own configuration does not list as a
// voter. But that may be the older one: a voter that was given its vote a moment ago has the
// longest log, and needs the votes of those that have not heard of it; when a third is lost
// then, nobody is ever elected. Whoever was taken out has a shorter log, or asks while a
// leader is known. The servers' identities are checked where a vote is asked for: see
// accepted.
func (t *transport) anyCandidate(command any) {
	switch req := command.(type) {
	case *raft.RequestVoteRequest:
		req.ID = nil // from an older version, as raft takes it, which is not looked up
	case *raft.RequestPreVoteRequest: // looked up in any case
		r := t.raft.Load()
		if r == nil {
			return
		}
		for _, s := range r.GetConfiguration().Configuration().Servers {
			if s.Suffrage == raft.Voter {
				req.ID = []byte(s.ID)
				return
			}
		}
	}
}

// SetHeartbeatHandler takes none: heartbeats go to raft's main goroutine like everything
// else. On the goroutine of a connection, as raft would have it, one that comes while the
// main one writes a new term to a slow disk sets the old term and the old leader after it:
// a leader of term 14 then writes its entries as of term 13, in which another one has led,
// and logs that differ are taken for equal. While a disk hangs a follower's heartbeats wait;
// nothing can be committed with it then in any case.
func (t *transport) SetHeartbeatHandler(func(raft.RPC)) {}

// lookAgain is how often an append to a silent node looks whether it is back, tryAnyway
// how often it is sent unheard.
const (
	lookAgain = 10 * time.Millisecond
	tryAnyway = time.Second
)

// AppendEntries waits for a node that is not heard instead of failing: raft doubles
// its pause after each failure up to ten seconds, so a node that was away for a
// minute would be left behind for that long after its return. The wait ends when
// the node is heard, when the term of the request is over, or with the transport. Now and
// then it is sent all the same: a node that was away may not know yet that its beats are
// for this one, and learns it from this log alone. An append that says nothing new to a
// settled node is not sent, nor is a heartbeat beside appends; see idle.go.
func (t *transport) AppendEntries(id raft.ServerID, to raft.ServerAddress, args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) error {
	if t.settled != nil && t.settled(string(to)) {
		hold := t.rest
		if isHeartbeat(args) {
			hold = t.restHeartbeat
		}
		if done, err := hold(id, args, resp); done {
			return err
		}
	}
	for {
		heard, err := t.await(string(to), args.Term)
		if err != nil {
			return err
		}
		begin := time.Now()
		err = redial(func() error { return t.NetworkTransport.AppendEntries(id, to, args, resp) })
		if err == nil || heard {
			t.idle.note(id, args, resp, err, begin)
			return err
		}
	}
}

// await waits while this node hangs, and until the other one is heard, or for tryAnyway.
func (t *transport) await(to string, term uint64) (heard bool, err error) {
	for end := time.Now().Add(tryAnyway); ; {
		hung, heard := t.hung(), t.reachable == nil || t.reachable(to)
		if !hung && (heard || !time.Now().Before(end)) {
			return heard, nil
		}
		select {
		case <-t.done:
			return false, raft.ErrTransportShutdown
		case <-time.After(lookAgain):
		}
		if r := t.raft.Load(); r != nil && r.CurrentTerm() > term {
			return false, fmt.Errorf("append to %s: term %d is over", to, term)
		}
	}
}

// rest holds an append back that would tell a settled follower nothing new; done: it
// need not be sent any more.
func (t *transport) rest(id raft.ServerID, args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) (done bool, err error) {
	moved := t.idle.next() // before looking whether something has moved already
	known, rest, ok := t.idle.answer(id, args, time.Now())
	r := t.raft.Load()
	if !ok || r == nil {
		return false, nil
	}
	if r.CurrentTerm() == args.Term && r.LastIndex() == args.PrevLogEntry && r.CommitIndex() == args.LeaderCommitIndex {
		timer := time.NewTimer(min(rest, t.grid.Until(idleEvery)))
		defer timer.Stop()
		select {
		case <-timer.C:
			return false, nil
		case <-t.done:
			return true, raft.ErrTransportShutdown
		case <-moved:
		}
	}
	*resp = known
	return true, nil
}

// restHeartbeat holds a heartbeat back for as long as appends are acknowledged; done: one
// was meanwhile, so that it need not be sent any more.
func (t *transport) restHeartbeat(id raft.ServerID, args *raft.AppendEntriesRequest, resp *raft.AppendEntriesResponse) (done bool, err error) {
	_, rest, ok := t.idle.beats(id, args, time.Now())
	if !ok {
		return false, nil
	}
	timer := time.NewTimer(rest)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-t.done:
		return true, raft.ErrTransportShutdown
	}
	known, _, ok := t.idle.beats(id, args, time.Now())
	if ok {
		*resp = known
	}
	return ok, nil
}

// maxPool is how many idle connections raft keeps to each server.
const maxPool = 3

// redial makes a call again if it failed at once, once for each idle connection that
// raft may have kept to the server and that was closed meanwhile: a link fell silent
// and its streams moved away, or the server was restarted. Raft itself would take a
// vote that could not be asked for as one not given, and waits for the next election.
// The calls may come twice: votes and entries are told by their term and index.
func redial(call func() error) error {
	for try := 0; ; try++ {
		begin := time.Now()
		err := call()
		if err == nil || try == maxPool || time.Since(begin) > rpcTimeout/10 {
			return err
		}
	}
}

// errAbstains is the answer to a vote that is not asked for.
var errAbstains = errors.New("another node leads: not asking for votes")

// RequestVote asks again over a fresh connection; see redial.
func (t *transport) RequestVote(id raft.ServerID, to raft.ServerAddress, args *raft.RequestVoteRequest, resp *raft.RequestVoteResponse) error {
	if t.abstains.Load() {
		return errAbstains
	}
	return redial(func() error { return t.NetworkTransport.RequestVote(id, to, args, resp) })
}

// RequestPreVote asks again over a fresh connection; see redial.
func (t *transport) RequestPreVote(id raft.ServerID, to raft.ServerAddress, args *raft.RequestPreVoteRequest, resp *raft.RequestPreVoteResponse) error {
	if t.abstains.Load() {
		return errAbstains
	}
	return redial(func() error { return t.NetworkTransport.RequestPreVote(id, to, args, resp) })
}

// TimeoutNow asks again over a fresh connection; see redial.
func (t *transport) TimeoutNow(id raft.ServerID, to raft.ServerAddress, args *raft.TimeoutNowRequest, resp *raft.TimeoutNowResponse) error {
	return redial(func() error { return t.NetworkTransport.TimeoutNow(id, to, args, resp) })
}

// EncodePeer renders a node's name, as raft's configuration has it, and not the
// server's ID that is dialled.
func (t *transport) EncodePeer(_ raft.ServerID, name raft.ServerAddress) []byte { return []byte(name) }

func (t *transport) header() raft.RPCHeader {
	return raft.RPCHeader{ProtocolVersion: raft.ProtocolVersionMax, ID: []byte(t.id), Addr: []byte(t.name)}
}

// injectTimeoutNow puts a TimeoutNow into raft's own queue, as if the leader had
// sent it.
func (t *transport) injectTimeoutNow() { t.inject(&raft.TimeoutNowRequest{RPCHeader: t.header()}) }

// injectTerm has raft learn of a newer term, as if a candidate with an empty log had
// asked for a vote in it, which nobody with any log grants. It is heard in spite of a
// leader: a candidate may take one for it that it hears of an older term.
func (t *transport) injectTerm(term uint64) {
	t.inject(&raft.RequestVoteRequest{RPCHeader: t.header(), Term: term, LeadershipTransfer: true})
}

func (t *transport) inject(command any) {
	rpc := raft.RPC{Command: command, RespChan: make(chan raft.RPCResponse, 1)}
	select {
	case t.ch <- rpc:
	case <-t.done:
	case <-time.After(rpcTimeout): // raft's main loop is stuck; its own timers will do
	}
}

// wake ends every wait of AppendEntries, so that raft can shut down.
func (t *transport) wake() { t.once.Do(func() { close(t.done) }) }

func (t *transport) stop() {
	t.wake()
	_ = t.Close()
	t.wg.Wait()
}
