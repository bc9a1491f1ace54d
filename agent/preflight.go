package agent

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"hanode/fsm"
	"hanode/internal/spec"
	"hanode/peer"
)

// asked is what a preflight brought.
type asked struct {
	said   map[string]peer.Fitness // by node
	silent []string                // that should have answered
}

// askLimit bounds a preflight: a node that does not answer is judged by what is known.
const askLimit = judgeLimit + 500*time.Millisecond

// preflight asks every node that could own the groups, all at once.
func (a *Agent) preflight(ctx context.Context, groups []spec.Group) asked {
	ctx, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	st, now, wanted := a.machine.Copy(), a.host.Clock.Now(), a.wantedDigests()
	out := asked{said: map[string]peer.Fitness{}}
	var mu sync.Mutex
	var wg sync.WaitGroup
	for _, name := range st.NodeNames() {
		n := st.Nodes[name]
		if !n.Registered() || n.Role != spec.RoleNode || a.isSilent(name, now) {
			continue
		}
		wg.Go(func() {
			var f peer.Fitness
			var err error
			if name == a.cfg.Name {
				f = a.judge(ctx, groups, true)
			} else {
				f, err = a.peers.Check(ctx, name, groups)
			}
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				a.log.Debug("a node does not say what it lacks", "of", name, "err", err)
				out.silent = append(out.silent, name)
				return
			}
			out.said[name] = f
			a.fit.note(name, f, wanted) // at once: what it says of itself later is newer
		})
	}
	wg.Wait()
	slices.Sort(out.silent)
	return out
}

// refuse says why groups cannot be applied, as far as they are new or changed: no
// node that answered can run one of them, and either all answered or one says that no
// node ever could. nil = they can.
func (q asked) refuse(groups []spec.Group, before *fsm.State) error {
	var bad []string
	for _, g := range groups {
		if unchanged(before, g) {
			continue
		}
		fit, nowhere := false, false
		var reasons []string
		for _, node := range slices.Sorted(maps.Keys(q.said)) {
			lacks := false
			for _, j := range q.said[node].Groups {
				for _, f := range j.Findings {
					if j.Group == g.Name && (f.Kind == peer.Lacks || f.Kind == peer.Nowhere) {
						lacks, nowhere = true, nowhere || f.Kind == peer.Nowhere
						reasons = append(reasons, fmt.Sprintf("%s: %s", node, f.Text))
					}
				}
			}
			fit = fit || !lacks
		}
		if len(reasons) > 0 && !fit && (nowhere || len(q.silent) == 0) {
			bad = append(bad, fmt.Sprintf("no node can run %s (%s)", g.Name, strings.Join(reasons, "; ")))
		}
	}
	if len(bad) == 0 {
		return nil
	}
	return fail("unfit", "install what is missing or correct the cluster file, then apply it again", "nothing was changed: %s", strings.Join(bad, "; "))
}

// say adds to what happens to a group where it cannot run, and who did not answer.
func (q asked) say(text, group string, lacks map[string]map[string]string) string {
	for _, node := range slices.Sorted(maps.Keys(lacks)) {
		if why := lacks[node][group]; why != "" {
			text += fmt.Sprintf("; not on %s: %s", node, why)
		}
	}
	if len(q.silent) > 0 {
		text += fmt.Sprintf("; %s did not say what it lacks", strings.Join(q.silent, ", "))
	}
	return text
}
