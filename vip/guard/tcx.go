package guard

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"
)

func nativeUint32(b []byte) uint32 { return binary.NativeEndian.Uint32(b) }

// tcx attaches by pinned tcx links. A link dies with its last holder: the pin
// is what makes it outlive the process.
type tcx struct {
	cfg  Config
	objs *progObjects
	dir  string
	ids  map[string]ebpf.ProgramID // by pin name: what we attached there
}

// side is one of the two hooks of a device.
type side struct {
	name   string
	attach ebpf.AttachType
}

var sides = [2]side{{"in", ebpf.AttachTCXIngress}, {"out", ebpf.AttachTCXEgress}}

func newTCX(cfg Config, objs *progObjects) (*tcx, error) {
	dir, err := pinDir(cfg.Thread.Inode())
	if err != nil {
		return nil, err
	}
	t := &tcx{cfg: cfg, objs: objs, dir: dir, ids: map[string]ebpf.ProgramID{}}
	// A query asks the kernel whether it knows tcx at all; device 1 is lo.
	err = cfg.Thread.Do(func() error {
		_, err := link.QueryPrograms(link.QueryOptions{Target: 1, Attach: ebpf.AttachTCXIngress})
		return err
	})
	if err != nil && !errors.Is(err, unix.ENODEV) {
		return nil, fmt.Errorf("this kernel has no tcx: %w", err)
	}
	return t, nil
}

func pinName(index int, s side) string { return strconv.Itoa(index) + "-" + s.name }

func (t *tcx) ensure(dev Device, again bool) (repaired string, err error) {
	err = t.cfg.Thread.Do(func() error {
		for i, s := range sides {
			what, err := t.ensureSide(dev, s, i)
			if err != nil {
				return fmt.Errorf("%s: %w", s.name, err)
			}
			if again && what != "" {
				repaired = what
			}
		}
		return nil
	})
	return repaired, err
}

func (t *tcx) ensureSide(dev Device, s side, i int) (what string, err error) {
	name := pinName(dev.Index, s)
	if what, err = t.verify(dev, s); err != nil || what == "" {
		return what, err
	}
	if _, ours := t.ids[name]; !ours { // first time in this incarnation
		if err := t.takeOver(name, t.program(t.objs.GuardIn, t.objs.GuardOut, i)); err == nil {
			if left, err := t.verify(dev, s); err != nil || left == "" {
				return what, err
			}
		}
	}
	return what, t.attach(dev, s, i)
}

func (t *tcx) program(in, out *ebpf.Program, i int) *ebpf.Program {
	if i == 0 {
		return in
	}
	return out
}

// verify says what is wrong at a hook, "" for nothing: our program there, first,
// and pinned.
func (t *tcx) verify(dev Device, s side) (string, error) {
	name := pinName(dev.Index, s)
	res, err := link.QueryPrograms(link.QueryOptions{Target: dev.Index, Attach: s.attach})
	if err != nil {
		return "", fmt.Errorf("query tcx: %w", err)
	}
	id, ours := t.ids[name]
	if !ours {
		return "not attached yet", nil
	}
	if _, err := os.Lstat(filepath.Join(t.dir, name)); err != nil {
		return "the pin was gone", nil
	}
	for n, p := range res.Programs {
		if p.ID == id && n == 0 {
			return "", nil
		}
		if p.ID == id {
			return "another program had gone ahead of the guard", nil
		}
	}
	return "the program was gone", nil
}

// takeOver makes an older incarnation's pinned link run our program: one atomic
// step, no packet sees neither.
func (t *tcx) takeOver(name string, p *ebpf.Program) error {
	l, err := link.LoadPinnedLink(filepath.Join(t.dir, name), nil)
	if err != nil {
		return err
	}
	defer l.Close()
	if err := l.Update(p); err != nil { // ENOLINK: its device is gone
		return err
	}
	return t.note(name, p)
}

func (t *tcx) note(name string, p *ebpf.Program) error {
	info, err := p.Info()
	if err != nil {
		return fmt.Errorf("program info: %w", err)
	}
	id, ok := info.ID()
	if !ok {
		return errors.New("the kernel does not number programs")
	}
	t.ids[name] = id
	return nil
}

// attach puts a new link at the head and its pin in place of the old one, whose
// link ends with that. The program is loaded once more on the same maps, because
// the kernel refuses the same program twice at one hook and the old link must
// stay until the new one is there.
func (t *tcx) attach(dev Device, s side, i int) error {
	var fresh progPrograms
	err := loadProgObjects(&fresh, &ebpf.CollectionOptions{MapReplacements: map[string]*ebpf.Map{
		progMapVips: t.objs.Vips, progMapOpened: t.objs.Opened, progMapLease: t.objs.Lease, progMapDrops: t.objs.Drops,
	}})
	if err != nil {
		return fmt.Errorf("load the eBPF guard again: %w", err)
	}
	defer fresh.Close()
	p := t.program(fresh.GuardIn, fresh.GuardOut, i)
	l, err := link.AttachTCX(link.TCXOptions{Interface: dev.Index, Program: p, Attach: s.attach, Anchor: link.Head()})
	if err != nil {
		return err
	}
	defer l.Close()
	name := pinName(dev.Index, s)
	path := filepath.Join(t.dir, name)
	half := path + "-new" // bpffs refuses dots in names
	if err := os.Remove(half); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove a half-made pin: %w", err)
	}
	if err := os.MkdirAll(t.dir, 0o700); err != nil {
		return fmt.Errorf("pin: %w", err)
	}
	if err := l.Pin(half); err != nil {
		return fmt.Errorf("pin: %w", err)
	}
	if err := os.Rename(half, path); err != nil {
		return fmt.Errorf("pin: %w", err)
	}
	return t.note(name, p)
}

func (t *tcx) drop(index int) error {
	var errs []error
	for _, s := range sides {
		name := pinName(index, s)
		delete(t.ids, name)
		if err := os.Remove(filepath.Join(t.dir, name)); err != nil && !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func (t *tcx) leftover() []int {
	entries, err := os.ReadDir(t.dir)
	if err != nil {
		return nil
	}
	var out []int
	for _, e := range entries {
		num, _, _ := strings.Cut(e.Name(), "-")
		if index, err := strconv.Atoi(num); err == nil {
			out = append(out, index)
		}
	}
	return out
}

func (t *tcx) kind() string { return "tcx" }

func (t *tcx) close() {}

// removePins detaches what an older incarnation attached by tcx. One that was root may
// have left pins where an agent that is not cannot look; its unit has them removed.
func removePins(cfg Config) error {
	for _, root := range []string{hostBPFFS, ownBPFFS} {
		if !isBPFFS(root) || unix.Access(root, unix.X_OK) != nil {
			continue
		}
		dir := filepath.Join(root, "hanode", strconv.FormatUint(cfg.Thread.Inode(), 10))
		if err := os.RemoveAll(dir); err != nil {
			return fmt.Errorf("remove the pins of an older guard: %w", err)
		}
	}
	return nil
}
