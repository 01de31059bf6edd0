package image

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"capsem/core/atomicfile"
	"capsem/core/checkpoint"
	"capsem/core/fault"
	"capsem/core/paths"
	"capsem/core/tree"
)

// suspended is the name under which core/checkpoint keeps memory; one that is empty counts as none.
const suspended = "suspended"

// Stage copies what a VM is to be rewound to beside what it has, which stays as it is.
func (i *Image) Stage(vm paths.VM) error {
	temp := vm.Rewind() + newSuffix
	err := errors.Join(tree.Remove(temp), os.Mkdir(temp, 0o700))
	if err == nil {
		err = i.place(temp, true)
	}
	if err == nil && checkpoint.Exists(temp) && errors.Is(checkpoint.Check(temp), checkpoint.ErrMisfit) {
		err = fault.New(fault.Conflict, "checkpoint %s is damaged: what it has of the VM's memory has changed", i.Name).
			WithHint("the VM is as it was; capsem checkpoint --delete VM %s removes it", i.Name)
	}
	for _, part := range []string{suspended, workspace} { // each part is there, so that what is not needed any more is replaced too
		if made := os.Mkdir(filepath.Join(temp, part), 0o700); err == nil && !errors.Is(made, fs.ErrExist) {
			err = made
		}
	}
	if err == nil {
		err = syncTree(temp)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("rewind: %w", err), tree.Remove(temp))
	}
	return nil
}

// Unstage forgets what Stage has made, and removes what a crash has left of rewinds that were given up.
func Unstage(vm paths.VM) error {
	if err := errors.Join(tree.Remove(vm.Rewind()+newSuffix), tree.Remove(vm.Rewind()+goneSuffix)); err != nil {
		return fmt.Errorf("rewind: %w", err)
	}
	return nil
}

// Commit is the moment at which a VM without a worker is rewound: FinishRewind completes it, also after a crash.
func Commit(vm paths.VM) error {
	err := giveUp(vm)
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

// giveUp removes what a VM was to be rewound to, or what is left of that. It loses its name first: what is half removed must not look
// like a rewind that is to be completed.
func giveUp(vm paths.VM) error {
	gone := vm.Rewind() + goneSuffix
	err := tree.Remove(gone)
	if err == nil {
		err = os.Rename(vm.Rewind(), gone)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = atomicfile.SyncDir(vm.Dir())
	}
	if err == nil {
		err = tree.Remove(gone)
	}
	return err //nolint:wrapcheck // by the caller
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
		err = giveUp(vm)
	}
	if err != nil {
		return fmt.Errorf("rewind: %w", err)
	}
	return nil
}

// swap puts a new part in the place of the old one, which it keeps beside the new one's place: removing takes long for a large
// workspace, and nothing may be missing meanwhile.
func swap(from, to string) error {
	if _, err := os.Lstat(from); errors.Is(err, fs.ErrNotExist) {
		return nil // that was done before
	}
	if err := tree.Remove(from + goneSuffix); err != nil {
		return err //nolint:wrapcheck // names the file
	}
	if err := move(to, from+goneSuffix); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return move(from, to)
}

// move renames a file or directory to another directory. A directory without permissions has them meanwhile: what is moved must be
// writable, as its ".." changes.
func move(from, to string) error {
	info, err := os.Lstat(from)
	if err != nil {
		return err //nolint:wrapcheck // names the file
	}
	mode := info.Mode().Perm()
	if !info.IsDir() || mode&0o700 == 0o700 {
		return os.Rename(from, to) //nolint:wrapcheck // names the file
	}
	if err := os.Chmod(from, mode|0o700); err != nil { // our own directory holds it: nobody swaps it for a link
		return err //nolint:wrapcheck // names the file
	}
	if err := os.Rename(from, to); err != nil {
		return errors.Join(err, os.Chmod(from, mode))
	}
	return os.Chmod(to, mode) //nolint:wrapcheck // names the file
}
