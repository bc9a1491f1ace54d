package agent

import (
	"errors"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"hanode/fsm"
	"hanode/internal/id"
	"hanode/internal/spec"
)

// spoken: every agent that runs knows that the cluster speaks v.
func (l *lab) spoken(v int) func() bool {
	return func() bool {
		for _, h := range l.order {
			if a, _ := h.running(); a != nil && a.speaks() != v {
				return false
			}
		}
		return true
	}
}

func (l *lab) told(on, code string) string {
	st, err := l.on(on).Status(l.t.Context(), "")
	if err != nil {
		l.t.Fatal(err)
	}
	for _, p := range st.Problems {
		if p.Code == code {
			return p.Text
		}
	}
	return ""
}

// An upgrade, node by node: nothing is said that an older one does not understand, until
// all do; from then on an older one is told so.
func TestUpgradeNodeByNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLab(t, fast, "primary", "secondary", "arbiter")
		defer l.close()
		for _, h := range l.order {
			h.speaks = 1
		}
		l.startAll()
		l.until("first hold", 20*time.Second, l.held("primary"))
		later := []fsm.Command{
			{Register: &fsm.Register{Node: "primary", Speaks: 2}},
			{SetGroups: &fsm.SetGroups{Groups: []spec.Group{{Name: "web", Resources: []spec.Resource{{Type: "ip", Name: "10.0.0.100/24", Network: true, Broadcast: "10.0.0.12"}}}}}},
		}
		for i, name := range []string{"arbiter", "secondary", "primary"} {
			time.Sleep(5 * time.Second)
			if !l.spoken(1)() {
				t.Fatalf("with %d of 3 upgraded the cluster speaks a version that not all understand", i)
			}
			if leader := l.leader(); leader != "" {
				for _, c := range later {
					if _, err := l.on(leader).node.Load().Propose(t.Context(), c); !errors.Is(err, fsm.ErrNotYet) {
						t.Errorf("with %d of 3 upgraded a command of the new version was proposed: %+v: %v", i, c, err)
					}
				}
			}
			h := l.hosts[name]
			h.halt()
			h.speaks = 0
			h.start()
			l.well(20 * time.Second)
			if i < 2 {
				l.until("status says who is behind", 10*time.Second, func() bool {
					return strings.Contains(l.told("secondary", "node-old"), "speaks version 1; others could speak 2")
				})
			}
		}
		l.until("all speak the new version", 5*time.Second, l.spoken(2))
		if text := l.told("secondary", "node-old"); text != "" {
			t.Error(text)
		}
		// One that stays on its old registration says nothing; a new one says what it speaks.
		h := l.hosts["secondary"]
		h.halt()
		h.start()
		l.until("it says what it speaks", 5*time.Second, func() (ok bool) {
			l.view(func(s *fsm.State) { ok = s.Nodes["secondary"].Speaks == 2 })
			return ok
		})
		h.halt()
		h.speaks = 1
		h.start()
		l.until("the old one gives up", 20*time.Second, func() bool { return !h.up() })
		h.mu.Lock()
		err := h.err
		h.mu.Unlock()
		if err == nil || !strings.Contains(err.Error(), "version 2") || !strings.Contains(err.Error(), "install the hanode of the other nodes") && !strings.Contains(err.Error(), "upgrade this node") {
			t.Errorf("the old one ends with %v", err)
		}
		l.until("held", 5*time.Second, l.held("primary"))
	})
}

// A host that joins is refused by name if its version does not fit; a clock that is wrong
// does not keep it out.
func TestJoinWithAnotherVersion(t *testing.T) {
	joinStory(t, []string{"primary", "secondary", "arbiter"}, []string{"third"}, func(t *testing.T, l *lab) {
		l.until("version 2", 5*time.Second, l.spoken(2))
		tok := l.token("primary")
		_, err := l.hosts["third"].join(tok, JoinOptions{Speaks: 1, Version: "0.9"}, "secondary", nil)
		if err == nil || !strings.Contains(err.Error(), "version: the host has hanode 0.9, which speaks versions up to 1; this cluster speaks 2 (hanode test here); install that hanode on it") {
			t.Errorf("too old: %v", err)
		}
		_, err = l.hosts["third"].join(tok, JoinOptions{Speaks: 4, Version: "4.0"}, "secondary", nil)
		if err == nil || !strings.Contains(err.Error(), "which speaks versions from 3 on; this cluster speaks 2 (hanode test here); upgrade the members first") {
			t.Errorf("too new: %v", err)
		}
		j, err := l.hosts["third"].join(tok, JoinOptions{Speaks: 3, Version: "3.0"}, "secondary", nil)
		if err != nil || j.Self.Name != "third" {
			t.Errorf("the next version: %+v, %v", j, err)
		}
		if j.ClockApart() {
			t.Errorf("the clocks are %v apart", j.Clock)
		}
		for _, d := range []time.Duration{clockApart, -clockApart} {
			if !(Joined{Clock: d}).ClockApart() || (Joined{Clock: d / 2}).ClockApart() {
				t.Errorf("%v apart is judged wrongly", d)
			}
		}
	})
}

// What one node may propose for another is decided for each command there is.
func TestWhoMayPropose(t *testing.T) {
	operators := map[string]bool{
		"SetGroups": true, "Standby": true, "Maintenance": true, "Pin": true, "Leave": true, "Report": true,
		"PowerOff": true, "Clear": true, "AddToken": true, "RevokeToken": true, "Takeover": true, "RotateKey": true,
	}
	typ := reflect.TypeFor[fsm.Command]()
	for f := range typ.Fields() {
		if f.Type.Kind() != reflect.Pointer {
			continue
		}
		c := fsm.Command{}
		reflect.ValueOf(&c).Elem().FieldByIndex(f.Index).Set(reflect.New(f.Type.Elem()))
		if c.Released != nil {
			c.Released.Claims = []id.Claim{{Group: "web", Node: id.NodeRef{Name: "primary", Inc: 1}, Epoch: 1}}
		}
		_, own := speaker(c)
		listed := 0
		for _, in := range []bool{own, leaders[f.Name], operators[f.Name]} {
			if in {
				listed++
			}
		}
		if listed != 1 {
			t.Errorf("%s is in %d of: a node's own word, the leader's, an operator's", f.Name, listed)
		}
		if err := mayPropose("secondary", c); (err == nil) != operators[f.Name] {
			t.Errorf("%s by another node: %v", f.Name, err)
		}
	}
	primary := fsm.Holding{Group: "web", Node: id.NodeRef{Name: "primary", Inc: 1}}
	two := fsm.Command{Holdings: &fsm.Holdings{All: []fsm.Holding{{Group: "db", Node: id.NodeRef{Name: "secondary", Inc: 1}}, primary}}}
	if err := mayPropose("secondary", two); err == nil {
		t.Error("a node hides another one's word behind its own")
	}
	two.Holdings.All = two.Holdings.All[:1]
	if err := mayPropose("secondary", two); err != nil {
		t.Errorf("its own word: %v", err)
	}
	story(t, func(t *testing.T, l *lab) {
		leader, other := l.leader(), "primary"
		if leader == other {
			other = "secondary"
		}
		a := l.on(other)
		epoch := l.epoch("web")
		ref, _ := l.on("primary").ref()
		for _, c := range []fsm.Command{
			{Register: &fsm.Register{Node: "arbiter", From: 1, Nonce: "x", HostID: "y"}},
			{Stopping: &fsm.Stopping{Node: refOf(l, leader)}},
			{Takeover: &fsm.Takeover{Fence: ref, Assigns: []fsm.Assign{{Group: "web", Epoch: epoch + 1, To: refOf(l, "secondary")}}}},
			{SetVoters: &fsm.SetVoters{Version: 2, Names: []string{"secondary"}}},
			{AddNode: &fsm.AddNode{Node: spec.Node{Name: "x"}}},
		} {
			c.At = a.host.Clock.Wall()
			if _, err := a.peers.Propose(t.Context(), leader, c); err == nil {
				t.Errorf("%s was taken from %s", kind(c), other)
			}
		}
		time.Sleep(2 * time.Second)
		if now, _ := l.on("primary").ref(); now != ref || l.epoch("web") != epoch {
			t.Errorf("something changed: %v, epoch %d", now, l.epoch("web"))
		}
		if res, err := a.peers.Propose(t.Context(), leader, fsm.Command{At: a.host.Clock.Wall(), Maintenance: &fsm.Maintenance{On: true}}); err != nil || res.Rejected != "" {
			t.Errorf("an operator's command: %+v, %v", res, err)
		}
	})
}

func refOf(l *lab, name string) id.NodeRef {
	ref, _ := l.on(name).ref()
	return ref
}

// A node with an empty log registers by what the others told: it gets no log while it is
// leaving.
func TestEmptyLogSpeaksByHearsay(t *testing.T) {
	a := &Agent{machine: fsm.NewMachine()}
	if v := a.saysIt(); v != 0 {
		t.Errorf("with nothing heard it says %d", v)
	}
	a.heardVersion.Store(2)
	if v := a.saysIt(); v != fsm.Newest() {
		t.Errorf("told of version 2 it says %d", v)
	}
}
