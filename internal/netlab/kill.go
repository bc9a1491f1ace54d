package netlab

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// Pids lists the processes on the host, by the network namespace they are in:
// also daemons that no longer have anything to do with what Start started. This
// program is never among them.
func (h *Host) Pids() ([]int, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.ns == nil {
		return nil, nil
	}
	return pidsIn(h.ns.id)
}

func pidsIn(id nsID) ([]int, error) {
	dir, err := os.Open("/proc")
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	var pids []int
	for _, name := range names {
		pid, err := strconv.Atoi(name)
		if err == nil && pid != os.Getpid() && isIn(pid, id) {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

// isIn reports whether pid lives in the namespace; a zombie lives nowhere.
func isIn(pid int, id nsID) bool {
	var st unix.Stat_t
	if unix.Stat("/proc/"+strconv.Itoa(pid)+"/ns/net", &st) != nil {
		return false
	}
	return nsID{st.Dev, st.Ino} == id
}

// killIn kills until nothing is left in the namespace: a process may fork while
// its namespace is being read. It returns once all are dead or the time is up.
func killIn(id nsID, deadline time.Time) error {
	for {
		pids, err := pidsIn(id)
		if err != nil || len(pids) == 0 {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("processes %v survive SIGKILL", pids)
		}
		var dying []unix.PollFd
		var errs []error
		for _, pid := range pids {
			fd, err := kill(pid, id)
			if err != nil {
				errs = append(errs, err)
			} else if fd >= 0 {
				dying = append(dying, unix.PollFd{Fd: int32(fd), Events: unix.POLLIN})
			}
		}
		errs = append(errs, awaitDeath(dying, deadline))
		if err := errors.Join(errs...); err != nil {
			return err
		}
	}
}

// kill sends SIGKILL to pid if it still is the process that was seen in the
// namespace, and returns a descriptor that is readable once it is dead; -1 if
// there is nothing to wait for.
func kill(pid int, id nsID) (int, error) {
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return -1, nil
	}
	if err != nil {
		return -1, fmt.Errorf("hold process %d: %w", pid, err)
	}
	if !isIn(pid, id) {
		return -1, unix.Close(fd)
	}
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return -1, errors.Join(fmt.Errorf("kill process %d: %w", pid, err), unix.Close(fd))
	}
	return fd, nil
}

// awaitDeath waits for every descriptor and closes them.
func awaitDeath(dying []unix.PollFd, deadline time.Time) error {
	var errs []error
	for i := range dying {
		one := dying[i : i+1]
		for left := time.Until(deadline); left > 0; left = time.Until(deadline) {
			n, err := unix.Poll(one, int(left.Milliseconds())+1)
			if n > 0 {
				break
			}
			if err != nil && !errors.Is(err, unix.EINTR) {
				errs = append(errs, fmt.Errorf("wait for a killed process: %w", err))
				break
			}
		}
		errs = append(errs, unix.Close(int(one[0].Fd)))
	}
	return errors.Join(errs...)
}
