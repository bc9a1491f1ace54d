package robustness

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"hanode/internal/netlab"
	"hanode/internal/netlab/watch"
	"hanode/test/livelab"
)

// single breaks the target, holds, heals.
func single(b breakage) func(*run) error {
	return func(x *run) error {
		heal, err := x.breaks(b, x.target)
		if err != nil {
			return err
		}
		x.wait(b.hold(x.draw))
		return x.heals(b, x.target, heal)
	}
}

// breaks injects a fault and writes it down.
func (x *run) breaks(b breakage, n *livelab.Node) (func() error, error) {
	x.line.now("fault", "%s: %s", n.Node, b.name)
	x.broken[n.Node] = true
	heal, err := b.inject(x, n)
	if err != nil {
		return nil, fmt.Errorf("%s of %s: %w", b.name, n.Node, err)
	}
	return heal, nil
}

func (x *run) heals(b breakage, n *livelab.Node, heal func() error) error {
	x.line.now("fault", "%s: end of %s", n.Node, b.name)
	delete(x.broken, n.Node)
	if err := heal(); err != nil {
		return fmt.Errorf("heal %s of %s: %w", b.name, n.Node, err)
	}
	return nil
}

// pairCut lets two nodes hear each other no more; both hear the third.
func pairCut(x *run) error {
	i := x.draw.IntN(len(x.Nodes))
	a, b := x.Nodes[i], x.Nodes[(i+1)%len(x.Nodes)]
	third := x.Nodes[(i+2)%len(x.Nodes)]
	x.line.now("fault", "%s and %s do not hear each other", a.Node, b.Node)
	if err := x.Lab.Partition([]*netlab.Host{a.Host}, []*netlab.Host{b.Host}); err != nil {
		return err
	}
	for _, dev := range []string{"eth0", "eth1"} {
		x.reaches(a.Host, dev, b, dev, false, false)
		x.reaches(a.Host, dev, third, dev, true, true)
	}
	x.wait(x.draw.past())
	x.line.now("fault", "they hear each other again")
	return x.Lab.Partition()
}

// lossEverywhere loses frames on every link of every node.
func lossEverywhere(percent int) func(*run) error {
	return func(x *run) error {
		x.line.now("fault", "%d %% of frames are lost on every link", percent)
		for _, n := range x.Nodes {
			if err := errors.Join(n.Loss("eth0", percent), n.Loss("eth1", percent)); err != nil {
				return err
			}
		}
		a, b := x.Nodes[0], x.Nodes[1]
		there, _, err := watch.Reach(a.Host, "eth0", x.echo[b.Node], "eth0", 400)
		keep := float64(100-percent) / 100
		got := float64(there) / 400 // two links are passed
		x.proof(err == nil && got < 1-(1-keep*keep)/3 && got > keep*keep-(1-keep*keep)-0.02, "%.1f %% arrive", 100*got)
		x.wait(x.draw.past())
		x.line.now("fault", "nothing is lost any more")
		return x.Lab.HealAll()
	}
}

// rolling restarts every agent, one after the other, each when the one before is
// back: as an upgrade does.
func rolling(how os.Signal) func(*run) error {
	return func(x *run) error {
		order := x.draw.Perm(len(x.Nodes))
		for _, i := range order {
			n := x.Nodes[i]
			p := n.Agent()
			x.line.now("fault", "%s: %v to the agent", n.Node, how)
			x.set(x.down, n, true)
			if err := errors.Join(p.Signal(how), ended(p)); err != nil {
				return err
			}
			x.line.now("fault", "%s: the agent ended: %v", n.Node, p.Wait())
			x.proof(how != os.Interrupt || p.Wait() == nil, "%s obeyed", n.Node)
			if err := x.start(n); err != nil {
				return err
			}
			if err := x.Back(n, backTime); err != nil {
				return err
			}
		}
		return nil
	}
}

// backTime is how long an agent may take to be a whole member again.
const backTime = 30 * time.Second

// duringMove breaks a node within the few ms of a switchover of web.
func duringMove(b breakage, who string) func(*run) error {
	return func(x *run) error {
		old := x.holder("web")
		for end := time.Now().Add(heldWithin); old == nil; old = x.holder("web") {
			if time.Now().After(end) {
				return errors.New("nobody holds web before the move")
			}
			time.Sleep(time.Millisecond) // the observer itself may have stood still
		}
		var to *livelab.Node
		for _, name := range x.shape.owners() {
			if name != old.Node {
				to = x.Get(name)
			}
		}
		victim := map[string]*livelab.Node{"the old owner": old, "the new owner": to, "the leader": x.leader()}[who]
		if victim == nil {
			return fmt.Errorf("there is no %s", who)
		}
		via := x.Nodes[len(x.Nodes)-1]
		if via == victim {
			via = x.Nodes[0]
		}
		offset := x.draw.between(0, 5*time.Millisecond)
		moved := make(chan error, 1)
		go func() { moved <- x.move(via, "web", to.Node) }()
		time.Sleep(offset)
		underWay := len(moved) == 0
		x.line.now("fault", "%v after move web %s", offset, to.Node)
		heal, err := x.breaks(b, victim)
		if err != nil {
			return err
		}
		x.proof(underWay, "the move was under way")
		x.wait(b.hold(x.draw))
		err = x.heals(b, victim, heal)
		if <-moved == nil { // its acknowledgement is in the history
			x.line.now("operator", "the move was acknowledged")
		}
		return err
	}
}

// pool is what two faults in a row are drawn from.
func (x *run) pool() []breakage {
	return slices.DeleteFunc(append(singles(), lose(20)), func(b breakage) bool { return x.cannot(b) != "" })
}

// twoInARow breaks a second node while the first is broken, or just after it was
// healed.
func twoInARow(overlap bool) func(*run) error {
	return func(x *run) error {
		pool := x.pool()
		a, b := pool[x.draw.IntN(len(pool))], pool[x.draw.IntN(len(pool))]
		i := x.draw.IntN(len(x.Nodes))
		n, m := x.Nodes[i], x.Nodes[(i+1+x.draw.IntN(2))%len(x.Nodes)]
		first, second := x.draw.between(0, 3*x.draw.timing.Deadtime), b.hold(x.draw)
		if a.whole && b.whole { // there is one partition at a time
			b = stopped
		}
		healA, err := x.breaks(a, n)
		if err != nil {
			return err
		}
		x.wait(first)
		if !overlap {
			if err := x.heals(a, n, healA); err != nil {
				return err
			}
			x.wait(x.draw.between(0, 3*x.draw.timing.Deadtime))
			// Also the same node again, but for a disk that may hold its process.
			if x.draw.IntN(2) == 0 && !a.disk && !b.disk && !x.is(x.down, n) {
				m = n
			}
		}
		healB, err := x.breaks(b, m)
		if err != nil {
			return err
		}
		x.wait(second)
		if !overlap {
			return x.heals(b, m, healB)
		}
		if x.draw.IntN(2) == 0 {
			return errors.Join(x.heals(a, n, healA), x.heals(b, m, healB))
		}
		return errors.Join(x.heals(b, m, healB), x.heals(a, n, healA))
	}
}

// ackThenLose takes the leader away as soon as a command was acknowledged.
func ackThenLose(b breakage) func(*run) error {
	return func(x *run) error {
		for range 3 {
			leader := x.leader()
			if leader == nil {
				return errors.New("no leader to take away")
			}
			via := x.Nodes[x.draw.IntN(len(x.Nodes))]
			var err error
			switch x.draw.IntN(3) {
			case 0:
				err = x.maintenance(via, true)
			case 1:
				owners := x.shape.owners()
				err = x.standby(via, owners[x.draw.IntN(len(owners))], true)
			default:
				err = x.apply(via)
			}
			x.proof(err == nil, "the command was acknowledged")
			heal, err := x.breaks(b, leader)
			if err != nil {
				return err
			}
			x.wait(x.draw.some())
			// The operator is done with standby and maintenance once he looked.
			acks, lost := x.kept(x.answering())
			x.out.acked += acks
			for _, l := range lost {
				x.fail(&x.out.lost, "acknowledged, then %s of %s: %s", b.name, leader.Node, l)
			}
			if err := errors.Join(x.heals(b, leader, heal), x.tidy(backTime), x.Back(leader, backTime)); err != nil {
				return err
			}
		}
		return nil
	}
}
