//go:build linux

package disk

import (
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Formatter runs the mke2fs of the guest's root file system, before that is the root.
type Formatter struct {
	// Root is where the root file system is mounted. Device is the disk as seen inside it.
	Root   string
	Device string
}

// mke2fs is where Debian has it; the options leave as much as possible to be written later, or never.
var mke2fs = [...]string{
	"/usr/sbin/mke2fs", "-q", "-F", "-t", "ext4", "-m", "0", "-J", "size=16",
	"-E", "lazy_itable_init=1,lazy_journal_init=1,nodiscard,assume_storage_prezeroed=1", "-L", "capsem-system",
}

// Format makes an ext4 on the disk.
func (f Formatter) Format() error {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("format system disk: %w", err)
	}
	defer null.Close()
	r, w, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("format system disk: %w", err)
	}
	defer r.Close()
	pid, err := syscall.ForkExec(mke2fs[0], append(mke2fs[:], f.Device), &syscall.ProcAttr{
		Dir: "/", Env: []string{"PATH=/usr/sbin:/usr/bin"}, Files: []uintptr{null.Fd(), null.Fd(), w.Fd()},
		Sys: &syscall.SysProcAttr{Chroot: f.Root},
	})
	if err = errors.Join(err, w.Close()); err != nil {
		return fmt.Errorf("format system disk: run mke2fs: %w", err)
	}
	said, _ := io.ReadAll(io.LimitReader(r, 512)) // only for the message
	var ws unix.WaitStatus
	for {
		_, err = unix.Wait4(pid, &ws, 0, nil)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if err != nil || ws.ExitStatus() != 0 {
		return fmt.Errorf("format system disk: mke2fs ended with %d: %s", ws.ExitStatus(), said)
	}
	return nil
}

// Inspect says whether a disk holds an ext4 and whether that fills the device.
func Inspect(device string) (s Super, size uint64, err error) {
	f, err := os.Open(device)
	if err != nil {
		return s, 0, fmt.Errorf("open system disk: %w", err)
	}
	defer f.Close()
	end, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return s, 0, fmt.Errorf("measure system disk: %w", err)
	}
	s, err = ReadSuper(f)
	return s, uint64(end), err //nolint:gosec // a size
}

// ext4ResizeFS is EXT4_IOC_RESIZE_FS, _IOW('f', 16, __u64).
const ext4ResizeFS = 0x40086610

// Grow makes a mounted ext4 as large as its device. Growing by less than one part in 64 is not worth the time.
func Grow(mountpoint string, s Super, size uint64) error {
	blocks := size / s.BlockSize
	if blocks < s.Blocks+s.Blocks/64+1 {
		return nil
	}
	fd, err := unix.Open(mountpoint, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("grow system disk: %w", err)
	}
	defer unix.Close(fd)
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), ext4ResizeFS, uintptr(unsafe.Pointer(&blocks))); errno != 0 { //nolint:gosec // as the kernel defines it
		return fmt.Errorf("grow system disk to %d blocks: %w", blocks, errno)
	}
	return nil
}
