package robustness

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// ending is how a command ended for the operator.
type ending int

const (
	acked   ending = iota // answered "done": must not be lost
	unknown               // no answer, or an error: may have happened, or happen yet
)

// write is one command that set a value.
type command struct {
	value string
	end   ending
}

// register is what an operator did to one thing that has a value, in order, one
// after the other. The zero register was never written.
type register struct {
	initial  string
	commands []command
}

func (r *register) did(value string, end ending) {
	r.commands = append(r.commands, command{value, end})
}

// allowed lists the values it may have once all is quiet: what was acknowledged
// last, or any command whose end is not known. Such a one may take effect late,
// after commands that were given after it; no acknowledged one may be undone by an
// older acknowledged one.
func (r *register) allowed() []string {
	last := r.initial
	var list []string
	for _, c := range r.commands {
		if c.end == acked {
			last = c.value
		} else {
			list = append(list, c.value)
		}
	}
	return append(list, last)
}

// lost says which acknowledged command is lost if the value is now got, or "".
func (r *register) lost(got string) string {
	if slices.Contains(r.allowed(), got) {
		return ""
	}
	last := r.initial
	for _, c := range r.commands {
		if c.end == acked {
			last = c.value
		}
	}
	return fmt.Sprintf("%q was acknowledged last, and now it is %q", last, got)
}

// acks counts acknowledged commands.
func (r *register) acks() int {
	n := 0
	for _, c := range r.commands {
		if c.end == acked {
			n++
		}
	}
	return n
}

// settle makes got what was acknowledged last. Commands in doubt that did not happen
// stay so: one may lie in the log of a node that is elected only later.
func (r *register) settle(got string) {
	doubt := slices.DeleteFunc(r.commands, func(c command) bool { return c.end == acked || c.value == got })
	*r = register{initial: got, commands: doubt}
}

// ownership is one line of the cluster's history: node was made the owner of group
// at epoch.
type ownership struct {
	index, epoch uint64
	group, node  string
	at           int64 // when it was decided, by the wall clock that all hosts here share; ns
}

// twoMoves reports whether the history explains that an address was seen to go from
// first to second and back within a moment that ended at end: second was made the
// owner, and first again after it, both just before. A standby that is taken back at
// once is as quick as that. An instant in which one request was answered by both has
// no such explanation.
func twoMoves(list []ownership, group, first, second string, end time.Time) bool {
	lately := func(o ownership) bool {
		ago := end.Sub(time.Unix(0, o.at))
		return ago >= 0 && ago < 50*time.Millisecond
	}
	var owners []ownership
	for _, o := range list {
		if o.group == group {
			owners = append(owners, o)
		}
	}
	for i := 2; i < len(owners); i++ {
		if owners[i-2].node == first && owners[i-1].node == second && owners[i].node == first && lately(owners[i-1]) && lately(owners[i]) {
			return true
		}
	}
	return false
}

// rising says what is wrong with a node's history: epochs of a group strictly
// increase, and so do the indices of events.
func rising(list []ownership) []string {
	var bad []string
	epoch, index := map[string]uint64{}, uint64(0)
	for _, o := range list {
		if o.index <= index {
			bad = append(bad, fmt.Sprintf("event %d follows event %d", o.index, index))
		}
		if o.epoch <= epoch[o.group] {
			bad = append(bad, fmt.Sprintf("event %d assigns %s at epoch %d after epoch %d", o.index, o.group, o.epoch, epoch[o.group]))
		}
		index, epoch[o.group] = o.index, o.epoch
	}
	return bad
}

// differ says where two nodes' histories tell different stories of one event.
func differ(a, b string, x, y []ownership) []string {
	var bad []string
	byIndex := map[uint64]ownership{}
	for _, o := range x {
		byIndex[o.index] = o
	}
	for _, o := range y {
		if p, ok := byIndex[o.index]; ok && p != o {
			bad = append(bad, fmt.Sprintf("event %d is %+v on %s and %+v on %s", o.index, p, a, o, b))
		}
	}
	return bad
}

// holders remembers which node's agent said that it took a group over at an epoch.
type holders map[string]string

// read takes the lines of an agent's log that say so, and returns what contradicts
// an earlier one: an epoch belongs to one node.
func (h holders) read(node string, log []byte) []string {
	var bad []string
	for line := range strings.Lines(string(log)) {
		if !strings.Contains(line, ` msg="took over" `) {
			continue
		}
		key := field(line, "group") + "/" + field(line, "epoch")
		if other, ok := h[key]; ok && other != node {
			bad = append(bad, fmt.Sprintf("%s and %s both took over group/epoch %s", other, node, key))
		}
		h[key] = node
	}
	return bad
}

// field is the value of a key in a line of slog's text form; no value of ours that
// is asked for has a blank in it.
func field(line, key string) string {
	_, rest, _ := strings.Cut(line, " "+key+"=")
	value, _, _ := strings.Cut(strings.TrimSpace(rest), " ")
	return value
}
