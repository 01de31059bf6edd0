package snapshot

import (
	"errors"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// empty removes all that is in a directory of the store.
func empty(dir int) error {
	names, err := list(dir, "")
	if err != nil {
		return fmt.Errorf("sweep: %w", err)
	}
	var failed []error
	for _, name := range names {
		failed = append(failed, removeTree(dir, name))
	}
	if err := errors.Join(failed...); err != nil {
		return fmt.Errorf("sweep: %w", err)
	}
	return nil
}

// removeTree removes what a name in a directory of the store stands for, with all that is in it. It follows no link, and however deep a
// tree is, it holds two directories open: those inside are first moved to the top.
func removeTree(dir int, name string) error {
	todo, made := []string{name}, 0
	for len(todo) > 0 {
		name := todo[len(todo)-1]
		err := unix.Unlinkat(dir, name, 0)
		if err == nil || errors.Is(err, unix.ENOENT) {
			todo = todo[:len(todo)-1]
			continue
		}
		f, derr := openToChange(dir, name)
		if derr != nil {
			return fmt.Errorf("remove: %w", errors.Join(err, derr))
		}
		var more []string
		err = errors.Join(clearDir(f, func(child string) error {
			made++
			to := "d-" + strconv.Itoa(made) + "-" + rootOf(todo)
			more = append(more, to)
			return moveDir(int(f.Fd()), child, dir, to)
		}), f.Close())
		if err == nil {
			err = unix.Unlinkat(dir, name, unix.AT_REMOVEDIR)
		}
		if err != nil && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("remove: %w", err)
		}
		todo = append(todo[:len(todo)-1], more...)
	}
	return nil
}

// rootOf keeps names that are made while one tree is removed apart from those of others.
func rootOf(todo []string) string {
	name := todo[0]
	if len(name) > 100 {
		name = name[:100]
	}
	return name
}

// clearDir removes what is in a directory, and hands on the directories in it.
func clearDir(f *os.File, sub func(name string) error) error {
	names, err := f.Readdirnames(-1)
	if err != nil {
		return err
	}
	for _, name := range names {
		err := unix.Unlinkat(int(f.Fd()), name, 0)
		if err == nil || errors.Is(err, unix.ENOENT) {
			continue
		}
		if err := sub(name); err != nil {
			return err
		}
	}
	return nil
}

// openToChange opens a directory, and makes sure that we may change what is in it.
func openToChange(dir int, name string) (*os.File, error) {
	fd, err := openHow(dir, name, dirFlags)
	if denied(err) {
		fd, err = openAnyway(dir, name, dirFlags)
	}
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(fd), name)
	st, err := statFD(fd)
	if err == nil && st.mode&0o700 != 0o700 {
		err = unix.Fchmod(fd, st.mode|0o700)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// moveDir renames a directory to where there is nothing. One that we may not change cannot be moved, so it is made ours first.
func moveDir(fromDir int, from string, toDir int, to string) error {
	err := moveTo(fromDir, from, toDir, to)
	if !denied(err) {
		return err
	}
	f, oerr := openToChange(fromDir, from)
	if oerr != nil {
		return err
	}
	return errors.Join(f.Close(), moveTo(fromDir, from, toDir, to))
}
