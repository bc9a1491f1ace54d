package main

import (
	"fmt"
	"strings"

	"hanode/api"
)

// shownLines is how many lines of an output people are shown at once.
const shownLines = 10

// reportsText says what each node did with a group's resources, and what it printed.
func (a *app) reportsText(g api.GroupStatus) {
	if g.Nodes == nil {
		return
	}
	for _, n := range *g.Nodes {
		a.printf("")
		if n.Error != nil {
			a.printf("%s on %s: %s", g.Name, n.Node, *n.Error)
			continue
		}
		a.printf("%s on %s:", g.Name, n.Node)
		if len(n.Resources) == 0 {
			a.printf("  nothing was done with it there since its agent started")
		}
		for _, r := range n.Resources {
			line := fmt.Sprintf("  %s %s: %s", r.Type, r.Name, text(r.State))
			if r.Error != nil {
				line += ", " + *r.Error
			}
			a.printf("%s", line)
			for _, op := range r.Operations {
				a.operationText(op)
			}
		}
	}
}

func (a *app) operationText(op api.OperationReport) {
	how := "done"
	switch {
	case op.Running:
		how = "running"
	case op.Error != nil:
		how = "failed: " + *op.Error
	}
	a.printf("    %s %s ago, %s: %s", op.Name, a.age(&op.At), millis(&op.MS), how)
	a.outputText("      | ", op.Output)
}

// outputText shows the last lines of what a program printed.
func (a *app) outputText(indent, output string) {
	output = strings.TrimRight(output, " \t\r\n")
	if output == "" {
		return
	}
	lines := strings.Split(output, "\n")
	if over := len(lines) - shownLines; over > 0 {
		a.printf("%s(%s before these)", indent, count(over, "more line"))
		lines = lines[over:]
	}
	for _, l := range lines {
		a.printf("%s%s", indent, shorten(l))
	}
}

// widest bounds one line of an output, in bytes: a program may print a gigabyte without a
// line break.
const widest = 400

func shorten(l string) string {
	if len(l) <= widest {
		return l
	}
	return strings.ToValidUTF8("..."+l[len(l)-widest:], "")
}
