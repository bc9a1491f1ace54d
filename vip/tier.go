package vip

import (
	"fmt"

	"hanode/vip/guard"
)

// guardTries is for devices that vanish between being listed and guarded.
const guardTries = 3

func (h *host) openGuard() (err error) {
	if h.opts.bare {
		h.guard, h.tier = guard.None{}, TierNone
		h.devs, err = h.rtnl.links()
		return err
	}
	tiers := []Tier{TierEBPF, TierNftables, TierNone}
	if h.opts.Force != TierAuto {
		tiers = []Tier{h.opts.Force}
	}
	for _, t := range tiers {
		for range guardTries {
			if err = h.tryGuard(t); err == nil {
				break
			}
		}
		if err == nil {
			h.tier = t
			h.log.Info("guard ready", "tier", t, "by", h.guard.Kind(), "why", h.why)
			return nil
		}
		if h.why != "" {
			h.why += "; "
		}
		h.why += t.String() + ": " + err.Error()
	}
	return fmt.Errorf("no guard: %w", err)
}

func (h *host) tryGuard(t Tier) (err error) {
	if h.devs, err = h.rtnl.links(); err != nil {
		return err
	}
	cfg := guard.Config{
		Thread: h.thread, Clock: h.opts.Clock, Log: h.log, Devs: h.devs.toGuard(), Clsact: h.opts.clsact,
	}
	for a := range h.known {
		cfg.Closed = append(cfg.Closed, a)
	}
	switch t {
	case TierEBPF:
		h.guard, err = guard.OpenEBPF(cfg)
	case TierNftables:
		h.guard, err = guard.OpenNft(cfg)
	case TierNone:
		h.guard = guard.None{}
		if err := guard.RemoveAll(cfg); err != nil {
			h.log.Warn("an older guard may keep addresses closed", "err", err)
		}
	default:
		return fmt.Errorf("there is no tier %d", t)
	}
	return err
}
