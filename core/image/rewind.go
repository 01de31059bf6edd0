package image

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"capsem/core/atomicfile"
	"capsem/core/checkpoint"
	"capsem/core/paths"
)

// suspended is the name under which core/checkpoint keeps memory; one that is empty counts as none.
const suspended = "suspended"

// Stage copies what a VM is to be rewound to beside what it has, which stays as it is.
func (i *Image) Stage(vm paths.VM) error {
	temp := vm.Rewind() + newSuffix
	err := errors.Join(os.RemoveAll(temp), os.Mkdir(temp, 0o700))
	if err == nil {
		err = i.Place(temp, true)
	}
	for _, part := range []string{suspended, workspace} { // each part is there, so that what is not needed any more is replaced too
		if made := os.Mkdir(filepath.Join(temp, part), 0o700); err == nil && !errors.Is(made, fs.ErrExist) {
			err = made
		}
	}
	if err == nil {
		err = syncFile(filepath.Join(temp, diskFile))
	}
	if err != nil {
		return errors.Join(fmt.Errorf("rewind: %w", err), os.RemoveAll(temp))
	}
	return nil
}

func syncFile(name string) error {
	f, err := os.Open(name)
	if err != nil {
		return err //nolint:wrapcheck // by the caller
	}
	return errors.Join(f.Sync(), f.Close())
}

// Unstage forgets what Stage has made.
func Unstage(vm paths.VM) error {
	if err := os.RemoveAll(vm.Rewind() + newSuffix); err != nil {
		return fmt.Errorf("rewind: %w", err)
	}
	return nil
}

// Commit is the moment at which a VM without a worker is rewound: FinishRewind completes it, also after a crash.
func Commit(vm paths.VM) error {
	err := os.RemoveAll(vm.Rewind())
	if err == nil {
		err = os.Rename(vm.Rewind()+newSuffix, vm.Rewind())
	}
	if err == nil {
		err = atomicfile.SyncDir(vm.Dir())
	}
	if err != nil {
		return fmt.Errorf("rewind: %w", err)
	}
	return nil
}

// Rewinding reports whether a VM was committed to a rewind that is not complete.
func Rewinding(vm paths.VM) bool {
	_, err := os.Lstat(vm.Rewind())
	return err == nil
}

// FinishRewind moves what Commit has decided to where the VM has it, and says whether the VM goes on from memory. It can be cut
// short and done again at any point. done is called before the last trace of it is removed.
func FinishRewind(vm paths.VM, done func(memory bool) error) error {
	err := checkpoint.Discard(vm.Dir(), false)
	for _, part := range []string{suspended, workspace, diskFile} {
		if err == nil {
			err = swap(filepath.Join(vm.Rewind(), part), filepath.Join(vm.Dir(), part))
		}
	}
	if err == nil {
		err = atomicfile.SyncDir(vm.Dir())
	}
	if err == nil {
		err = done(checkpoint.Exists(vm.Dir()))
	}
	if err == nil {
		err = os.RemoveAll(vm.Rewind())
	}
	if err != nil {
		return fmt.Errorf("rewind: %w", err)
	}
	return nil
}

// swap puts a new part in the place of the old one, which it keeps beside the new one's place: RemoveAll takes long for a large
// workspace, and nothing may be missing meanwhile.
func swap(from, to string) error {
	if _, err := os.Lstat(from); errors.Is(err, fs.ErrNotExist) {
		return nil // that was done before
	}
	if err := os.RemoveAll(from + goneSuffix); err != nil {
		return err //nolint:wrapcheck // names the file
	}
	if err := os.Rename(to, from+goneSuffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err //nolint:wrapcheck // names the file
	}
	return os.Rename(from, to) //nolint:wrapcheck // names the file
}
