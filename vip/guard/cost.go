package guard

import (
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

// CountRuns has the kernel count the runs of eBPF programs, all of them on this
// machine, and their time, until it is closed. Counting costs some tens of
// nanoseconds a run itself.
func CountRuns() (io.Closer, error) {
	c, err := ebpf.EnableStats(unix.BPF_STATS_RUN_TIME)
	if err != nil {
		return nil, fmt.Errorf("have the kernel count runs: %w", err)
	}
	return c, nil
}

// Runs is how often the programs at the tcx hooks of a device ran while runs were
// counted, and for how long together. It acts in the network namespace of the calling
// thread.
func Runs(index int) (runs uint64, took time.Duration, err error) {
	for _, s := range sides {
		res, err := link.QueryPrograms(link.QueryOptions{Target: index, Attach: s.attach})
		if err != nil {
			return 0, 0, fmt.Errorf("query tcx: %w", err)
		}
		if len(res.Programs) == 0 {
			return 0, 0, errors.New("no guard is attached by tcx")
		}
		n, d, err := runsOf(res.Programs[0].ID)
		if err != nil {
			return 0, 0, err
		}
		runs, took = runs+n, took+d
	}
	return runs, took, nil
}

func runsOf(id ebpf.ProgramID) (uint64, time.Duration, error) {
	p, err := ebpf.NewProgramFromID(id)
	if err != nil {
		return 0, 0, fmt.Errorf("open program %d: %w", id, err)
	}
	defer p.Close()
	s, err := p.Stats()
	if err != nil {
		return 0, 0, fmt.Errorf("read what program %d cost: %w", id, err)
	}
	return s.RunCount, s.Runtime, nil
}
