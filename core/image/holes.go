package image

import (
	"errors"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// copyData copies an open file to a new one: its blocks are shared where the file system can, else its data is copied and its holes are
// left out. What a guest has made of holes would fill the disk otherwise.
func copyData(dst, src *os.File) error {
	if clone(dst, src) == nil {
		return nil
	}
	info, err := src.Stat()
	if err != nil {
		return err //nolint:wrapcheck // names the file
	}
	for at, size := int64(0), info.Size(); at < size; {
		from, to, err := nextData(src, at, size)
		if err != nil {
			return err
		}
		if err := copyRange(dst, src, from, to-from); err != nil {
			return err
		}
		at = to
	}
	return dst.Truncate(info.Size()) //nolint:wrapcheck // names the file
}

// nextData is where data begins at or after a place, and where it ends. Where a file system knows no holes, all is data.
func nextData(f *os.File, at, size int64) (from, to int64, err error) {
	from, err = f.Seek(at, unix.SEEK_DATA)
	if errors.Is(err, unix.ENXIO) {
		return size, size, nil
	}
	if err != nil || from < at {
		return at, size, nil
	}
	to, err = f.Seek(from, unix.SEEK_HOLE)
	if err != nil || to <= from {
		to = size
	}
	return min(from, size), min(to, size), nil
}

// copyRange copies n bytes of src, fewer if it ends before, to the same place in dst.
func copyRange(dst, src *os.File, at, n int64) error {
	for _, f := range []*os.File{dst, src} {
		if _, err := f.Seek(at, io.SeekStart); err != nil {
			return err //nolint:wrapcheck // names the file
		}
	}
	_, err := io.CopyN(dst, src, n) // copy_file_range
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err //nolint:wrapcheck // names the file
}
