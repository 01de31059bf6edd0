package service

import (
	"context"
	"io"
	"path/filepath"
	"time"

	"capsem/core/export"
)

// exportTick is how often a record that is followed is looked at.
const exportTick = 500 * time.Millisecond

// Export writes the record of a session in a format of core/export; with follow it goes on until the VM does not run any more. begin is
// called before the first byte, once all that can be refused is known, and gives where to write to and how to push out what was written.
func (s *Service) Export(ctx context.Context, id, format string, follow bool, begin func() (io.Writer, func() error)) error {
	if err := export.Check(format, follow); err != nil {
		return err //nolint:wrapcheck // a fault
	}
	path, err := s.recordOf(ctx, id)
	if err != nil {
		return err
	}
	to, flush := begin()
	src := export.Source{Path: path, Session: filepath.Base(filepath.Dir(path))}
	if follow {
		tick := time.NewTicker(exportTick)
		defer tick.Stop()
		over := false
		src.Next = func() (bool, error) {
			if err := flush(); err != nil || over {
				return false, err
			}
			over = !s.recording(src.Session) // what it wrote at its end is still to be read
			select {
			case <-tick.C:
				return true, nil
			case <-ctx.Done():
				return false, nil
			case <-s.ctx.Done():
				return false, nil
			}
		}
	}
	return export.Write(ctx, to, src, format) //nolint:wrapcheck // says what it did
}

// recording reports whether a session has a VM that runs.
func (s *Service) recording(session string) bool {
	for _, v := range s.all() {
		if now := v.view(); now.spec.Session() == session {
			return now.life != nil
		}
	}
	return false
}
