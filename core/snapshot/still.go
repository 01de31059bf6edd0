package snapshot

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
)

// Still waits until no revert is under way, and lets none begin until goOn is called: for who copies the workspace.
func (s *Store) Still(ctx context.Context) (goOn func(), err error) {
	if err := s.begin(ctx); err != nil {
		return nil, err
	}
	return s.end, nil
}

// Settle carries out a revert that was cut off in the workspace of a VM that is down. Where there is none it opens nothing.
func Settle(ctx context.Context, opts Options) error {
	if _, err := os.Lstat(filepath.Join(opts.Dir, journalName)); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	s, err := Open(ctx, opts)
	if err != nil {
		return err
	}
	return s.Close()
}
