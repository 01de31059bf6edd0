package assets

import "syscall"

// changeTime is the inode's change time, in nanoseconds since 1970.
func changeTime(st *syscall.Stat_t) int64 { return st.Ctim.Nano() }
