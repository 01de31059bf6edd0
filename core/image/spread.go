package image

import (
	"bytes"
	"os"

	"capsem/core/fault"
)

const (
	// spreadBlock is the unit of holes, in bytes.
	spreadBlock = 32 << 10
	// lookEvery is how much is written between two looks at what is free: others write to the same disk, other imports too.
	lookEvery = 16 << 20
	// leastTaken is what a piece takes of a disk, however short it is.
	leastTaken = 4 << 10
)

var noBytes [spreadBlock]byte

// spreader writes a file that comes in one piece, and leaves out what is only zeros. It fails before the disk is full.
type spreader struct {
	f    *os.File
	free func() (int64, error)
	// at is where it is, looked what may be written before the next look.
	at, left int64
}

// Write implements io.Writer.
func (s *spreader) Write(p []byte) (int, error) {
	for done := 0; done < len(p); {
		part := p[done:min(len(p), done+spreadBlock)]
		if !bytes.Equal(part, noBytes[:len(part)]) {
			if err := s.room(max(int64(len(part)), leastTaken)); err != nil {
				return done, err
			}
			if _, err := s.f.WriteAt(part, s.at); err != nil {
				return done, err //nolint:wrapcheck // the caller's
			}
		}
		done += len(part)
		s.at += int64(len(part))
	}
	return len(p), nil
}

func (s *spreader) room(n int64) error {
	if s.left -= n; s.left >= 0 {
		return nil
	}
	free, err := s.free()
	if err != nil {
		return err
	}
	if free < n {
		return fault.New(fault.NoSpace, "no space left for the image").WithHint("free some space on that disk")
	}
	s.left = min(lookEvery, free) - n
	return nil
}

// finish gives the file its length.
func (s *spreader) finish() error {
	return s.f.Truncate(s.at) //nolint:wrapcheck // the caller's
}
