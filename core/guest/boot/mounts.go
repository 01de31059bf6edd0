//go:build linux

package boot

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"capsem/core/guest/layout"
)

// mount is one file system to mount. The directory is made when missing.
type mount struct {
	source, target, kind string
	flags                uintptr
	data                 string
}

func (m mount) do() error {
	if err := os.MkdirAll(m.target, 0o755); err != nil {
		return fmt.Errorf("make mount point: %w", err)
	}
	if err := unix.Mount(m.source, m.target, m.kind, m.flags, m.data); err != nil && !errors.Is(err, unix.EBUSY) {
		return fmt.Errorf("mount %s: %w", m.target, err)
	}
	return nil
}

const inert = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC

// early mounts what the later steps need. These mounts move into the new root with everything below them.
func (b *boot) early() error {
	for _, m := range []mount{
		{"proc", "/proc", "proc", inert, ""},
		{"sysfs", "/sys", "sysfs", inert, ""},
		{"devtmpfs", "/dev", "devtmpfs", unix.MS_NOSUID, "mode=0755"},
		{"devpts", "/dev/pts", "devpts", unix.MS_NOSUID | unix.MS_NOEXEC, "gid=5,mode=620,ptmxmode=666"},
		{"tmpfs", "/dev/shm", "tmpfs", unix.MS_NOSUID | unix.MS_NODEV, "mode=1777"},
		{"tmpfs", "/run", "tmpfs", unix.MS_NOSUID | unix.MS_NODEV, "mode=0755"},
	} {
		if err := m.do(); err != nil {
			return err
		}
	}
	// Mounts, modules and network devices wait for the kernel's read-copy-update; few processors can well do it at once.
	_ = set("/sys/kernel/rcu_expedited", "1") // only slower then
	if err := (mount{"cgroup2", "/sys/fs/cgroup", "cgroup2", inert, "nsdelegate"}).do(); err != nil {
		b.timer.Fail("cgroups", err)
	}
	for name, target := range map[string]string{
		"fd": "/proc/self/fd", "stdin": "/proc/self/fd/0", "stdout": "/proc/self/fd/1", "stderr": "/proc/self/fd/2",
	} {
		if err := os.Symlink(target, "/dev/"+name); err != nil && !errors.Is(err, os.ErrExist) {
			b.timer.Fail("links in /dev", err)
		}
	}
	if err := os.MkdirAll(layout.RunDir, 0o755); err != nil {
		return fmt.Errorf("make run directory: %w", err)
	}
	text, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return fmt.Errorf("read kernel command line: %w", err)
	}
	b.cmdline, err = ParseCmdline(string(text))
	return err
}

// switchRoot makes the overlay the root. The guest binaries stay in the initrd's file system, read-only and seen at
// layout.BinDir: PID 1 and the agent then share one copy in memory.
func (b *boot) switchRoot() error {
	if err := binaries(); err != nil {
		return err
	}
	for _, dir := range []string{"/proc", "/sys", "/dev", "/run"} {
		if err := os.MkdirAll(newRoot+dir, 0o755); err != nil {
			return fmt.Errorf("make mount point: %w", err)
		}
		if err := unix.Mount(dir, newRoot+dir, "", unix.MS_MOVE, ""); err != nil {
			return fmt.Errorf("move %s: %w", dir, err)
		}
	}
	if err := unix.Chdir(newRoot); err != nil {
		return fmt.Errorf("enter new root: %w", err)
	}
	if err := unix.Mount(".", "/", "", unix.MS_MOVE, ""); err != nil {
		return fmt.Errorf("move new root: %w", err)
	}
	if err := unix.Chroot("."); err != nil {
		return fmt.Errorf("enter new root: %w", err)
	}
	if err := unix.Chdir("/"); err != nil {
		return fmt.Errorf("enter new root: %w", err)
	}
	// Processes of the guest may unshare and remount; none of it must reach back here.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SHARED, ""); err != nil {
		b.timer.Fail("mount propagation", err)
	}
	tmp := mount{"tmpfs", "/tmp", "tmpfs", unix.MS_NOSUID | unix.MS_NODEV, "mode=1777"}
	if err := tmp.do(); err != nil {
		b.timer.Fail("temporary files", err)
	}
	b.links()
	return nil
}

// binaries links this program under its names and mounts them read-only.
func binaries() error {
	const hidden = "/bin"
	if err := os.MkdirAll(hidden, 0o755); err != nil {
		return fmt.Errorf("make binaries: %w", err)
	}
	if err := os.Chmod("/init", 0o555); err != nil {
		return fmt.Errorf("make binaries: %w", err)
	}
	for _, name := range layout.Programs() {
		if err := os.Link("/init", filepath.Join(hidden, name)); err != nil {
			return fmt.Errorf("make binaries: %w", err)
		}
	}
	if err := (mount{hidden, layout.BinDir, "", unix.MS_BIND, ""}).do(); err != nil {
		return err
	}
	const flags = unix.MS_REMOUNT | unix.MS_BIND | unix.MS_RDONLY | unix.MS_NOSUID | unix.MS_NODEV
	if err := unix.Mount("", layout.BinDir, "", flags, ""); err != nil {
		return fmt.Errorf("lock binaries: %w", err)
	}
	return nil
}

// links makes the commands that end the machine, and the other programs that users call.
func (b *boot) links() {
	for _, link := range layout.Links() {
		if old, err := os.Readlink(link.Path); err == nil && old == link.Target() {
			continue
		}
		err := os.Remove(link.Path)
		if err == nil || errors.Is(err, os.ErrNotExist) {
			err = os.MkdirAll(filepath.Dir(link.Path), 0o755)
		}
		if err == nil {
			err = os.Symlink(link.Target(), link.Path)
		}
		if err != nil {
			b.timer.Fail("link to "+link.Program, err)
		}
	}
}
