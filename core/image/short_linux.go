package image

import (
	"os"
	"strconv"
	"syscall"
)

// longPath is where a path begins to be too long to go on from: the kernel takes 4096 bytes, and a guest makes deeper directories.
const longPath = 2048

// shorten returns another path of a directory of ours if its own is long, good until done is called.
func shorten(dir string) (short string, done func(), err error) {
	if len(dir) < longPath {
		return dir, func() {}, nil
	}
	d, err := os.OpenFile(dir, os.O_RDONLY|syscall.O_DIRECTORY|syscall.O_NOFOLLOW, 0)
	if err != nil {
		return "", nil, err //nolint:wrapcheck // names the file
	}
	return "/proc/self/fd/" + strconv.Itoa(int(d.Fd())), func() { _ = d.Close() }, nil
}
