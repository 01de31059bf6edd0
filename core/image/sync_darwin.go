package image

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"capsem/core/atomicfile"
	"capsem/core/tree"
)

// syncTree makes all that is in a directory durable: each file is handed to the disk, which at the end is told to keep all it has.
func syncTree(dir string) error {
	d, err := tree.Open(dir)
	if err == nil {
		err = errors.Join(syncFiles(d, 0), d.Close())
	}
	if err != nil {
		return fmt.Errorf("sync directory %s: %w", dir, err)
	}
	return atomicfile.SyncDir(dir) //nolint:wrapcheck // F_FULLFSYNC
}

func syncFiles(d *tree.Dir, depth int) error {
	names, err := d.Names()
	if err != nil || depth > maxDepth {
		return err //nolint:wrapcheck // by the caller
	}
	for _, name := range names {
		info, err := d.Lstat(name)
		if err == nil && info.Mode.IsDir() {
			err = inDir(d, name, func(sub *tree.Dir) error { return syncFiles(sub, depth+1) })
		} else if err == nil && info.Mode.IsRegular() {
			err = syncOne(d, name)
		}
		if err != nil {
			return err //nolint:wrapcheck // by the caller
		}
	}
	return d.Sync() //nolint:wrapcheck // by the caller
}

func syncOne(d *tree.Dir, name string) error {
	f, err := d.File(name)
	if err != nil {
		return err //nolint:wrapcheck // by the caller
	}
	return errors.Join(unix.Fsync(int(f.Fd())), f.Close())
}
