package vip

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"hanode/vip/guard"
)

// Cleanup removes what an agent that has ended may have left on this host: every
// address, route and rule that carries our mark or stands in vips.json, the settings of
// devices, then the guard, and the list. It touches nothing else, needs nothing that
// the agent would have to tell it, and changes nothing the second time.
//
// The guard goes last, and stays if an address does: it may be what keeps that silent.
// No Kernel may be open on the host.
func Cleanup(opts Options) (removed []Address, err error) {
	opts.bare = true
	k, err := Open(opts)
	if err != nil {
		return nil, err
	}
	h := k.(*host)
	defer h.release()
	if removed, err = h.RemoveOurs(); err != nil {
		return removed, err
	}
	h.look.RLock()
	cfg := guard.Config{Thread: h.thread, Clock: h.opts.Clock, Log: h.log, Devs: h.devs.toGuard()}
	h.look.RUnlock()
	if err := guard.RemoveAll(cfg); err != nil {
		return removed, err
	}
	if err := os.Remove(filepath.Join(opts.Dir, listName)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return removed, err
	}
	return removed, nil
}
