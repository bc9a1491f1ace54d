package fsm_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"hanode/internal/id"
	"hanode/internal/spec"
)

const (
	webIP = "10.0.0.100/24"
	dbIP  = "10.0.0.101/24"
)

// R11: whatever way an address takes from one group to another, its new owner
// waits for whoever may still answer for it.
func TestAddressMoves(t *testing.T) {
	a1, b1, c1 := ref("a", 1), ref("b", 1), ref("c", 1)
	for name, tt := range map[string]struct {
		do    func(*replica)
		group string
		owner id.NodeRef
		epoch id.Epoch
		waits []id.Claim
	}{
		"to a group that runs elsewhere": {
			func(r *replica) { r.must(groups(ips("web"), ips("db", dbIP, webIP))) },
			"db", b1, 2,
			[]id.Claim{claim("db", b1, 1), claim("web", a1, 1)},
		},
		"its old group waits for itself": {
			func(r *replica) { r.must(groups(ips("web"), ips("db", dbIP, webIP))) },
			"web", a1, 2,
			[]id.Claim{claim("web", a1, 1)},
		},
		"to a new group": {
			func(r *replica) {
				r.must(groups(ips("web"), ips("db", dbIP), ips("new", webIP)))
				r.must(assign("new", 1, c1))
			},
			"new", c1, 1,
			[]id.Claim{claim("web", a1, 1)},
		},
		"of a deleted group": {
			func(r *replica) { r.must(groups(ips("db", dbIP, webIP))) },
			"db", b1, 2,
			[]id.Claim{claim("db", b1, 1), claim("web", a1, 1)},
		},
		"of a group deleted long before": {
			func(r *replica) { r.must(groups(ips("db", dbIP))); r.must(groups(ips("db", dbIP, webIP))) },
			"db", b1, 2,
			[]id.Claim{claim("db", b1, 1), claim("web", a1, 1)},
		},
		"taken away today, given tomorrow": {
			func(r *replica) {
				r.must(groups(ips("web"), ips("db", dbIP)))
				r.must(groups(ips("web"), ips("db", dbIP, webIP)))
			},
			"db", b1, 2,
			[]id.Claim{claim("db", b1, 1), claim("web", a1, 1)},
		},
		"of a group deleted, added anew without it": {
			func(r *replica) {
				r.must(groups(ips("db", dbIP)))
				r.must(groups(ips("web", "10.0.0.77"), ips("db", dbIP)))
				r.must(groups(ips("web", "10.0.0.77"), ips("db", dbIP, webIP)))
			},
			"db", b1, 2,
			[]id.Claim{claim("db", b1, 1), claim("web", a1, 1)},
		},
		"on through a second group": {
			func(r *replica) {
				r.must(groups(ips("web"), ips("db", dbIP, webIP)))
				r.must(groups(ips("web"), ips("db", dbIP), ips("new", webIP)))
				r.must(assign("new", 1, c1))
			},
			"new", c1, 1,
			[]id.Claim{claim("web", a1, 1), claim("db", b1, 2)},
		},
		"written another way": {
			func(r *replica) { r.must(groups(ips("web"), ips("db", dbIP, "::ffff:10.0.0.100/128"))) },
			"db", b1, 2,
			[]id.Claim{claim("db", b1, 1), claim("web", a1, 1)},
		},
		"in the middle of a switchover": {
			func(r *replica) {
				r.must(assign("web", 2, c1))
				r.must(groups(ips("web"), ips("db", dbIP, webIP)))
			},
			"db", b1, 2,
			[]id.Claim{claim("db", b1, 1), claim("web", a1, 1), claim("web", c1, 2)},
		},
		"after its holder let go": {
			func(r *replica) {
				r.must(released(claim("web", a1, 1)))
				r.must(groups(ips("web"), ips("db", dbIP, webIP)))
			},
			"db", b1, 2,
			[]id.Claim{claim("db", b1, 1)},
		},
		"another address of the group stays": {
			func(r *replica) { r.must(groups(ips("web", webIP), ips("db", dbIP, "10.0.0.9"))) },
			"web", a1, 1, nil,
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := running(t)
			tt.do(r)
			r.wantOwner(tt.group, tt.owner, tt.epoch, tt.waits...)
		})
	}
}

func TestMovedAddressIsReleasedOnce(t *testing.T) {
	r := running(t)
	r.must(groups(ips("web"), ips("db", dbIP, webIP)))
	res := r.must(released(claim("web", ref("a", 1), 1)))
	if !cmp.Equal(res.Touched, []string{"db", "web"}) {
		t.Errorf("touched %v: the token clears the wait in both groups", res.Touched)
	}
	r.wantOwner("db", ref("b", 1), 2, claim("db", ref("b", 1), 1))
	r.wantOwner("web", ref("a", 1), 2)
}

func TestDeleteAndAddAgainKeepsEpochs(t *testing.T) {
	r := running(t)
	r.must(groups(ips("db", dbIP)))
	r.wantOwner("web", id.NodeRef{}, 2, claim("web", ref("a", 1), 1))
	if got := r.Copy().GroupNames(); !cmp.Equal(got, []string{"db"}) {
		t.Error(got)
	}
	for name, c := range map[string]string{
		"assign": r.propose(assign("web", 3, ref("b", 1))).Rejected,
	} {
		if c == "" {
			t.Errorf("%s of a deleted group was taken", name)
		}
	}
	r.must(groups(ips("db", dbIP), ips("web", webIP)))
	r.wantOwner("web", id.NodeRef{}, 2, claim("web", ref("a", 1), 1))
	if res := r.propose(assign("web", 1, ref("b", 1))); res.Rejected == "" {
		t.Error("an epoch was used again")
	}
	r.must(assign("web", 3, ref("b", 1)))
	r.wantOwner("web", ref("b", 1), 3, claim("web", ref("a", 1), 1))
}

func TestChangesThatDoNotRestart(t *testing.T) {
	r := running(t)
	before := r.group("web")
	web := ips("web", webIP)
	web.Prefer, web.Failback = []string{"b"}, spec.Failback{On: true}
	r.must(groups(web, ips("db", dbIP)))
	r.wantOwner("web", ref("a", 1), 1)
	after := r.group("web")
	if !after.Started || after.Revision <= before.Revision || !cmp.Equal(after.Spec.Prefer, []string{"b"}) {
		t.Errorf("%+v", after)
	}
	if db := r.group("db"); db.Revision != before.Revision {
		t.Error("an unchanged group has a new revision")
	}
}

func TestExclusiveChangesRestart(t *testing.T) {
	r := running(t)
	web := ips("web", webIP)
	web.Exclusive = true
	r.must(groups(web, ips("db", dbIP)))
	r.wantOwner("web", ref("a", 1), 2, claim("web", ref("a", 1), 1))
}
