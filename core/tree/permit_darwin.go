package tree

import (
	"errors"
	"io/fs"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// permitted does something with a file of ours that its permissions forbid: it has those that are needed meanwhile, and afterwards its
// own again. refused is returned for a file that is another's, or of another type.
func permitted(at int, name string, need fs.FileMode, refused error, do func() (int, error)) (int, error) {
	loans.Lock()
	defer loans.Unlock()
	var st unix.Stat_t
	if err := unix.Fstatat(at, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return -1, err //nolint:wrapcheck // by the caller
	}
	if int(st.Uid) != os.Geteuid() || typeOf(&st) != need.Type() {
		return -1, refused
	}
	own := uint32(st.Mode) & 0o7777
	if err := unix.Fchmodat(at, name, own|uint32(need.Perm()), unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return -1, errors.Join(refused, err)
	}
	fd, err := do()
	if back := unix.Fchmodat(at, name, own, unix.AT_SYMLINK_NOFOLLOW); back != nil && err == nil {
		_ = unix.Close(fd)
		return -1, back //nolint:wrapcheck // by the caller
	}
	return fd, err
}

func ctimeOf(st *unix.Stat_t) time.Time { return time.Unix(st.Ctim.Unix()) }
func mtimeOf(st *unix.Stat_t) time.Time { return time.Unix(st.Mtim.Unix()) }
