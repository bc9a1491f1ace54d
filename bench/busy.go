package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"sync"
	"syscall"
	"time"

	"hanode/internal/netlab/watch"
	"hanode/test/livelab"
)

// busy loads the machine with busy loops and a disk hog, and breaks nothing: what
// the cluster does then, it does for no reason.
func busy(o options) error {
	fmt.Printf("busy: %d busy loops and a disk hog on %d processors for %v, nothing broken, profile %s\n",
		o.loops, runtime.NumCPU(), o.longOr(30*time.Minute), o.profile)
	return onCluster(o, "busy", func(c *livelab.Cluster) error {
		logged := logSizes(c)
		before, err := epochs(c)
		if err != nil {
			return err
		}
		w, err := watch.Start(c.Client, "eth0", netip.MustParseAddr(livelab.VIP), netip.MustParseAddr("10.77.0.250"), time.Millisecond)
		if err != nil {
			return err
		}
		defer w.Stop()
		if err := waitOther(c, w, "primary", 5*time.Second); err != nil {
			return err
		}
		w.Mark("busy")
		ctx, cancel := context.WithTimeout(context.Background(), o.longOr(30*time.Minute))
		defer cancel()
		worst, err := load(ctx, c, o)
		w.Mark("after")
		r := w.Stop()
		if err != nil {
			return err
		}
		if err := c.Settled(60 * time.Second); err != nil {
			return err
		}
		after, err := epochs(c)
		if err != nil {
			return err
		}
		p := r.Phase("busy")
		fmt.Printf("  epoch of web: %d before, %d after: %d changes of owner; the VIP moved %d times\n",
			before, after, after-before, len(p.Changes))
		fmt.Printf("  longest silence of the VIP %.1f ms (the observer's own longest pause: %.1f ms); instants with two holders: %d; replies the observer lost: %d\n",
			ms(p.LongestSilence), ms(p.LongestPause), len(r.Overlaps), r.Lost)
		fmt.Printf("  worst age of a newest beat, as members says: %.0f ms\n", worst)
		complaints(c, logged)
		return nil
	})
}

// load runs the loops and the hog until ctx ends, and asks members all the while.
func load(ctx context.Context, c *livelab.Cluster, o options) (worst float64, err error) {
	var loops []*exec.Cmd
	defer func() {
		for _, cmd := range loops {
			_ = cmd.Process.Kill()
			_ = cmd.Wait() // killed: its end says nothing
		}
	}()
	// The parent-death signal follows the thread that starts the child.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	for range o.loops {
		cmd := exec.Command("sh", "-c", "while :; do :; done")
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		if err := cmd.Start(); err != nil {
			return 0, err
		}
		loops = append(loops, cmd)
	}
	var hog sync.WaitGroup
	var hogged error
	hog.Go(func() { hogged = writeMuch(ctx, filepath.Join(o.dir, "busy", "hog")) })
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-tick.C:
			worst = max(worst, oldestBeat(ctx, c))
		}
	}
	hog.Wait()
	return worst, hogged
}

// oldestBeat is the greatest age, in ms, of the newest beat of any node on any
// other's word.
func oldestBeat(ctx context.Context, c *livelab.Cluster) float64 {
	oldest := 0.0
	for _, n := range c.Nodes {
		list, err := n.Members(ctx)
		if err != nil {
			continue // it did not answer: the observer sees what matters
		}
		for _, m := range list {
			if m.LastBeatMS != nil {
				oldest = max(oldest, *m.LastBeatMS)
			}
		}
	}
	return oldest
}

// writeMuch writes a large file over and over, each time to the disk, until ctx
// ends.
func writeMuch(ctx context.Context, file string) (err error) {
	const block, blocks = 4 << 20, 64
	f, err := os.Create(file)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close(), os.Remove(file)) }()
	data := bytes.Repeat([]byte("hanode"), block/6)
	for ctx.Err() == nil {
		for i := range int64(blocks) {
			if _, err := f.WriteAt(data, i*block); err != nil {
				return err
			}
		}
		if err := f.Sync(); err != nil {
			return err
		}
	}
	return nil
}

// epochs is the epoch of web: how often its owner changed.
func epochs(c *livelab.Cluster) (uint64, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	s, err := c.Nodes[0].Status(ctx)
	if err != nil {
		return 0, err
	}
	for _, g := range s.Groups {
		if g.Name == "web" {
			return g.Epoch, nil
		}
	}
	return 0, errors.New("there is no group web")
}

// What agents say of themselves under load.
var (
	stalledLine  = regexp.MustCompile(`msg="I was stalled[^"]*".* ms=(\d+)`)
	electionLine = regexp.MustCompile(`msg="became leader"`)
	fencedLine   = regexp.MustCompile(`msg="this registration was fenced`)
)

func logSizes(c *livelab.Cluster) map[string]int64 {
	sizes := map[string]int64{}
	for _, n := range c.Nodes {
		if st, err := os.Stat(n.LogFile()); err == nil {
			sizes[n.Node] = st.Size()
		}
	}
	return sizes
}

// complaints prints what the agents logged since.
func complaints(c *livelab.Cluster, since map[string]int64) {
	for _, n := range c.Nodes {
		b, err := os.ReadFile(n.LogFile())
		if err != nil {
			fmt.Printf("  %s: %v\n", n.Node, err)
			continue
		}
		b = b[min(since[n.Node], int64(len(b))):]
		stalls := stalledLine.FindAllSubmatch(b, -1)
		longest := 0
		for _, m := range stalls {
			if v, err := strconv.Atoi(string(m[1])); err == nil {
				longest = max(longest, v)
			}
		}
		fmt.Printf("  %-10s says %d times that it was stalled, at most %d ms; became leader %d times; was fenced %d times\n",
			n.Node, len(stalls), longest, len(electionLine.FindAll(b, -1)), len(fencedLine.FindAll(b, -1)))
	}
}
