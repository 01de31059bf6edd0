//go:build linux

package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"capsem/core/guest/layout"
)

// rootOverlay checks that the root is an overlay.
func rootOverlay(context.Context, *System) (string, error) {
	var st unix.Statfs_t
	if err := unix.Statfs("/", &st); err != nil {
		return "", fmt.Errorf("look at /: %w", err)
	}
	if st.Type != unix.OVERLAYFS_SUPER_MAGIC {
		return "", fmt.Errorf("/ is no overlay (type %#x)", st.Type)
	}
	free := st.Bavail * uint64(st.Bsize) //nolint:gosec // block sizes are positive
	return fmt.Sprintf("%d MiB free", free>>20), nil
}

// baseReadOnly checks that the file system under the overlay cannot be written.
func baseReadOnly(context.Context, *System) (string, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(layout.LowerDir, &st); err != nil {
		return "", fmt.Errorf("look at the base: %w", err)
	}
	if st.Flags&unix.ST_RDONLY == 0 {
		return "", errors.New("the base is mounted writable")
	}
	f, err := os.OpenFile(layout.LowerDir+"/etc/hostname", os.O_WRONLY, 0)
	if err == nil {
		return "", errors.Join(errors.New("a file of the base can be opened for writing"), f.Close())
	}
	return "mounted read-only", nil
}

// overlayWrites checks that a file written to the root can be read again.
func overlayWrites(context.Context, *System) (detail string, err error) {
	f, err := os.CreateTemp("/var", ".capsem-doctor-")
	if err != nil {
		return "", fmt.Errorf("write to /var: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close(), os.Remove(f.Name())) }()
	const text = "capsem"
	if _, err := f.WriteString(text); err != nil {
		return "", fmt.Errorf("write to /var: %w", err)
	}
	if err := f.Sync(); err != nil {
		return "", fmt.Errorf("write to /var: %w", err)
	}
	back, err := os.ReadFile(f.Name())
	if err != nil {
		return "", fmt.Errorf("read back from /var: %w", err)
	}
	if string(back) != text {
		return "", fmt.Errorf("read back from /var: %q instead of %q", back, text)
	}
	return "a file can be written and read", nil
}

// guestBinaries checks that capsem's own programs in the guest cannot be changed.
func guestBinaries(context.Context, *System) (string, error) {
	for _, name := range layout.Programs() {
		path := filepath.Join(layout.BinDir, name)
		info, err := os.Stat(path)
		if err != nil {
			return "", fmt.Errorf("look at a program: %w", err)
		}
		if info.Mode().Perm() != 0o555 {
			return "", fmt.Errorf("%s has mode %04o, not 0555", path, info.Mode().Perm())
		}
		if f, err := os.OpenFile(path, os.O_WRONLY, 0); err == nil {
			return "", errors.Join(fmt.Errorf("%s can be opened for writing", path), f.Close())
		}
	}
	probe := filepath.Join(layout.BinDir, "probe")
	if f, err := os.OpenFile(probe, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600); err == nil {
		return "", errors.Join(errors.New("a program can be added"), f.Close(), os.Remove(probe))
	}
	return fmt.Sprintf("%d programs, mode 0555, on a read-only mount", len(layout.Programs())), nil
}

// powerCommands checks that shutdown, its like and the other commands of ours reach the host.
func powerCommands(context.Context, *System) (string, error) {
	for _, link := range layout.Links() {
		target, err := os.Readlink(link.Path)
		if err != nil {
			return "", fmt.Errorf("look at a command: %w", err)
		}
		if target != link.Target() {
			return "", fmt.Errorf("%s leads to %q, which is not capsem's", link.Path, target)
		}
	}
	return "lead to the host", nil
}

// setuidLimit and setuidTime bound the search for programs that change user.
const (
	setuidLimit = 300_000
	setuidTime  = 5 * time.Second
)

var errEnough = errors.New("enough")

// noSetuid looks for such programs in the base, first where programs are.
func noSetuid(ctx context.Context, _ *System) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, setuidTime)
	defer cancel()
	n := 0
	for _, dir := range []string{"usr/bin", "usr/sbin", "usr/libexec", "usr/local", "usr/lib", "opt", "etc", "var"} {
		err := filepath.WalkDir(filepath.Join(layout.LowerDir, dir), func(path string, d fs.DirEntry, err error) error {
			switch {
			case err != nil:
				return nil //nolint:nilerr // not every directory is in every image
			case n >= setuidLimit, ctx.Err() != nil:
				return errEnough
			case !d.Type().IsRegular():
				return nil
			}
			n++
			info, err := d.Info()
			if err == nil && info.Mode()&(fs.ModeSetuid|fs.ModeSetgid) != 0 {
				return fmt.Errorf("%s changes user or group", path)
			}
			return nil
		})
		if errors.Is(err, errEnough) {
			return fmt.Sprintf("none among the first %d files", n), nil
		}
		if err != nil {
			return "", err
		}
	}
	return fmt.Sprintf("none among %d files", n), nil
}

// temporaryFiles checks that /tmp, /run and /dev/shm are in memory and writable by all where that is usual.
func temporaryFiles(context.Context, *System) (string, error) {
	for _, dir := range []string{"/tmp", "/run", "/dev/shm"} {
		var st unix.Statfs_t
		if err := unix.Statfs(dir, &st); err != nil {
			return "", fmt.Errorf("look at %s: %w", dir, err)
		}
		if st.Type != unix.TMPFS_MAGIC {
			return "", fmt.Errorf("%s is not in memory", dir)
		}
	}
	return "/tmp, /run and /dev/shm are in memory", nil
}
