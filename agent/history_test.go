package agent

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/anishathalye/porcupine"

	"hanode/internal/id"
)

// history is what was seen from outside, written down for porcupine, a checker of
// linearizability that knows nothing of leases: who answered from when until when,
// what was decided when, what operators asked for and what they were told. It is a
// second opinion on the invariants, by other means.
//
// Its time is a counter: of two things that certainly came one after the other the
// later one has the larger number, and what cannot be told apart overlaps.
type history struct {
	mu   sync.Mutex
	now  int64
	ops  []porcupine.Operation
	seen [maxVips]map[string]hold // address -> who answered at the last look
	busy map[claimAt]map[string]int
}

// maxVips is how many addresses a lab has at most.
const maxVips = 8

// hold is one host's answering for an address.
type hold struct {
	group string
	epoch id.Epoch
}

// act is one operation on one object. Objects do not touch each other, so each is
// checked alone.
type act struct {
	object string // "address 10.77.0.100", "group web", "standby secondary", "maintenance", "wanted"
	kind   string
	who    string
	epoch  id.Epoch
	value  string
}

func (a act) String() string {
	return strings.Join(strings.Fields(fmt.Sprintf("%s %s %s %s", a.kind, a.who, a.value, map[bool]string{true: fmt.Sprintf("epoch %d", a.epoch)}[a.epoch > 0])), " ")
}

// thing is the state of one object.
type thing struct {
	holder string   // who answers, or holds the group; "" = nobody
	held   id.Epoch // the newest epoch that anybody held
	epoch  id.Epoch // the newest epoch that was decided
	owner  string   // and whose it is
	value  string   // of a register
}

// step says whether an operation is allowed in a state, and what comes of it.
func step(state, input, _ any) (bool, any) {
	s, a := state.(thing), input.(act)
	switch a.kind {
	case "open": // an address: a lock
		ok := s.holder == ""
		s.holder = a.who
		return ok, s
	case "shut", "drop":
		ok := s.holder == a.who
		s.holder = ""
		return ok, s
	case "assign": // a group: a lock whose epochs only grow
		ok := a.epoch > s.epoch || a.epoch == s.epoch && s.owner == ""
		s.epoch, s.owner = a.epoch, a.who
		return ok, s
	case "hold":
		ok := s.holder == "" && a.epoch <= s.epoch && a.epoch >= s.held && (a.epoch < s.epoch || s.owner == a.who)
		s.holder, s.held = a.who, a.epoch
		return ok, s
	case "moved": // "done", an operator was told: web is on who at epoch
		return a.epoch < s.epoch || a.epoch == s.epoch && s.owner == a.who, s
	case "is":
		return s.epoch == a.epoch && s.owner == a.who, s
	case "write": // a register
		s.value = a.value
		return true, s
	case "read":
		return s.value == a.value, s
	}
	panic("unknown kind " + a.kind)
}

var model = porcupine.Model{
	Init: func() any { return thing{} }, Step: step, Partition: byObject,
	DescribeOperation: func(in, _ any) string { return in.(act).String() },
	DescribeState:     func(s any) string { return fmt.Sprintf("%+v", s) },
}

func byObject(ops []porcupine.Operation) (out [][]porcupine.Operation) {
	at := map[string]int{}
	for _, op := range ops {
		o := op.Input.(act).object
		i, ok := at[o]
		if !ok {
			i = len(out)
			at[o] = i
			out = append(out, nil)
		}
		out[i] = append(out[i], op)
	}
	return out
}

func newHistory(nodes []string) *history {
	h := &history{now: 1, busy: map[claimAt]map[string]int{}}
	h.addLocked(act{object: "maintenance", kind: "write", value: "false"}, 0, 0)
	for _, n := range nodes {
		h.addLocked(act{object: "standby " + n, kind: "write", value: "false"}, 0, 0)
	}
	return h
}

func (h *history) addLocked(a act, call, ret int64) {
	h.ops = append(h.ops, porcupine.Operation{Input: a, Call: call, Return: ret})
}

// stamp is a moment: earlier than all that begins after it was taken.
func (h *history) stamp() int64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.now++
	return h.now
}

// did notes an operation that began at call and has just ended.
func (h *history) did(a act, call int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.now++
	h.addLocked(a, call, h.now)
}

// may notes an operation that began at call and of which nobody knows whether it
// was, or will be, carried out.
func (h *history) may(a act, call int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.addLocked(a, call, 1<<62)
}

// sawLocked notes who answers for the i-th address now. What is new since the
// last look began between the two.
func (h *history) sawLocked(i int, addr string, now map[string]hold) {
	object := "address " + addr
	for who, was := range h.seen[i] {
		if is, still := now[who]; still && is == was {
			continue
		}
		h.addLocked(act{object: object, kind: "shut", who: who}, h.now, h.now+1)
		h.countLocked(was.group, who, was.epoch, -1)
	}
	for who, is := range now {
		if was, already := h.seen[i][who]; already && is == was {
			continue
		}
		h.addLocked(act{object: object, kind: "open", who: who, epoch: is.epoch}, h.now, h.now+1)
		h.countLocked(is.group, who, is.epoch, 1)
	}
	h.seen[i] = now
}

// countLocked: a group is held by a host from its first address to its last.
func (h *history) countLocked(group, who string, e id.Epoch, by int) {
	k := claimAt{group, e}
	if h.busy[k] == nil {
		h.busy[k] = map[string]int{}
	}
	was := h.busy[k][who]
	h.busy[k][who] = was + by
	switch {
	case was == 0:
		h.addLocked(act{object: "group " + group, kind: "hold", who: who, epoch: e}, h.now, h.now+1)
	case was+by == 0:
		h.addLocked(act{object: "group " + group, kind: "drop", who: who}, h.now, h.now+1)
	}
}

// assigned notes that an epoch was seen applied for the first time.
func (h *history) assigned(group string, e id.Epoch, owner string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.addLocked(act{object: "group " + group, kind: "assign", who: owner, epoch: e}, h.now, h.now+1)
	h.now += 2
}

// verdict is what porcupine says of a history.
type verdict struct {
	ops     int
	unknown int    // objects whose check did not end in time
	bad     string // the first object that is not linearizable, and its operations
	object  []porcupine.Operation
}

// check asks porcupine. It needs real time: call it outside of bubbles.
func (h *history) check(limit time.Duration) verdict {
	h.mu.Lock()
	defer h.mu.Unlock()
	v := verdict{ops: len(h.ops)}
	for _, ops := range byObject(h.ops) {
		switch porcupine.CheckOperationsTimeout(model, ops, limit) {
		case porcupine.Unknown:
			v.unknown++
		case porcupine.Illegal:
			if v.bad != "" {
				continue
			}
			v.object = ops
			slices.SortStableFunc(ops, func(a, b porcupine.Operation) int { return int(a.Call - b.Call) })
			var b strings.Builder
			fmt.Fprintf(&b, "the history of %s is not linearizable:\n", ops[0].Input.(act).object)
			for _, op := range ops {
				fmt.Fprintf(&b, "  [%d, %d] %v\n", op.Call, op.Return, op.Input)
			}
			v.bad = b.String()
		}
	}
	return v
}

// draw writes porcupine's picture of what is wrong and returns its path.
func (v verdict) draw(name string) string {
	_, info := porcupine.CheckOperationsVerbose(model, v.object, time.Minute)
	path := filepath.Join(os.TempDir(), name)
	if err := porcupine.VisualizePath(model, info, path); err != nil {
		return err.Error()
	}
	return path
}
