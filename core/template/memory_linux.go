package template

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// NewMemory makes memory for a machine that is to be saved: a file without a name, so that nothing of it is written to a disk
// before it is complete.
func NewMemory(mb int) (*os.File, error) {
	fd, err := unix.MemfdCreate("capsem-ram", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		return nil, fmt.Errorf("make memory: %w", err)
	}
	f := os.NewFile(uintptr(fd), "capsem-ram")
	if err := f.Truncate(int64(mb) << 20); err != nil {
		return nil, errors.Join(fmt.Errorf("make memory: %w", err), f.Close())
	}
	return f, nil
}

// Memory reads the template's memory into a file without a name, holds it to its hash, and seals it. QEMU must be able to open it
// for writing even for a private mapping; sealed, it cannot be changed whoever opens it, so one VM that breaks out of its guest
// cannot reach another through it.
func (t *Template) Memory() (*os.File, error) {
	from, err := os.Open(t.Path(RAMFile))
	if err != nil {
		return nil, fmt.Errorf("read memory of template: %w", err)
	}
	defer from.Close()
	ram, err := NewMemory(t.MemoryMB)
	if err != nil {
		return nil, err
	}
	want := t.Files[RAMFile]
	sum, err := copyData(ram, from, want.Size)
	if err == nil && (sum != want.BLAKE3 || want.Size != int64(t.MemoryMB)<<20) {
		err = fmt.Errorf("%w: the content of %s has changed", errDamaged, t.Path(RAMFile))
	}
	if err == nil {
		_, err = unix.FcntlInt(ram.Fd(), unix.F_ADD_SEALS, unix.F_SEAL_WRITE|unix.F_SEAL_SHRINK|unix.F_SEAL_GROW|unix.F_SEAL_SEAL)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("read memory of template: %w", err), ram.Close())
	}
	return ram, nil
}
