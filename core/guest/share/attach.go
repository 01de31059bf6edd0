//go:build linux

package share

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"capsem/core/guest/layout"
)

// fuseMagic is the type of FUSE in statfs: FUSE_SUPER_MAGIC of linux/magic.h.
const fuseMagic = 0x65735546

// Attach mounts a shared directory for good, over what an agent that has died may have left there.
func Attach(ctx context.Context, opts Options) error {
	if err := detachStale(opts.Dir); err != nil {
		return err
	}
	if err := os.MkdirAll(opts.Dir, 0o755); err != nil {
		return fmt.Errorf("make mount point: %w", err)
	}
	if !opts.Furnish {
		_, err := Start(ctx, opts)
		return err
	}
	staged := opts
	staged.Dir = filepath.Join(layout.RunDir, "furnished")
	if err := detachStale(staged.Dir); err != nil {
		return err
	}
	if err := os.MkdirAll(staged.Dir, 0o755); err != nil {
		return fmt.Errorf("make mount point: %w", err)
	}
	m, err := Start(ctx, staged)
	if err == nil {
		err = furnish(opts.Dir, staged.Dir)
	}
	if err == nil {
		err = unix.Mount(staged.Dir, opts.Dir, "", unix.MS_BIND, "")
	}
	if err == nil {
		err = unix.Unmount(staged.Dir, 0)
	}
	if err != nil && m != nil {
		err = errors.Join(err, m.Close())
	}
	if err != nil {
		return fmt.Errorf("mount %s: %w", opts.Dir, err)
	}
	return nil
}

// detachStale takes away FUSE mounts without a server.
func detachStale(dir string) error {
	for {
		var st unix.Statfs_t
		err := unix.Statfs(dir, &st)
		if !errors.Is(err, unix.ENOTCONN) && (err != nil || st.Type != fuseMagic) {
			return nil // nothing is there, or nothing of ours
		}
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			return fmt.Errorf("unmount what was left at %s: %w", dir, err)
		}
	}
}

// furnish copies a directory into an empty one.
func furnish(from, to string) error {
	entries, err := os.ReadDir(to)
	if err != nil || len(entries) > 0 {
		return err //nolint:wrapcheck // names the file
	}
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		return fmt.Errorf("furnish: %w", err)
	}
	return nil
}
