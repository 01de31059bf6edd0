package service

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"capsem/core/paths"
	"capsem/core/tree"
)

const (
	// newSuffix marks a VM directory that is being made, goneSuffix one that is being removed. No name of a VM has a dot.
	newSuffix, goneSuffix = ".new", ".gone"
	// keepFailed is how many unnamed VMs that died unexpectedly are kept for their logs.
	keptFailed = 5
)

// discard removes the directory of a VM. It is first renamed, so that a VM is there as a whole or not at all; between is called
// at that moment.
func discard(o *Options, dir paths.VM, between func() error) error {
	gone := dir.Dir() + goneSuffix
	err := tree.Remove(gone)
	if err == nil {
		o.step("mark directory as gone")
		err = os.Rename(dir.Dir(), gone)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove VM directory: %w", err)
	}
	if between == nil {
		between = func() error { return nil }
	}
	noted := between()
	o.step("remove directory")
	if err := tree.Remove(gone); err != nil {
		return errors.Join(noted, fmt.Errorf("remove VM directory: %w", err))
	}
	if noted != nil { // now there may be the space that it lacked
		return between()
	}
	return nil
}

// keepFailed moves the directory of an unnamed VM that died to where its logs can be read for a while. Its disk goes: it may be
// large, and nobody can name the VM any more.
func (s *Service) keepFailed(w view) error {
	to := s.opts.failed(w.spec.ID)
	if err := os.Remove(w.dir.SystemDisk()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.log.Warn("cannot remove the disk of a failed VM", "vm", w.spec.ID, "error", err)
	}
	if err := os.WriteFile(filepath.Join(w.dir.Dir(), "last_error"), []byte(w.lastError+"\n"), 0o600); err != nil {
		s.log.Warn("cannot note why a VM failed", "vm", w.spec.ID, "error", err)
	}
	if err := os.Rename(w.dir.Dir(), to.Dir()); err != nil {
		return fmt.Errorf("keep failed VM: %w", err)
	}
	now := time.Now()
	if err := os.Chtimes(to.Dir(), now, now); err != nil {
		return fmt.Errorf("keep failed VM: %w", err)
	}
	return s.pruneFailed()
}

// pruneFailed removes all but the newest failed VMs.
func (s *Service) pruneFailed() error {
	entries, err := os.ReadDir(s.opts.Home.Failed())
	if err != nil {
		return fmt.Errorf("prune failed VMs: %w", err)
	}
	age := map[string]time.Time{}
	var names []string
	for _, e := range entries {
		if info, err := e.Info(); err == nil {
			names, age[e.Name()] = append(names, e.Name()), info.ModTime()
		}
	}
	slices.SortFunc(names, func(a, b string) int { return age[b].Compare(age[a]) })
	var failed []error
	for _, name := range names[min(len(names), keptFailed):] {
		failed = append(failed, tree.Remove(filepath.Join(s.opts.Home.Failed(), name)))
	}
	return errors.Join(failed...)
}

// sweepDirs removes what a crash left of VM directories that were being made or removed.
func sweepDirs(parent string) error {
	entries, err := os.ReadDir(parent)
	if err != nil {
		return fmt.Errorf("sweep %s: %w", parent, err)
	}
	var failed []error
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), newSuffix) || strings.HasSuffix(e.Name(), goneSuffix) {
			failed = append(failed, tree.Remove(filepath.Join(parent, e.Name())))
		}
	}
	return errors.Join(failed...)
}

// maxWalk bounds how many files are looked at to tell what a VM takes on disk.
const maxWalk = 100_000

// diskUse is what a directory takes on its disk, in bytes: allocated blocks, since disks of VMs are sparse. Of one with more than
// maxWalk files it is a lower bound.
func diskUse(dir string) int64 {
	var total int64
	seen := 0
	_ = filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil {
			return nil //nolint:nilerr // what is gone takes nothing
		}
		if seen++; seen > maxWalk {
			return fs.SkipAll
		}
		if info, err := d.Info(); err == nil {
			if st, ok := info.Sys().(*syscall.Stat_t); ok {
				total += st.Blocks * 512
			}
		}
		return nil
	})
	return total
}
