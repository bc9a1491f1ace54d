// Package atomicfile replaces a small file so that a crash at any instant leaves
// either the old content or the new, whole and on the disk.
package atomicfile

import (
	"errors"
	"os"
	"path/filepath"
)

// Write replaces path by b with mode 0600. On error the old file is as it was.
func Write(path string, b []byte) error {
	if err := replace(path, b, (*os.File).Sync); err != nil {
		return err
	}
	return SyncDir(filepath.Dir(path))
}

// WriteUnsynced is Write for what counts only while the host is up: the file outlives its
// writer at once, and waits for no disk. If the host goes down it may be lost, or empty.
func WriteUnsynced(path string, b []byte) error {
	return replace(path, b, func(*os.File) error { return nil })
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
