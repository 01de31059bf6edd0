package main

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// freeMB is what is free in a file system once all is written.
func freeMB(dir string) (float64, error) {
	unix.Sync()
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, fmt.Errorf("look at file system: %w", err)
	}
	return float64(st.Bfree) * float64(st.Bsize) / 1e6, nil
}
