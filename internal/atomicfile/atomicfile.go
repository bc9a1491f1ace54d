// Package atomicfile replaces a small file so that a crash at any instant leaves
// either the old content or the new, whole and on the disk.
package atomicfile

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
)

// Write replaces path by b with mode 0600. On error the old file is as it was.
func Write(path string, b []byte) error {
	if err := replace(path, b, (*os.File).Sync); err != nil {
		return err
	}
	return SyncDir(filepath.Dir(path))
}

// page is how much a write puts into a file whole, or not at all, when its writer is killed:
// the kernel looks for a deadly signal between two pages.
const page = 4096

// WriteUnsynced is Write for a text that counts only while the host is up: it outlives its
// writer at once, and waits for no disk. If the host goes down it may be lost, or torn. A
// shorter text is filled up with newlines: it is written into the file that is there. One
// that took the place of that by its name would be written out at once by ext4
// (auto_da_alloc), which takes milliseconds.
func WriteUnsynced(path string, b []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return replace(path, b, func(*os.File) error { return nil })
	}
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err != nil {
		return errors.Join(err, f.Close())
	}
	if rest := int(info.Size()) - len(b); rest > 0 {
		b = append(slices.Clip(b), bytes.Repeat([]byte("\n"), rest)...)
	}
	if len(b) > page {
		return errors.Join(f.Close(), replace(path, bytes.TrimRight(b, "\n"), func(*os.File) error { return nil }))
	}
	_, err = f.WriteAt(b, 0)
	return errors.Join(err, f.Close())
}

func replace(path string, b []byte, sync func(*os.File) error) error {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	err = errors.Join(err, sync(f), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}

// SyncDir makes names in a folder durable.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
