package template

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"

	"github.com/zeebo/blake3"
)

// Where the data of a sparse file begins and ends (lseek(2)).
const (
	seekData = 3
	seekHole = 4
)

// maxExtents bounds how many pieces a file may have: one per page of 16 GiB.
const maxExtents = 4 << 20

// extents calls do for each piece of data of a file.
func extents(f *os.File, size int64, do func(at, n int64) error) error {
	at := int64(0)
	for range maxExtents {
		start, err := f.Seek(at, seekData)
		if errors.Is(err, syscall.ENXIO) {
			return nil // nothing but a hole follows
		}
		if err != nil {
			return fmt.Errorf("find data: %w", err)
		}
		end, err := f.Seek(start, seekHole)
		if err != nil {
			return fmt.Errorf("find data: %w", err)
		}
		end = min(end, size)
		if start >= end {
			return nil
		}
		if err := do(start, end-start); err != nil {
			return err
		}
		at = end
	}
	return errors.New("find data: too many pieces")
}

// blockSize is the unit in which content is compared: a piece of zeros is the same whether it is a hole or data.
const blockSize = 64 << 10

// copyData copies the data of a file, block by block, leaving out zeros, and returns the hash of the rest and where it lies. to
// may be nil.
func copyData(to io.WriterAt, from *os.File, size int64) (string, error) {
	h := blake3.New()
	buf, zero := make([]byte, blockSize), make([]byte, blockSize)
	var head [16]byte
	done := int64(0) // pieces need not begin at a block
	err := extents(from, size, func(at, n int64) error {
		for off := max(at&^(blockSize-1), done); off < at+n; off += blockSize {
			block := buf[:min(blockSize, size-off)]
			if _, err := from.ReadAt(block, off); err != nil {
				return fmt.Errorf("read data: %w", err)
			}
			done = off + blockSize
			if bytes.Equal(block, zero[:len(block)]) {
				continue
			}
			binary.BigEndian.PutUint64(head[:], uint64(off)) //nolint:gosec // a position is positive
			binary.BigEndian.PutUint64(head[8:], uint64(len(block)))
			_, _ = h.Write(head[:]) // a hash takes everything
			_, _ = h.Write(block)   // as above
			if to == nil {
				continue
			}
			if _, err := to.WriteAt(block, off); err != nil {
				return fmt.Errorf("copy data: %w", err)
			}
		}
		return nil
	})
	return hex.EncodeToString(h.Sum(nil)), err
}

// hash is the hash of a file's data and where it lies.
func hash(f *os.File) (sum string, size int64, err error) {
	info, err := f.Stat()
	if err != nil {
		return "", 0, err //nolint:wrapcheck // by the caller
	}
	sum, err = copyData(nil, f, info.Size())
	return sum, info.Size(), err
}

// SaveMemory copies the data of a machine's memory to a new file.
func SaveMemory(ram *os.File, path string) error {
	info, err := ram.Stat()
	if err != nil {
		return fmt.Errorf("save memory: %w", err)
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("save memory: %w", err)
	}
	err = f.Truncate(info.Size())
	if err == nil {
		_, err = copyData(f, ram, info.Size())
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("save memory: %w", err)
	}
	return nil
}

// Open opens a file of the template and holds it to its hash.
func (t *Template) Open(name string) (*os.File, error) {
	f, err := os.Open(t.Path(name))
	if err != nil {
		return nil, fmt.Errorf("open template: %w", err)
	}
	sum, _, err := hash(f)
	if err == nil && sum != t.Files[name].BLAKE3 {
		err = fmt.Errorf("%w: the content of %s has changed", errDamaged, t.Path(name))
	}
	if err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// CopyDisk makes a VM's system disk of the template's.
func (t *Template) CopyDisk(path string) error {
	from, err := t.Open(DiskFile)
	if err != nil {
		return err
	}
	defer from.Close()
	to, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return fmt.Errorf("copy disk of template: %w", err)
	}
	_, err = io.Copy(to, from) // copy_file_range: shared blocks where the file system can
	if err := errors.Join(err, to.Close()); err != nil {
		return errors.Join(fmt.Errorf("copy disk of template: %w", err), os.Remove(path))
	}
	return nil
}
