package main

import (
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"hanode/api"
)

func (a *app) tuneCommand() *cobra.Command {
	var reset bool
	cmd := a.withJSON(&cobra.Command{
		Use:     "tune",
		GroupID: groupSee,
		Short:   "Recommend a timing from the times between beats measured here",
		Long: `Show how late the beats of each node came, as this node heard them, and what
deadtime that recommends: 1.5 to 2 times the longest time between two beats of a
node that was well.

Every node tells what it heard itself, and a node that is no voter hears nobody:
ask each voter. The measurement begins when the agent starts, or with --reset.
A short one is worth little; let it see a busy day, a backup, a snapshot. Nothing
is changed: the timing is that of the node files with which the cluster was
founded.

The row of this node itself is how it sent its beats. OUTAGES are times of
deadtime or more, from nodes that were down, cut off or stopped; they count
neither in LONGEST nor in the recommendation.`,
		Example: `  hanode tune
  hanode tune --reset           # measure anew from here on
  hanode tune --json | jq .recommended.deadtime_ms`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, done := a.client()
			defer done()
			t, err := c.Tune(cmd.Context(), reset)
			return report(a, t, err, func(t *api.Tuning) {
				if reset {
					a.printf("%s measures anew from now on.", t.Node)
					return
				}
				a.tuneText(t)
			})
		},
	})
	cmd.Flags().BoolVar(&reset, "reset", false, "forget what was measured here, and start anew")
	return cmd
}

func (a *app) tuneText(t *api.Tuning) {
	under := "its own times"
	if t.Profile != nil {
		under = "profile " + *t.Profile
	}
	a.printf("Measured on %s for %s, under %s: keepalive %s, warntime %s, deadtime %s.", t.Node, span(length(t.ForMS)), under,
		length(t.Timing.KeepaliveMS), length(t.Timing.WarntimeMS), length(t.Timing.DeadtimeMS))
	a.printf("")
	rows := newTable(a.out, "NODE", "BEATS", "LONGEST", "AGO", "99 OF 100", "OUTAGES", "LONGEST OUTAGE")
	for _, g := range t.Heard {
		name := g.Node
		if name == t.Node {
			name += " (this node)"
		}
		outages := unknown
		if g.Outages > 0 {
			outages = strconv.FormatUint(g.Outages, 10)
		}
		rows.row(name, strconv.FormatUint(g.Beats, 10), millis(g.LongestMS), a.age(g.LongestAt), millis(g.P99MS), outages, millis(g.OutageMS))
	}
	rows.flush()
	a.printf("")
	if t.Stalls > 0 {
		a.printf("The agent of %s was stalled %s, for %s at most.", t.Node, count(int(t.Stalls), "time"), millis(&t.StallMS))
	}
	for _, s := range t.Why {
		a.printf("%s", s)
	}
	if t.Fits != nil {
		a.printf("The quickest profile for such beats: %s.", *t.Fits)
	}
	if t.Recommended == t.Timing {
		return
	}
	a.printf("")
	a.printf("Recommended, in the node files of all founders; a cluster that runs keeps its timing:")
	a.printf("")
	a.printf("timing {")
	a.printf(`  keepalive = "%s"`, length(t.Recommended.KeepaliveMS))
	a.printf(`  warntime  = "%s"`, length(t.Recommended.WarntimeMS))
	a.printf(`  deadtime  = "%s"`, length(t.Recommended.DeadtimeMS))
	a.printf(`  initdead  = "%s"`, length(t.Recommended.InitdeadMS))
	a.printf("}")
}

// length is a number of milliseconds as a duration, which prints as the files
// take it.
func length(ms float64) time.Duration { return time.Duration(ms * 1e6) }
