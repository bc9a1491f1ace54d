package cluster

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/hashicorp/raft"
)

func TestIdleAnswers(t *testing.T) {
	now := time.Now()
	base := raft.AppendEntriesRequest{Term: 3, RPCHeader: raft.RPCHeader{Addr: []byte("a")}, PrevLogEntry: 9, PrevLogTerm: 2, LeaderCommitIndex: 9}
	with := func(change func(r *raft.AppendEntriesRequest)) *raft.AppendEntriesRequest {
		r := base
		change(&r)
		return &r
	}
	same := func(*raft.AppendEntriesRequest) {}
	for _, tt := range []struct {
		name  string
		req   *raft.AppendEntriesRequest
		after time.Duration
		do    func(i *idle)
		want  bool
	}{
		{"the same again", with(same), 20 * time.Millisecond, nil, true},
		{"too long ago", with(same), idleEvery, nil, false},
		{"a newer commit", with(func(r *raft.AppendEntriesRequest) { r.LeaderCommitIndex = 10 }), 0, nil, false},
		{"an entry", with(func(r *raft.AppendEntriesRequest) { r.Entries = []*raft.Log{{Index: 10}} }), 0, nil, false},
		{"behind an entry", with(func(r *raft.AppendEntriesRequest) { r.PrevLogEntry = 10 }), 0, nil, false},
		{"behind an entry of another term", with(func(r *raft.AppendEntriesRequest) { r.PrevLogTerm = 3 }), 0, nil, false},
		{"another term", with(func(r *raft.AppendEntriesRequest) { r.Term = 4 }), 0, nil, false},
		{"another leader", with(func(r *raft.AppendEntriesRequest) { r.Addr = []byte("b") }), 0, nil, false},
		{"a heartbeat", &raft.AppendEntriesRequest{Term: 3, RPCHeader: raft.RPCHeader{Addr: []byte("a")}}, 0, nil, false},
		{"it was refused since", with(same), 0, func(i *idle) {
			i.note("b.1", with(same), &raft.AppendEntriesResponse{Term: 4}, nil, now)
		}, false},
		{"it was not reached since", with(same), 0, func(i *idle) {
			i.note("b.1", with(same), &raft.AppendEntriesResponse{Success: true}, errors.New("no route"), now)
		}, false},
		{"a heartbeat was not answered since", with(same), 0, func(i *idle) {
			i.note("b.1", &raft.AppendEntriesRequest{Term: 3}, &raft.AppendEntriesResponse{}, errors.New("no route"), now)
		}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var i idle
			i.note("b.1", &base, &raft.AppendEntriesResponse{Term: 3, LastLog: 9, Success: true}, nil, now)
			if tt.do != nil {
				tt.do(&i)
			}
			r, _, ok := i.answer("b.1", tt.req, now.Add(tt.after))
			if ok != tt.want || ok && (!r.Success || r.LastLog != 9) {
				t.Errorf("answered %v: %+v", ok, r)
			}
			if _, _, ok := i.answer("c.1", tt.req, now.Add(tt.after)); ok {
				t.Error("answered for another follower")
			}
		})
	}
}

// A heartbeat is left out only beside appends of the same reign that are acknowledged.
func TestIdleHeartbeats(t *testing.T) {
	now := time.Now()
	header := raft.RPCHeader{Addr: []byte("a")}
	empty := raft.AppendEntriesRequest{Term: 3, RPCHeader: header, PrevLogEntry: 9, PrevLogTerm: 2, LeaderCommitIndex: 9}
	beat := raft.AppendEntriesRequest{Term: 3, RPCHeader: header}
	yes := raft.AppendEntriesResponse{Term: 3, LastLog: 9, Success: true}
	for _, tt := range []struct {
		name  string
		req   raft.AppendEntriesRequest
		after time.Duration
		do    func(i *idle)
		want  bool
	}{
		{"acknowledged", beat, idleEvery, nil, true},
		{"too long ago", beat, heartbeatAfter, nil, false},
		{"no heartbeat", empty, 0, nil, false},
		{"of another term", raft.AppendEntriesRequest{Term: 4, RPCHeader: header}, 0, nil, false},
		{"of another leader", raft.AppendEntriesRequest{Term: 3, RPCHeader: raft.RPCHeader{Addr: []byte("b")}}, 0, nil, false},
		{"refused since", beat, 0, func(i *idle) { i.note("b.1", &empty, &raft.AppendEntriesResponse{Term: 4}, nil, now) }, false},
		{"not reached since", beat, 0, func(i *idle) { i.note("b.1", &empty, &yes, errors.New("no route"), now) }, false},
		{"only a heartbeat since", beat, heartbeatAfter, func(i *idle) {
			i.note("b.1", &beat, &yes, nil, now.Add(heartbeatAfter/2))
		}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var i idle
			i.note("b.1", &empty, &yes, nil, now)
			if tt.do != nil {
				tt.do(&i)
			}
			r, rest, ok := i.beats("b.1", &tt.req, now.Add(tt.after))
			if ok != tt.want || ok && (!r.Success || rest != heartbeatAfter-tt.after) {
				t.Errorf("left out %v for %v: %+v", ok, rest, r)
			}
			if _, _, ok := i.beats("c.1", &tt.req, now.Add(tt.after)); ok {
				t.Error("left out for another follower")
			}
		})
	}
}

// An idle leader says little to followers that are settled; they learn of a commit as
// soon as ever, and a leader without followers gives up little later.
func TestIdleLeaderIsQuiet(t *testing.T) {
	for _, settled := range []bool{true, false} {
		t.Run(fmt.Sprintf("settled %v", settled), func(t *testing.T) {
			bubble(t, 3, func(l *lab) {
				l.settled.Store(settled)
				lead := l.found()
				time.Sleep(time.Second)
				before := l.sent.Load()
				time.Sleep(10 * time.Second)
				perSecond := (l.sent.Load() - before) / 10 / 2 // followers
				var longest time.Duration
				for i := range 50 {
					time.Sleep(time.Duration(i) * 7 * time.Millisecond)
					mark := must[uint64](t)(lead.Mark(l.t.Context()))
					longest = max(longest, l.until("all have applied it", func() bool {
						for _, m := range l.all {
							if m.m.Copy().Index < mark {
								return false
							}
						}
						return true
					}))
				}
				t.Logf("%d messages a second to each follower; a commit is everywhere after %v at most", perSecond, longest)
				if settled != (perSecond < 8) {
					t.Errorf("%d messages a second", perSecond)
				}
				if longest > 3*commitTimeout {
					t.Errorf("a commit took %v", longest)
				}
				for _, n := range l.names {
					l.net.CutStreams(n, true)
				}
				took := l.until("the leader gives up", func() bool { return !lead.IsLeader() })
				t.Logf("gave up after %v", took)
				if took > raftLease+2*idleEvery {
					t.Errorf("it gave up after %v", took)
				}
			})
		})
	}
}
