package tree

import (
	"errors"
	"io/fs"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// permitted does something with a file of ours that its permissions forbid: it has those that are needed meanwhile, and afterwards its
// own again. refused is returned for a file that is another's, or of another type.
func permitted(at int, name string, need fs.FileMode, refused error, do func() (int, error)) (int, error) {
	loans.Lock()
	defer loans.Unlock()
	place, err := openat(at, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC)
	if err != nil {
		return -1, err
	}
	defer unix.Close(place)
	var st unix.Stat_t
	if err := unix.Fstat(place, &st); err != nil {
		return -1, err //nolint:wrapcheck // by the caller
	}
	if int(st.Uid) != os.Geteuid() || typeOf(&st) != need.Type() {
		return -1, refused
	}
	// chmod of the place's entry in /proc is of exactly this file, whatever has its name by now.
	path := "/proc/self/fd/" + strconv.Itoa(place)
	own := st.Mode & 0o7777
	if err := unix.Chmod(path, own|uint32(need.Perm())); err != nil {
		return -1, errors.Join(refused, err)
	}
	fd, err := do()
	if back := unix.Chmod(path, own); back != nil && err == nil {
		_ = unix.Close(fd)
		return -1, back //nolint:wrapcheck // by the caller
	}
	return fd, err
}

func ctimeOf(st *unix.Stat_t) time.Time { return time.Unix(st.Ctim.Unix()) }
func mtimeOf(st *unix.Stat_t) time.Time { return time.Unix(st.Mtim.Unix()) }
