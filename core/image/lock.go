package image

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"

	"capsem/core/fault"
)

// lock takes a lock on an image's directory, in this process and others: LOCK_SH is held while it is copied, LOCK_EX to take its name
// away. It waits for nobody.
func lock(dir string, how int) (unlock func(), err error) {
	d, err := os.OpenFile(dir, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_DIRECTORY, 0)
	if err != nil {
		return nil, err //nolint:wrapcheck // by the caller
	}
	for range 100 { // signals of Go's runtime
		if err = syscall.Flock(int(d.Fd()), how|syscall.LOCK_NB); !errors.Is(err, syscall.EINTR) {
			break
		}
	}
	if err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return func() { _ = d.Close() }, nil
}

// use keeps the image from being deleted until unlock is called.
func (i *Image) use() (unlock func(), err error) {
	gone := fault.New(fault.NotFound, "%s was deleted before it was copied", i.Name)
	unlock, err = lock(i.Dir, syscall.LOCK_SH)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.EWOULDBLOCK) {
		return nil, gone
	}
	if err != nil {
		return nil, fmt.Errorf("use image %s: %w", i.Name, err)
	}
	if now, err := load(i.Dir); err != nil || now.CreatedNS != i.CreatedNS { // that was its directory, or is another's
		unlock()
		return nil, gone
	}
	return unlock, nil
}
