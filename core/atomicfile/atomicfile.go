// Package atomicfile replaces small state files so that a crash, a power loss or a full disk leaves either the old content or
// the new one, never a mixture: temporary file in the same directory, fsync, rename, fsync of the directory.
package atomicfile

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"capsem/core/fault"
)

// infix marks temporary files, between the name they will get and a random word.
const infix = ".tmp-"

// Write replaces the file at path by data, with the permission bits of mode. A disk without space is a fault.NoSpace.
func Write(path string, data []byte, mode os.FileMode) error {
	return write(path, data, mode, func(string) {})
}

// write is Write with a hook that is told each step before it is done, for tests that lose power there.
func write(path string, data []byte, mode os.FileMode, before func(step string)) error {
	dir := filepath.Dir(path)
	temp := path + infix + rand.Text()
	before("create")
	f, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return explain(path, err)
	}
	err = fill(f, data, mode, before)
	before("close")
	err = errors.Join(err, f.Close())
	if err == nil {
		before("rename")
		err = os.Rename(temp, path)
	}
	if err != nil {
		return explain(path, errors.Join(err, os.Remove(temp)))
	}
	before("sync directory")
	return explain(path, SyncDir(dir))
}

func fill(f *os.File, data []byte, mode os.FileMode, before func(step string)) error {
	before("write")
	half := len(data) / 2
	if _, err := f.Write(data[:half]); err != nil {
		return err //nolint:wrapcheck // explain does
	}
	before("write the rest")
	if _, err := f.Write(data[half:]); err != nil {
		return err //nolint:wrapcheck // explain does
	}
	if err := f.Chmod(mode.Perm()); err != nil {
		return err //nolint:wrapcheck // explain does
	}
	before("sync")
	return f.Sync() //nolint:wrapcheck // explain does
}

// SyncDir makes the names in a directory durable.
func SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("sync directory: %w", err)
	}
	if err := errors.Join(d.Sync(), d.Close()); err != nil {
		return fmt.Errorf("sync directory: %w", err)
	}
	return nil
}

// Sweep removes what writers that died left in a directory. Call it only where no writer can be at work.
func Sweep(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("sweep %s: %w", dir, err)
	}
	var failed []error
	for _, e := range entries {
		if e.Type().IsRegular() && strings.Contains(e.Name(), infix) {
			failed = append(failed, os.Remove(filepath.Join(dir, e.Name())))
		}
	}
	return errors.Join(failed...)
}

func explain(path string, err error) error {
	if err == nil {
		return nil
	}
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return fault.Wrap(err, fault.NoSpace, "no space left to write %s", path).WithHint("free some space on that disk and try again")
	}
	return fmt.Errorf("write %s: %w", path, err)
}
