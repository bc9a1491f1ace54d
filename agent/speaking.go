package agent

import (
	"fmt"
	"reflect"

	"hanode/fsm"
)

// Whose word a command is. A node that calls another one has shown its name (by a
// certificate), and what is said of a node is taken from that node alone: a copy of a
// machine, or one with a wrong name, must not speak for the original. What the leader
// decides it proposes itself. The rest is an operator's, who may ask any node.

// speaker is the node that a command is the word of; ok = it is the word of one.
func speaker(c fsm.Command) (name string, ok bool) {
	switch {
	case c.Register != nil:
		return c.Register.Node, true
	case c.Holding != nil:
		return c.Holding.Node.Name, true
	case c.Holdings != nil:
		for i, h := range c.Holdings.All {
			if i > 0 && h.Node.Name != name {
				return "", true // of several: nobody may say that
			}
			name = h.Node.Name
		}
		return name, true
	case c.Failed != nil:
		return c.Failed.Node.Name, true
	case c.Stopping != nil:
		return c.Stopping.Node.Name, true
	}
	return "", false
}

// leaders are the commands that only a leader makes.
var leaders = map[string]bool{
	"Found": true, "SetVoters": true, "SetDisk": true, "AddNode": true, "Released": true,
	"NewGeneration": true, "Recover": true, "Upgrade": true,
}

// kind is the name of the command's one field.
func kind(c fsm.Command) string {
	v := reflect.ValueOf(c)
	for i := range v.NumField() {
		if f := v.Field(i); f.Kind() == reflect.Pointer && !f.IsNil() {
			return v.Type().Field(i).Name
		}
	}
	return ""
}

// mayPropose says why a command is not taken from another node, or nil.
func mayPropose(asker string, c fsm.Command) error {
	if name, ok := speaker(c); ok && name != asker {
		return fmt.Errorf("%s speaks for %s (%s); a node speaks for itself", asker, name, kind(c))
	}
	// A switchover that an operator asked for may have lost its leader on the way.
	if leaders[kind(c)] || c.Leave != nil && c.Leave.Done || c.Takeover != nil && !c.Takeover.Fence.Zero() {
		return fmt.Errorf("%s is for the leader to decide, not for %s", kind(c), asker)
	}
	return nil
}
