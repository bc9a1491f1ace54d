package guard

import (
	"fmt"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"

	"hanode/internal/clock"
)

// clockSlack is how far the kernel's fast reading of the boot clock, which programs
// get, may lie outside of two ordinary ones around it.
const clockSlack = time.Millisecond

// checkClock refuses a clock that is not the one the programs read: the lease would
// be written in one time and checked in another. It asks instead of reasoning,
// because a time namespace is one cause and need not be the only one.
func checkClock(clk clock.Clock) error {
	before := clk.Now().Boot
	kernel, err := kernelBoot()
	if err != nil {
		return fmt.Errorf("ask the kernel for its boot clock: %w", err)
	}
	after := clk.Now().Boot
	if kernel < before-clockSlack || kernel > after+clockSlack {
		return fmt.Errorf("the kernel's boot clock reads %v and the agent's %v; start the agent outside of time namespaces", kernel, before)
	}
	return nil
}

// kernelBoot is CLOCK_BOOTTIME as an eBPF program reads it.
func kernelBoot() (time.Duration, error) {
	m, err := ebpf.NewMap(&ebpf.MapSpec{Name: "boot", Type: ebpf.Array, KeySize: 4, ValueSize: 8, MaxEntries: 1})
	if err != nil {
		return 0, err
	}
	defer m.Close()
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "boot", Type: ebpf.SchedCLS, License: "GPL",
		Instructions: asm.Instructions{
			asm.FnKtimeGetBootNs.Call(),
			asm.LoadMapValue(asm.R1, m.FD(), 0),
			asm.StoreMem(asm.R1, 0, asm.R0, asm.DWord),
			asm.Mov.Imm(asm.R0, 0),
			asm.Return(),
		},
	})
	if err != nil {
		return 0, err
	}
	defer p.Close()
	if _, err := p.Run(&ebpf.RunOptions{Data: make([]byte, 64)}); err != nil {
		return 0, err
	}
	var ns uint64
	if err := m.Lookup(uint32(0), &ns); err != nil {
		return 0, err
	}
	return time.Duration(ns), nil
}
