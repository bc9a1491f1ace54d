package netlab

import (
	"fmt"
	"maps"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// Direction of the frames a one-way cut loses, seen from the host.
type Direction uint8

const (
	DropIn   Direction          = 1 << iota // frames to the host are lost; what it sends arrives
	DropOut                                 // frames from the host are lost; it still hears the others
	DropBoth = DropIn | DropOut             // as a pulled cable, but the link stays up
)

// faults is what a switch does to frames, by port name.
type faults struct {
	oneWay map[string]Direction
	loss   map[string]int // percent lost, each way
	group  map[string]int // partition; a port in none talks to all
	noARP  map[string]bool
}

func newFaults() faults {
	return faults{oneWay: map[string]Direction{}, loss: map[string]int{}, group: map[string]int{}, noARP: map[string]bool{}}
}

// rule drops percent of the frames that enter by port in and leave by port out;
// "" is any port.
type rule struct {
	in, out string
	percent int
	arp     bool // only ARP
}

// rules is the whole list for a switch, in a fixed order.
func (f faults) rules() []rule {
	var list []rule
	for _, p := range slices.Sorted(maps.Keys(f.oneWay)) {
		if f.oneWay[p]&DropOut != 0 {
			list = append(list, rule{in: p, percent: 100})
		}
		if f.oneWay[p]&DropIn != 0 {
			list = append(list, rule{out: p, percent: 100})
		}
	}
	ports := slices.Sorted(maps.Keys(f.group))
	for _, p := range ports {
		for _, q := range ports {
			if f.group[p] != f.group[q] {
				list = append(list, rule{in: p, out: q, percent: 100})
			}
		}
	}
	for _, p := range slices.Sorted(maps.Keys(f.loss)) {
		if f.loss[p] > 0 {
			list = append(list, rule{in: p, percent: f.loss[p]}, rule{out: p, percent: f.loss[p]})
		}
	}
	for _, p := range slices.Sorted(maps.Keys(f.noARP)) {
		list = append(list, rule{out: p, percent: 100, arp: true})
	}
	return list
}

func (r rule) exprs() []expr.Any {
	var e []expr.Any
	match := func(key expr.MetaKey, name string) {
		if name == "" {
			return
		}
		padded := make([]byte, unix.IFNAMSIZ)
		copy(padded, name)
		e = append(e,
			&expr.Meta{Key: key, Register: 1},
			&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: padded})
	}
	match(expr.MetaKeyIIFNAME, r.in)
	match(expr.MetaKeyOIFNAME, r.out)
	if r.arp {
		e = append(e,
			&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseLLHeader, Offset: 12, Len: 2},
			&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binaryutil.BigEndian.PutUint16(unix.ETH_P_ARP)})
	}
	if r.percent < 100 {
		e = append(e,
			&expr.Numgen{Register: 1, Type: unix.NFT_NG_RANDOM, Modulus: 100},
			&expr.Byteorder{SourceRegister: 1, DestRegister: 1, Op: expr.ByteorderHton, Len: 4, Size: 4},
			&expr.Cmp{Op: expr.CmpOpLt, Register: 1, Data: binaryutil.BigEndian.PutUint32(uint32(r.percent))})
	}
	return append(e, &expr.Verdict{Kind: expr.VerdictDrop})
}

// change edits the faults and puts the new rules on the bridge in one
// transaction: no frame sees half of them.
func (s *vswitch) change(edit func(*faults)) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	edit(&s.faults)
	table := s.nft.AddTable(&nftables.Table{Family: nftables.TableFamilyBridge, Name: "lab"})
	accept := nftables.ChainPolicyAccept
	chain := s.nft.AddChain(&nftables.Chain{
		Name: "faults", Table: table, Type: nftables.ChainTypeFilter,
		Hooknum: nftables.ChainHookForward, Priority: nftables.ChainPriorityFilter, Policy: &accept,
	})
	s.nft.FlushChain(chain)
	for _, r := range s.faults.rules() {
		s.nft.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: r.exprs()})
	}
	if err := s.nft.Flush(); err != nil {
		return fmt.Errorf("write the bridge rules of switch %s: %w", s.name, err)
	}
	return nil
}
