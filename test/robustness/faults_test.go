package robustness

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"hanode/internal/netlab"
	"hanode/internal/netlab/watch"
	"hanode/internal/spec"
	"hanode/test/livelab"
)

// breakage is one way to break one node. inject breaks it, proves that it took
// hold, and returns what heals it.
type breakage struct {
	name   string
	hold   func(d *draw) time.Duration // how long it stays broken
	inject func(x *run, n *livelab.Node) (heal func() error, err error)
	root   bool // takes root of the machine
	whole  bool // changes the whole network's partition: one such at a time
	disk   bool // holds processes where no signal reaches them
}

// draw is where times come from.
type draw struct {
	*rand.Rand
	timing spec.Timing
	long   bool // the full form: a hang lasts at least ten deadtimes
}

func (d *draw) between(from, to time.Duration) time.Duration { return between(d.Rand, from, to) }

// past is a time that is past deadtime: at least ten deadtimes in the long form.
func (d *draw) past() time.Duration {
	if d.long {
		return d.between(10*d.timing.Deadtime, 14*d.timing.Deadtime)
	}
	return d.between(3*d.timing.Deadtime, 4*d.timing.Deadtime)
}

// some is for a fault that is known to hold by itself.
func (d *draw) some() time.Duration {
	if d.long {
		return d.between(2*d.timing.Deadtime, 8*d.timing.Deadtime)
	}
	return d.between(2*d.timing.Deadtime, 4*d.timing.Deadtime)
}

// brief is short of what mutes a holder: a lease outlives it.
func (d *draw) brief() time.Duration {
	return d.between(d.timing.Keepalive, d.timing.LeaseLength()-3*d.timing.Keepalive)
}

// soon is from at once to some: as a service manager that restarts what died.
func (d *draw) soon() time.Duration {
	if d.IntN(2) == 0 {
		return d.between(0, d.timing.Warntime)
	}
	return d.some()
}

// The faults of one node.
var (
	killed   = breakage{name: "kill -9 of the agent", hold: (*draw).soon, inject: kill}
	hiccup   = breakage{name: "SIGSTOP short of deadtime", hold: (*draw).brief, inject: stop}
	stopped  = breakage{name: "SIGSTOP past deadtime", hold: (*draw).past, inject: stop}
	frozen   = breakage{name: "cgroup freeze past deadtime", hold: (*draw).past, inject: freeze, root: true}
	powerOff = breakage{name: "power cut", hold: (*draw).some, inject: cutPower}
	cable0   = breakage{name: "cable of eth0 out", hold: (*draw).past, inject: pull("eth0")}
	cable1   = breakage{name: "cable of eth1 out", hold: (*draw).past, inject: pull("eth1")}
	down0    = breakage{name: "eth0 set down", hold: (*draw).some, inject: setDown("eth0")}
	down1    = breakage{name: "eth1 set down", hold: (*draw).some, inject: setDown("eth1")}
	deaf     = breakage{name: "one-way cut: hears nothing", hold: (*draw).past, inject: oneWay(netlab.DropIn)}
	mute     = breakage{name: "one-way cut: is not heard", hold: (*draw).past, inject: oneWay(netlab.DropOut)}
	isolated = breakage{name: "partition 1|2", hold: (*draw).past, inject: isolate, whole: true}
	diskHang = breakage{name: "disk stall", hold: (*draw).past, inject: hangDisk, root: true, disk: true}
)

func singles() []breakage {
	return []breakage{
		killed, hiccup, stopped, frozen, powerOff, cable0, cable1, down0, down1, deaf, mute, isolated, diskHang,
	}
}

// exitTime is how long an agent that was killed, or told to stop, may take.
const exitTime = 20 * time.Second

func ended(p *netlab.Process) error {
	select {
	case <-p.Done:
		return nil
	case <-time.After(exitTime):
		return fmt.Errorf("process %d does not end", p.Pid)
	}
}

func kill(x *run, n *livelab.Node) (func() error, error) {
	p := n.Agent()
	x.set(x.down, n, true)
	if err := errors.Join(p.Kill(), ended(p)); err != nil {
		return nil, err
	}
	err := p.Wait()
	x.proof(err != nil && strings.Contains(err.Error(), "killed"), "%s ended: %v", n.Node, err)
	return func() error { return x.start(n) }, nil
}

func stop(x *run, n *livelab.Node) (func() error, error) {
	p := n.Agent()
	x.set(x.hung, n, true)
	if err := p.Stop(); err != nil {
		return nil, err
	}
	still := false
	for end := time.Now().Add(time.Second); !still && time.Now().Before(end); time.Sleep(time.Millisecond) {
		still = p.Stopped()
	}
	begin := time.Now()
	x.proof(still, "every thread of %s's agent is stopped", n.Node)
	return func() error {
		x.proof(p.Stopped(), "it was stopped for %v", time.Since(begin).Round(time.Millisecond))
		x.set(x.hung, n, false)
		return p.Cont()
	}, nil
}

func freeze(x *run, n *livelab.Node) (func() error, error) {
	x.set(x.hung, n, true)
	if err := n.Cgroup.Freeze(); err != nil {
		return nil, err
	}
	begin := time.Now()
	return func() error {
		now, err := n.Cgroup.Frozen()
		x.proof(now, "%s's agent was frozen for %v", n.Node, time.Since(begin).Round(time.Millisecond))
		x.set(x.hung, n, false)
		return errors.Join(err, n.Cgroup.Thaw())
	}, nil
}

func cutPower(x *run, n *livelab.Node) (func() error, error) {
	x.set(x.down, n, true)
	if err := n.PowerCut(); err != nil {
		return nil, err
	}
	left, err := n.Pids()
	x.proof(err == nil && len(left) == 0, "no process is left on %s (%v)", n.Node, left)
	x.reaches(x.Client, "eth0", n, "eth1", false, false)
	return func() error { return errors.Join(n.PowerOn(), x.serve(n), x.start(n)) }, nil
}

// peer is another node whose network works as far as we know.
func (x *run) peer(n *livelab.Node) *livelab.Node {
	for _, p := range x.Nodes {
		if p != n && p.On() && !x.broken[p.Node] {
			return p
		}
	}
	return nil
}

// probes is how many datagrams test a cut.
const probes = 5

// reaches proves that datagrams from a host to a node arrive or not, and that its
// answers come back or not.
func (x *run) reaches(from *netlab.Host, dev string, to *livelab.Node, toDev string, there, back bool) {
	t, b, err := watch.Reach(from, dev, x.echo[to.Node], toDev, probes)
	if err != nil {
		x.proof(false, "%s %s -> %s %s: %v", from.Name(), dev, to.Node, toDev, err)
		return
	}
	x.proof((t > 0) == there && (b > 0) == back, "%s %s -> %s %s: %d of %d arrive, %d answers come back",
		from.Name(), dev, to.Node, toDev, t, probes, b)
}

func pull(dev string) func(*run, *livelab.Node) (func() error, error) {
	return func(x *run, n *livelab.Node) (func() error, error) {
		if err := n.CutLink(dev); err != nil {
			return nil, err
		}
		x.noCarrier(n, dev)
		return func() error { return n.HealLink(dev) }, nil
	}
}

func setDown(dev string) func(*run, *livelab.Node) (func() error, error) {
	return func(x *run, n *livelab.Node) (func() error, error) {
		if err := n.SetDev(dev, false); err != nil {
			return nil, err
		}
		x.noCarrier(n, dev)
		return func() error { return n.SetDev(dev, true) }, nil
	}
}

func (x *run) noCarrier(n *livelab.Node, dev string) {
	up, err := n.Carrier(dev)
	x.proof(err == nil && !up, "%s of %s carries nothing", dev, n.Node)
	if p := x.peer(n); p != nil {
		x.reaches(p.Host, dev, n, dev, false, false)
	}
}

func oneWay(dir netlab.Direction) func(*run, *livelab.Node) (func() error, error) {
	return func(x *run, n *livelab.Node) (func() error, error) {
		for _, dev := range []string{"eth0", "eth1"} {
			if err := n.CutOneWay(dev, dir); err != nil {
				return nil, err
			}
		}
		if p := x.peer(n); p != nil {
			for _, dev := range []string{"eth0", "eth1"} {
				x.reaches(p.Host, dev, n, dev, dir == netlab.DropOut, false)
			}
		}
		return n.Heal, nil
	}
}

func isolate(x *run, n *livelab.Node) (func() error, error) {
	var rest []*netlab.Host
	for _, o := range x.Nodes {
		if o != n {
			rest = append(rest, o.Host)
		}
	}
	if err := x.Lab.Partition([]*netlab.Host{n.Host}, rest); err != nil {
		return nil, err
	}
	if p := x.peer(n); p != nil {
		for _, dev := range []string{"eth0", "eth1"} {
			x.reaches(p.Host, dev, n, dev, false, false)
			x.reaches(n.Host, dev, p, dev, false, false)
		}
		x.reaches(x.Client, "eth0", n, "eth1", true, true) // clients reach both sides
	}
	return func() error { return x.Lab.Partition() }, nil
}

func hangDisk(x *run, n *livelab.Node) (func() error, error) {
	x.set(x.mayExit, n, true)
	if err := n.Disk.Freeze(); err != nil {
		return nil, err
	}
	x.proof(n.Disk.Hangs(50*time.Millisecond), "a write to %s's disk waits", n.Node)
	return n.Disk.Thaw, nil
}

// lose drops frames on both links of a node, each way.
func lose(percent int) breakage {
	return breakage{
		name: fmt.Sprintf("loss of %d %%", percent), hold: (*draw).past,
		inject: func(x *run, n *livelab.Node) (func() error, error) {
			for _, dev := range []string{"eth0", "eth1"} {
				if err := n.Loss(dev, percent); err != nil {
					return nil, err
				}
			}
			x.loses(n, percent)
			return n.Heal, nil
		},
	}
}

// loses proves a rate of loss: of datagrams and their answers together, within what
// chance allows.
func (x *run) loses(n *livelab.Node, percent int) {
	p := x.peer(n)
	if p == nil {
		return
	}
	const each = 400
	got := 0
	for _, dev := range []string{"eth0", "eth1"} {
		_, back, err := watch.Reach(p.Host, dev, x.echo[n.Node], dev, each)
		if err != nil {
			x.proof(false, "%v", err)
			return
		}
		got += back
	}
	keep := float64(100-percent) / 100
	lost := 1 - float64(got)/(2*each)
	want := 1 - keep*keep
	x.proof(lost > want/3 && lost < 2*want+0.02, "%.1f %% of round trips are lost, about %.1f %% were to be", 100*lost, 100*want)
}
