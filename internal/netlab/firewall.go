package netlab

import (
	"errors"
	"fmt"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// BlockPort has the host's own firewall drop what comes in for a port: proto is
// unix.IPPROTO_TCP or unix.IPPROTO_UDP. Several add up; OpenPorts ends them.
func (h *Host) BlockPort(proto byte, port uint16) error {
	return h.firewall(func(c *nftables.Conn, table *nftables.Table, chain *nftables.Chain) {
		c.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: []expr.Any{
			&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1},
			&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{proto}},
			&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
			&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binaryutil.BigEndian.PutUint16(port)},
			&expr.Verdict{Kind: expr.VerdictDrop},
		}})
	})
}

// OpenPorts ends what BlockPort began.
func (h *Host) OpenPorts() error {
	return h.firewall(func(c *nftables.Conn, _ *nftables.Table, chain *nftables.Chain) { c.FlushChain(chain) })
}

func (h *Host) firewall(edit func(*nftables.Conn, *nftables.Table, *nftables.Chain)) error {
	err := h.Do(func() (err error) {
		c, err := nftables.New(nftables.AsLasting())
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, c.CloseLasting()) }()
		table := c.AddTable(&nftables.Table{Family: unix.NFPROTO_IPV4, Name: "lab"})
		accept := nftables.ChainPolicyAccept
		chain := c.AddChain(&nftables.Chain{
			Name: "firewall", Table: table, Type: nftables.ChainTypeFilter,
			Hooknum: nftables.ChainHookInput, Priority: nftables.ChainPriorityFilter, Policy: &accept,
		})
		edit(c, table, chain)
		return c.Flush()
	})
	if err != nil {
		return fmt.Errorf("write the firewall of host %s: %w", h.name, err)
	}
	return nil
}
