package agent

import (
	"context"
	"slices"
	"sync"
	"time"

	"hanode/fsm"
)

// telling is what this node has to tell the cluster of groups that run here by now. A
// thousand that were taken over at once do not all write to the log: while one entry is
// under way the next gathers. Safe for concurrent use.
type telling struct {
	mu      sync.Mutex
	waiting []news
	busy    bool // tellAll runs
}

// news is one group that runs here.
type news struct {
	fsm.Holding
	at   time.Time
	told chan error // gets one value
}

const (
	// mostTold is how many groups one entry tells of: it stays small.
	mostTold = 256
	// mostAlone is how many entries are under way at once where each tells of one group,
	// because some node could not read the other form.
	mostAlone = 8
)

// tellRuns returns nil once the log has it that a group runs here, since at, or that this
// is not true any more.
func (a *Agent) tellRuns(ctx context.Context, at time.Time, h fsm.Holding) error {
	n := news{h, at, make(chan error, 1)}
	t := &a.telling
	t.mu.Lock()
	t.waiting = append(t.waiting, n)
	begin := !t.busy
	t.busy = true
	t.mu.Unlock()
	if begin {
		a.goLoop(a.tellAll)
	}
	select {
	case err := <-n.told:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// tellAll tells what waits, until nothing does.
func (a *Agent) tellAll(ctx context.Context) {
	t := &a.telling
	for {
		t.mu.Lock()
		n := min(len(t.waiting), mostTold)
		batch := slices.Clone(t.waiting[:n])
		t.waiting = slices.Delete(t.waiting, 0, n)
		t.busy = n > 0
		t.mu.Unlock()
		if n == 0 {
			return
		}
		a.tellBatch(ctx, batch)
	}
}

func (a *Agent) tellBatch(ctx context.Context, batch []news) {
	cmd := fsm.Command{At: batch[0].at, Holdings: &fsm.Holdings{}}
	for _, n := range batch {
		cmd.Holdings.All = append(cmd.Holdings.All, n.Holding)
	}
	if len(batch) > 1 && a.machine.Speakable(cmd) == nil {
		_, err := a.propose(ctx, cmd)
		for _, n := range batch {
			n.told <- err
		}
		return
	}
	for some := range slices.Chunk(batch, mostAlone) {
		var wg sync.WaitGroup
		for _, n := range some {
			wg.Go(func() {
				_, err := a.propose(ctx, fsm.Command{At: n.at, Holding: &n.Holding})
				n.told <- err
			})
		}
		wg.Wait()
	}
}
