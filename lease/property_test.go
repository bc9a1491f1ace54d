package lease_test

import (
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"hanode/internal/clock"
	"hanode/internal/id"
	"hanode/lease"
)

// TestHolderAgainstDumbModel compares E and May with a model that keeps every
// beat, ack, token and EXPIRED it ever saw and works each answer out anew.
func TestHolderAgainstDumbModel(t *testing.T) {
	me := ref("n1", 1)
	voters := []string{"a", "b", "c", "d"}
	nodes := []id.NodeRef{me, ref("n2", 1), ref("n2", 2), ref("n3", 1)}
	rapid.Check(t, func(t *rapid.T) {
		list := voters[:rapid.IntRange(1, len(voters)).Draw(t, "voters")]
		h := lease.NewHolder(me, length, clock.Instant{})
		h.SetVoters(1, list)
		var (
			now      = clock.Instant{Boot: time.Second, Raw: 9 * time.Second}
			sent     []clock.Instant
			acked    = map[string]int{} // voter -> newest beat
			end      clock.Instant
			right    lease.Right
			released id.Epoch
			tokens   []id.Claim
			expired  = map[id.NodeRef][]string{}
		)
		node := rapid.SampledFrom(nodes)
		t.Repeat(map[string]func(*rapid.T){
			"time": func(t *rapid.T) {
				now.Boot += time.Duration(rapid.IntRange(1, 90).Draw(t, "boot")) * time.Millisecond
				now.Raw += time.Duration(rapid.IntRange(1, 90).Draw(t, "raw")) * time.Millisecond
			},
			"beat": func(*rapid.T) {
				h.Beat(now)
				sent = append(sent, now)
				now = now.Add(time.Millisecond)
			},
			"ack": func(t *rapid.T) {
				v := rapid.SampledFrom(voters).Draw(t, "by")
				seq := rapid.IntRange(0, len(sent)+1).Draw(t, "seq")
				h.Acked(v, uint64(seq))
				if seq == 0 || seq > len(sent) {
					return
				}
				acked[v] = max(acked[v], seq)
				for _, s := range sent { // a lease from s on, if a majority acked s or later
					n := 0
					for _, v := range list {
						if acked[v] > 0 && !sent[acked[v]-1].Before(s) {
							n++
						}
					}
					if n >= len(list)/2+1 {
						end = clock.Later(end, s.Add(length))
					}
				}
			},
			"record": func(t *rapid.T) {
				right = lease.Right{Group: "g", Epoch: right.Epoch + 1, Owner: node.Draw(t, "owner"), Voters: list, Exclusive: rapid.Bool().Draw(t, "exclusive")}
				for range rapid.IntRange(0, 2).Draw(t, "waits") {
					c := claim("g", node.Draw(t, "wait"), id.Epoch(rapid.IntRange(1, int(right.Epoch)).Draw(t, "epoch")))
					right.Waits = append(right.Waits, lease.Wait{Claim: c, Live: rapid.Bool().Draw(t, "live"), Off: rapid.Bool().Draw(t, "off")})
				}
				h.Adopt(right)
				stale := right
				stale.Epoch--
				stale.Owner = me
				h.Adopt(stale)
			},
			"token": func(t *rapid.T) {
				c := claim("g", node.Draw(t, "node"), id.Epoch(rapid.IntRange(1, int(right.Epoch)+1).Draw(t, "epoch")))
				h.Token(c)
				tokens = append(tokens, c)
			},
			"expired": func(t *rapid.T) {
				n, v := node.Draw(t, "node"), rapid.SampledFrom(voters).Draw(t, "voter")
				h.Expired(n, v)
				expired[n] = append(expired[n], v)
			},
			"release": func(t *rapid.T) {
				e := id.Epoch(rapid.IntRange(0, int(right.Epoch)).Draw(t, "upto"))
				h.Release("g", e)
				released = max(released, e)
			},
			"": func(t *rapid.T) {
				if h.End() != end {
					t.Fatalf("E = %v, want %v", h.End(), end)
				}
				may := right.Owner == me && right.Epoch > released && now.Boot < end.Boot && now.Raw < end.Raw
				for _, w := range right.Waits {
					gone := slices.ContainsFunc(tokens, func(c id.Claim) bool { return c == w.Claim && c.Epoch+16 >= right.Epoch })
					gone = gone || w.Node == me && w.Epoch <= released
					n := 0
					for _, v := range list {
						if slices.Contains(expired[w.Node], v) {
							n++
						}
					}
					may = may && (gone || (!right.Exclusive || w.Off) && !w.Live && n >= len(list)/2+1)
				}
				if got := h.May("g", now); got.OK != may {
					t.Fatalf("may hold = %+v, want %v", got, may)
				}
			},
		})
	})
}

// TestPromiseOutlivesLease is the heart in one property: whatever clocks within
// the bound, delays and lost answers do, a voter says EXPIRED only after every
// lease that counts its ack has ended.
func TestPromiseOutlivesLease(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		timing := simTimings[rapid.IntRange(0, 1).Draw(t, "timing")]
		rate := rapid.Custom(func(t *rapid.T) simClock {
			c := simClock{}
			for i := range c.rate {
				c.rate[i] = rapid.Float64Range(1-simRate, 1+simRate).Draw(t, "rate")
				c.base[i] = time.Duration(rapid.IntRange(1, 1e9).Draw(t, "base"))
			}
			return c
		})
		node, voter := rate.Draw(t, "node"), rate.Draw(t, "voter")
		n := ref("n1", 1)
		h := lease.NewHolder(n, timing.LeaseLength(), node.now(0))
		h.SetVoters(1, []string{"v"})
		g := lease.NewGrantor(voter.now(0))
		g.Applied(voter.now(0), 1, []string{"v"}, map[string]lease.Registration{"n1": {Inc: 1, Bound: timing.Deadtime}})
		g.Ready()
		wait := rapid.Custom(func(t *rapid.T) time.Duration {
			return time.Duration(rapid.IntRange(0, 300_000).Draw(t, "us")) * time.Microsecond
		})
		var now time.Duration
		for range rapid.IntRange(1, 10).Draw(t, "beats") {
			seq, version := h.Beat(node.now(now))
			now += wait.Draw(t, "way there")
			if g.Beat(n, seq, version, voter.now(now)) != lease.Ack {
				t.Fatal("not acked")
			}
			if rapid.Bool().Draw(t, "answered") {
				now += wait.Draw(t, "way back")
				h.Acked("v", seq)
			}
		}
		g.Revoke(n, timing.Deadtime, "x")
		for len(g.Due(voter.now(now))) == 0 {
			now += 100 * time.Microsecond
		}
		if node.now(now).Boot < h.End().Boot {
			t.Fatalf("EXPIRED while the guard is open for another %v", h.End().Boot-node.now(now).Boot)
		}
	})
}
