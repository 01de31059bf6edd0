package service

import (
	"fmt"

	"golang.org/x/sys/unix"

	"capsem/core/fault"
)

// leastSpace is what must be free on the disk of the VMs to make another, in bytes: their disks grow as they are written.
const leastSpace = 256 << 20

// checkSpace refuses to make a VM on a disk that is all but full.
func checkSpace(dir string) error {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return fmt.Errorf("look at the disk of %s: %w", dir, err)
	}
	free := st.Bavail * uint64(st.Bsize) //nolint:gosec // a block size is positive
	if free >= leastSpace {
		return nil
	}
	return fault.New(fault.NoSpace, "only %d MB are free on the disk of %s, and a VM needs %d", free>>20, dir, leastSpace>>20).
		WithHint("free some space, or capsem delete VMs you no longer need")
}
