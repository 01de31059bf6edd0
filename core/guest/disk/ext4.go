//go:build linux

// Package disk finds out what is on the guest's system disk, formats an empty one and grows an ext4 that is smaller than its device.
package disk

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// Where the ext4 superblock is and what is in it.
const (
	superOffset = 1024
	superSize   = 1024
	magicOffset = 0x38
	magic       = 0xEF53
)

// Super is what we need of a superblock.
type Super struct {
	// Blocks is the size of the file system in blocks of BlockSize bytes.
	Blocks    uint64
	BlockSize uint64
}

// ErrNotExt4 is a disk without an ext4 file system.
var ErrNotExt4 = errors.New("no ext4 on the disk")

// ReadSuper reads the superblock of an ext4 from the beginning of a disk.
func ReadSuper(r io.ReaderAt) (Super, error) {
	var buf [superSize]byte
	if _, err := r.ReadAt(buf[:], superOffset); err != nil {
		return Super{}, fmt.Errorf("read superblock: %w", err)
	}
	return parseSuper(buf[:])
}

func parseSuper(b []byte) (Super, error) {
	if len(b) < superSize || binary.LittleEndian.Uint16(b[magicOffset:]) != magic {
		return Super{}, ErrNotExt4
	}
	logSize := binary.LittleEndian.Uint32(b[0x18:])
	if logSize > 6 {
		return Super{}, fmt.Errorf("%w: block size 2^%d KiB", ErrNotExt4, logSize)
	}
	s := Super{Blocks: uint64(binary.LittleEndian.Uint32(b[0x04:])), BlockSize: 1024 << logSize}
	const incompat64bit = 0x80
	if binary.LittleEndian.Uint32(b[0x60:])&incompat64bit != 0 {
		s.Blocks |= uint64(binary.LittleEndian.Uint32(b[0x150:])) << 32
	}
	return s, nil
}
