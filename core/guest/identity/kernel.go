//go:build linux

package identity

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Real is the running kernel.
type Real struct{}

// Now reads the clock.
func (Real) Now() time.Time { return time.Now() }

// SetClock sets the clock.
func (Real) SetClock(t time.Time) error {
	ts := unix.NsecToTimespec(t.UnixNano())
	if err := unix.ClockSettime(unix.CLOCK_REALTIME, &ts); err != nil {
		return fmt.Errorf("clock_settime: %w", err)
	}
	return nil
}

// SetHostname sets the host name.
func (Real) SetHostname(name string) error {
	if err := unix.Sethostname([]byte(name)); err != nil {
		return fmt.Errorf("sethostname: %w", err)
	}
	return nil
}

// bootID is where programs read the id of this boot, ownBootID the one that is put over it.
const bootID, ownBootID = "/proc/sys/kernel/random/boot_id", "/run/boot_id"

// NewBootID gives this boot an id of its own: a bind mount, since the kernel's cannot be changed.
func (Real) NewBootID() error {
	id, err := os.ReadFile("/proc/sys/kernel/random/uuid")
	if err != nil {
		return fmt.Errorf("make boot id: %w", err)
	}
	_ = unix.Unmount(bootID, unix.MNT_DETACH) // there may be none
	_ = os.Remove(ownBootID)                  // as above
	if err := os.WriteFile(ownBootID, id, 0o444); err != nil {
		return fmt.Errorf("make boot id: %w", err)
	}
	if err := unix.Mount(ownBootID, bootID, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("make boot id: mount: %w", err)
	}
	return nil
}

// Credit adds a seed to the entropy pool and makes the generator take it in at once.
func (Real) Credit(seed []byte, bits int) error {
	fd, err := unix.Open("/dev/urandom", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open random device: %w", err)
	}
	defer unix.Close(fd)
	// struct rand_pool_info: the bits to credit, the length of the seed, the seed.
	info := make([]byte, 8, 8+len(seed))
	binary.NativeEndian.PutUint32(info[0:], uint32(bits))      //nolint:gosec // at most 512
	binary.NativeEndian.PutUint32(info[4:], uint32(len(seed))) //nolint:gosec // at most 64
	info = append(info, seed...)
	if err := ioctl(fd, unix.RNDADDENTROPY, unsafe.Pointer(&info[0])); err != nil { //nolint:gosec // as the kernel defines it
		return fmt.Errorf("add entropy: %w", err)
	}
	// Before the generator's first seeding the kernel refuses this; adding entropy has then seeded it.
	if err := ioctl(fd, unix.RNDRESEEDCRNG, nil); err != nil && !errors.Is(err, unix.ENODATA) {
		return fmt.Errorf("reseed: %w", err)
	}
	return nil
}

func ioctl(fd int, request uintptr, arg unsafe.Pointer) error {
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), request, uintptr(arg)); errno != 0 {
		return errno
	}
	return nil
}
