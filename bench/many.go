package main

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"hanode/internal/netlab/watch"
	"hanode/test/livelab"
)

// many cuts the power of the owner of o.vips addresses, in one group and in as many
// groups: when does the next owner answer for the first and for the last of them, and
// what does it cost him.
func many(o options) error {
	vips := watch.Addresses(netip.MustParseAddr("10.78.0.1"), o.vips)
	for _, shape := range []struct {
		name   string
		groups string
	}{
		{"one group", oneGroup(vips)},
		{"as many groups", manyGroups(vips)},
	} {
		fmt.Printf("many: power cut of the owner of %d addresses in %s, profile %s\n", o.vips, shape.name, o.profile)
		if err := manyIn(o, shape.groups, vips); err != nil {
			return err
		}
	}
	return nil
}

func oneGroup(vips []netip.Addr) string {
	var b strings.Builder
	b.WriteString("group \"web\" {\n  prefer = [\"primary\"]\n  failback = \"on\"\n")
	for _, a := range vips {
		fmt.Fprintf(&b, "  resource \"ip\" \"%s/16\" { dev = \"eth1\" }\n", a)
	}
	b.WriteString("}\n")
	return b.String()
}

func manyGroups(vips []netip.Addr) string {
	var b strings.Builder
	for i, a := range vips {
		fmt.Fprintf(&b, "group \"g%04d\" {\n  prefer = [\"primary\"]\n  failback = \"on\"\n  resource \"ip\" \"%s/16\" { dev = \"eth1\" }\n}\n", i, a)
	}
	return b.String()
}

func manyIn(o options, groups string, vips []netip.Addr) error {
	return onClusterWith(o, livelab.Options{Groups: groups, Level: "info"}, "many", func(c *livelab.Cluster) error {
		var f figures
		for i := range o.runs {
			if err := c.Settled(2 * time.Minute); err != nil {
				return err
			}
			if i == 0 {
				if err := idle(c, 10*time.Second); err != nil {
					return err
				}
				if err := readable(c); err != nil {
					return err
				}
			}
			if err := manyOnce(c, vips, &f, i); err != nil {
				return err
			}
		}
		for _, name := range slices.Sorted(maps.Keys(f.all)) {
			fmt.Println(" ", f.line(name))
		}
		return nil
	})
}

// readable prints how long status takes and how much it says.
func readable(c *livelab.Cluster) error {
	begin := time.Now()
	out, _, _, err := c.Get("secondary").Run("status")
	fmt.Printf("  status: %d lines in %.1f ms\n", strings.Count(out, "\n"), ms(time.Since(begin)))
	return err
}

func manyOnce(c *livelab.Cluster, vips []netip.Addr, f *figures, run int) error {
	m, err := watch.StartMany(c.Client, "eth0", vips, netip.MustParseAddr("10.77.0.250"), 100*time.Millisecond)
	if err != nil {
		return err
	}
	defer m.Stop()
	old, next := c.Get("primary"), c.Get("secondary")
	if _, err := allAnswer(m, old.MAC("eth1").String(), vips); err != nil {
		return err
	}
	pid := next.Agent().Pid
	before, err := cpu(pid)
	if err != nil {
		return err
	}
	at := time.Now()
	m.Mark()
	if err := old.PowerCut(); err != nil {
		return err
	}
	seen, err := allAnswer(m, next.MAC("eth1").String(), vips)
	if err != nil {
		return err
	}
	first, last := bounds(seen, at)
	time.Sleep(time.Second) // announcements are spaced
	_, said := m.First(next.MAC("eth1").String())
	announcedFirst, announcedLast := bounds(said, at)
	after, err := cpu(pid)
	if err != nil {
		return err
	}
	rss, err := pss(pid)
	if err != nil {
		return err
	}
	fmt.Printf("  run %2d: answers from %.0f to %.0f ms, announced from %.0f to %.0f ms (%d), CPU of the new owner %.0f ms, PSS %.0f MB\n",
		run+1, ms(first), ms(last), ms(announcedFirst), ms(announcedLast), len(said), ms(after-before), rss)
	f.add("first answer, ms", ms(first))
	f.add("last answer, ms", ms(last))
	f.add("first announcement, ms", ms(announcedFirst))
	f.add("last announcement, ms", ms(announcedLast))
	f.add("CPU of the new owner, ms", ms(after-before))
	f.add("PSS of the new owner, MB", rss)
	return powerOn(c)
}

// allAnswer waits until one host answers for every address.
func allAnswer(m *watch.Many, mac string, vips []netip.Addr) (map[netip.Addr]time.Time, error) {
	end := time.Now().Add(30 * time.Second)
	for {
		seen, _ := m.First(mac)
		if len(seen) == len(vips) {
			return seen, nil
		}
		if time.Now().After(end) {
			return nil, fmt.Errorf("%s answers for %d of %d addresses", mac, len(seen), len(vips))
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func bounds(seen map[netip.Addr]time.Time, since time.Time) (first, last time.Duration) {
	all := slices.SortedFunc(maps.Values(seen), time.Time.Compare)
	if len(all) == 0 {
		return 0, 0
	}
	return all[0].Sub(since), all[len(all)-1].Sub(since)
}
