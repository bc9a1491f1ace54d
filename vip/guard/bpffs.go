package guard

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// Where pins may live, in order of preference.
const (
	hostBPFFS = "/sys/fs/bpf"
	ownBPFFS  = "/run/hanode/bpf"
)

// errNoPins says that links cannot be pinned so that they outlive the process.
var errNoPins = errors.New("no bpffs that outlives this process")

// pinDir returns the folder for the pins of one network namespace, made if need
// be. It mounts a bpffs only in the mount namespace of process 1: one mounted
// elsewhere ends with the processes there, its pins with it, and the guard with
// the pins, at the very moment it is needed.
func pinDir(inode uint64) (string, error) {
	root, err := bpffs()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(root, "hanode", strconv.FormatUint(inode, 10))
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", fmt.Errorf("%w: %w", errNoPins, err)
	}
	return dir, nil
}

func bpffs() (string, error) {
	for _, d := range []string{hostBPFFS, ownBPFFS} {
		if isBPFFS(d) && unix.Access(d, unix.W_OK) == nil {
			return d, nil
		}
	}
	own, err1 := os.Readlink("/proc/self/ns/mnt")
	first, err2 := os.Readlink("/proc/1/ns/mnt")
	if err := errors.Join(err1, err2); err != nil {
		return "", fmt.Errorf("%w: %w", errNoPins, err)
	}
	if own != first {
		return "", fmt.Errorf("%w: %s is not a bpffs and this mount namespace is private", errNoPins, hostBPFFS)
	}
	if err := os.MkdirAll(ownBPFFS, 0o700); err != nil {
		return "", fmt.Errorf("%w: %w", errNoPins, err)
	}
	if err := unix.Mount("bpf", ownBPFFS, "bpf", 0, "mode=0700"); err != nil {
		return "", fmt.Errorf("%w: mount %s: %w", errNoPins, ownBPFFS, err)
	}
	return ownBPFFS, nil
}

func isBPFFS(dir string) bool {
	var st unix.Statfs_t
	return unix.Statfs(dir, &st) == nil && uint32(st.Type) == unix.BPF_FS_MAGIC
}
