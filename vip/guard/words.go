package guard

import (
	"fmt"
	"os"
	"sync/atomic"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// words is the memory of an mmapable array map of 64-bit values.
type words struct{ mem []byte }

func mapWords(m *ebpf.Map) (words, error) {
	page := os.Getpagesize()
	size := (int(m.MaxEntries())*8 + page - 1) / page * page
	mem, err := unix.Mmap(m.FD(), 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return words{}, fmt.Errorf("map the memory of %s: %w", m, err)
	}
	return words{mem}, nil
}

// at is word i, shared with the kernel.
func (w words) at(i uint32) *atomic.Uint64 {
	b := w.mem[i*8 : i*8+8]
	return (*atomic.Uint64)(unsafe.Pointer(&b[0]))
}

// forward moves word 0 to v unless it is there or further.
func (w words) forward(v uint64) {
	p := w.at(0)
	for {
		old := p.Load()
		if v <= old || p.CompareAndSwap(old, v) {
			return
		}
	}
}
