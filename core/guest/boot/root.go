//go:build linux

package boot

import (
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"capsem/core/guest/disk"
	"capsem/core/guest/layout"
)

const (
	rootDisk   = "/dev/vda"
	systemDisk = "/dev/vdb"
	newRoot    = "/newroot"
	// diskTimeout is how long a disk may take to appear after its driver was loaded.
	diskTimeout = 3 * time.Second
)

// await waits until a device is there.
func await(path string, limit time.Duration) error {
	over := time.After(limit)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for {
		_, err := os.Stat(path)
		if !errors.Is(err, os.ErrNotExist) {
			return err //nolint:wrapcheck // nil most often
		}
		select {
		case <-tick.C:
		case <-over:
			return fmt.Errorf("%s did not appear: is it attached, and is its driver in the initrd?", path)
		}
	}
}

// rootfs mounts the read-only root file system.
func (b *boot) rootfs() error {
	if err := await(rootDisk, diskTimeout); err != nil {
		return err
	}
	kinds := []string{"squashfs", "erofs"}
	if b.cmdline.RootFS != "" {
		kinds = []string{b.cmdline.RootFS}
	}
	var errs error
	for _, kind := range kinds {
		err := mount{rootDisk, layout.LowerDir, kind, unix.MS_RDONLY | unix.MS_NODEV, ""}.do()
		if err == nil {
			return nil
		}
		errs = errors.Join(errs, fmt.Errorf("as %s: %w", kind, err))
	}
	return fmt.Errorf("root disk: %w", errs)
}

// systemDisk mounts the disk that takes what is written. Only a disk without any ext4 is formatted; one with an ext4 that
// cannot be mounted holds somebody's work.
func (b *boot) systemDisk() error {
	if err := await(systemDisk, diskTimeout); err != nil {
		b.timer.Fail("system disk", fmt.Errorf("%w; what is written stays in memory", err))
		return mount{"tmpfs", layout.SystemDir, "tmpfs", 0, "mode=0700"}.do()
	}
	super, size, err := disk.Inspect(systemDisk)
	if errors.Is(err, disk.ErrNotExt4) {
		if err := b.format(); err != nil {
			return err
		}
		b.timer.Mark("format")
		super, size, err = disk.Inspect(systemDisk)
	}
	if err != nil {
		return err //nolint:wrapcheck // says what it did
	}
	if err := (mount{systemDisk, layout.SystemDir, "ext4", unix.MS_NOATIME, ""}).do(); err != nil {
		return err
	}
	if err := os.Chmod(layout.SystemDir, 0o700); err != nil {
		return fmt.Errorf("close system disk: %w", err)
	}
	if err := disk.Grow(layout.SystemDir, super, size); err != nil {
		b.timer.Fail("system disk", err)
	}
	return nil
}

// format runs the root file system's mke2fs with the devices it needs.
func (b *boot) format() error {
	dev := layout.LowerDir + "/dev"
	if err := unix.Mount("/dev", dev, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("lend devices: %w", err)
	}
	err := disk.Formatter{Root: layout.LowerDir, Device: systemDisk}.Format()
	if err := errors.Join(err, unix.Unmount(dev, 0)); err != nil {
		return fmt.Errorf("format: %w", err)
	}
	return nil
}

// overlay lays the system disk over the root file system.
func (b *boot) overlay() error {
	upper, work := layout.SystemDir+"/upper", layout.SystemDir+"/work"
	for _, dir := range []string{upper, work, newRoot} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("make overlay: %w", err)
		}
	}
	dirs := "lowerdir=" + layout.LowerDir + ",upperdir=" + upper + ",workdir=" + work
	var errs error
	for _, options := range []string{",redirect_dir=on,metacopy=on", ",redirect_dir=on", ""} {
		err := mount{"overlay", newRoot, "overlay", 0, dirs + options}.do()
		if err == nil {
			return nil
		}
		errs = errors.Join(errs, err)
	}
	return errs
}
