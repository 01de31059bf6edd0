package snapshot

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"github.com/zeebo/blake3"
	"golang.org/x/sys/unix"
)

const (
	// smallFile is the largest file that is read at once. Its hash is that of its bytes.
	smallFile = 1 << 20
	// block is the unit in which a larger file is hashed: one that holds only zeros is left out, so that what a hole is
	// says nothing, and a huge file that is mostly hole costs little.
	block = 64 << 10
	// page is what a file system keeps together.
	page = 4 << 10
	// window is how much is read at once.
	window = 16 * block
)

// largeContext keeps hashes of large files apart from those of small ones.
const largeContext = "capsem 2026 hash of a large file: size, then number and bytes of each block that is not zero"

var (
	zeros   [block]byte
	windows = sync.Pool{New: func() any { b := make([]byte, window); return &b }}
)

// transfer hashes the first size bytes of src, and copies them if dst is not nil. Holes stay holes. charge is told of each piece before it
// is written, and may refuse it. What src lacks is taken for zeros.
func transfer(ctx context.Context, dst, src *os.File, size int64, charge func(int64) error) (hash, error) {
	lent, _ := windows.Get().(*[]byte)
	defer windows.Put(lent)
	t := &transfers{dst: dst, src: src, size: size, charge: charge, buf: *lent}
	if dst != nil {
		if err := dst.Truncate(size); err != nil {
			return hash{}, err
		}
	}
	if size <= smallFile {
		return t.small()
	}
	t.h = blake3.NewDeriveKey(largeContext)
	t.number(size)
	for at := int64(0); at < size; {
		if err := ctx.Err(); err != nil {
			return hash{}, err
		}
		next, err := t.data(at)
		if err != nil || next >= size {
			return sum(t.h), err
		}
		if at, err = t.window(next); err != nil {
			return hash{}, err
		}
	}
	return sum(t.h), nil
}

// pages is what so many bytes take on a disk.
func pages(n int64) int64 { return (n + page - 1) / page * page }

type transfers struct {
	dst, src *os.File
	size     int64
	charge   func(int64) error
	buf      []byte
	h        *blake3.Hasher
}

func (t *transfers) number(n int64) {
	_, _ = t.h.Write(binary.LittleEndian.AppendUint64(nil, uint64(n))) //nolint:gosec // not negative
}

func (t *transfers) read(buf []byte, at int64) error {
	n, err := t.src.ReadAt(buf, at)
	if errors.Is(err, io.EOF) {
		clear(buf[n:])
		err = nil
	}
	return err
}

// write writes the pages that are not zero: what was a hole takes no space in a copy.
func (t *transfers) write(buf []byte, at int64) error {
	for t.dst != nil && len(buf) > 0 {
		n := 0
		for n < len(buf) && !bytes.Equal(buf[n:min(n+page, len(buf))], zeros[:min(page, len(buf)-n)]) {
			n = min(n+page, len(buf))
		}
		if n > 0 {
			if t.charge != nil {
				if err := t.charge(pages(int64(n))); err != nil {
					return err
				}
			}
			if _, err := t.dst.WriteAt(buf[:n], at); err != nil {
				return err
			}
		}
		n = min(n+page, len(buf)) // one that is zero follows
		buf, at = buf[n:], at+int64(n)
	}
	return nil
}

func (t *transfers) small() (hash, error) {
	buf := t.buf[:t.size]
	if err := t.read(buf, 0); err != nil {
		return hash{}, err
	}
	return blake3.Sum256(buf), t.write(buf, 0)
}

// data is where the next block begins that is no hole.
func (t *transfers) data(at int64) (int64, error) {
	next := int64(0)
	err := retry(func() (err error) { next, err = unix.Seek(int(t.src.Fd()), at, unix.SEEK_DATA); return err })
	switch {
	case errors.Is(err, unix.ENXIO):
		return t.size, nil
	case err != nil || next < at: // a file system without holes
		return at, nil
	}
	return next - next%block, nil
}

// window handles what begins at a block, and returns where it ends.
func (t *transfers) window(at int64) (int64, error) {
	buf := t.buf[:min(int64(len(t.buf)), t.size-at)]
	if err := t.read(buf, at); err != nil {
		return 0, err
	}
	for off := 0; off < len(buf); off += block {
		piece := buf[off:min(off+block, len(buf))]
		if bytes.Equal(piece, zeros[:len(piece)]) {
			continue
		}
		t.number((at + int64(off)) / block)
		_, _ = t.h.Write(piece)
		if err := t.write(piece, at+int64(off)); err != nil {
			return 0, err
		}
	}
	return at + int64(len(buf)), nil
}

// duplicate makes a file in a directory that holds the first size bytes of src, sharing its blocks where that can be, and returns it
// and the hash of what it holds.
func (o *objects) duplicate(ctx context.Context, src *os.File, size int64, dir int, name string, charge func(int64) error) (*os.File, hash, error) {
	if f := o.share(src, dir, name); f != nil {
		var err error
		if charge != nil {
			var st stat
			if st, err = statFD(int(f.Fd())); err == nil {
				err = charge(min(st.blocks*512, pages(size)))
			}
		}
		var h hash
		if err == nil {
			if err = f.Truncate(size); err == nil {
				h, err = transfer(ctx, nil, f, size, nil)
			}
		}
		return o.orRemove(f, dir, name, h, err)
	}
	fd, err := unix.Openat(dir, name, unix.O_RDWR|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, hash{}, err
	}
	f := os.NewFile(uintptr(fd), name)
	h, err := transfer(ctx, f, src, size, charge)
	return o.orRemove(f, dir, name, h, err)
}

// share is nil where blocks cannot be shared.
func (o *objects) share(src *os.File, dir int, name string) *os.File {
	if o.noClone.Load() {
		return nil
	}
	fd, err := cloneFile(int(src.Fd()), dir, name)
	if err != nil {
		for _, never := range []error{unix.EOPNOTSUPP, unix.ENOTTY, unix.EXDEV, unix.ENOSYS, unix.EINVAL} {
			if errors.Is(err, never) {
				o.noClone.Store(true)
			}
		}
		return nil
	}
	return os.NewFile(uintptr(fd), name)
}

func (o *objects) orRemove(f *os.File, dir int, name string, h hash, err error) (*os.File, hash, error) {
	if err != nil {
		return nil, h, fmt.Errorf("copy: %w", errors.Join(err, f.Close(), unix.Unlinkat(dir, name, 0)))
	}
	return f, h, nil
}
