package ledger

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"capsem/core/atomicfile"
	"capsem/core/fault"
	"capsem/core/store"
)

// DBFile is the name of a session's database in its directory.
const DBFile = "session.db"

// Keep moves a session's record, database and signed head, from the directory of a VM that is being destroyed to where records
// stay. Nothing may write to it any more. After a crash in the middle it can be called again; it never replaces a record.
func Keep(ctx context.Context, from, to string) error {
	if filepath.Clean(from) == filepath.Clean(to) {
		return nil
	}
	db := filepath.Join(from, DBFile)
	if _, err := os.Lstat(db); err == nil {
		// A damaged record is moved as it is, log and all.
		_ = store.Fold(ctx, db)
	}
	if err := os.MkdirAll(to, 0o700); err != nil {
		return fmt.Errorf("keep record: %w", err)
	}
	for _, name := range []string{DBFile + "-wal", DBFile, HeadFile, SealFile} {
		if err := moveOnce(filepath.Join(from, name), filepath.Join(to, name)); err != nil {
			return fmt.Errorf("keep record: %w", err)
		}
	}
	if err := errors.Join(atomicfile.SyncDir(to), atomicfile.SyncDir(from)); err != nil {
		return fmt.Errorf("keep record: %w", err)
	}
	return nil
}

// moveOnce moves a file that is there, to where there is none.
func moveOnce(from, to string) error {
	info, err := os.Lstat(from)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err //nolint:wrapcheck // by the caller
	}
	if !info.Mode().IsRegular() {
		return fault.New(fault.Invalid, "%s is not a file", from)
	}
	if _, err := os.Lstat(to); err == nil {
		return fault.New(fault.Conflict, "there is a record at %s already", to)
	}
	return os.Rename(from, to) //nolint:wrapcheck // by the caller
}

// SetAside renames a record that cannot be used, so that a new one can begin, and returns where its database went.
func SetAside(path string, now time.Time) (string, error) {
	suffix := ".damaged-" + now.UTC().Format("20060102-150405.000000")
	var failed []error
	for _, name := range []string{path + "-wal", path + "-shm", headPath(path), sealPath(path), path} {
		if err := moveOnce(name, name+suffix); err != nil {
			failed = append(failed, err)
		}
	}
	if err := errors.Join(failed...); err != nil {
		return "", fmt.Errorf("set record aside: %w", err)
	}
	return path + suffix, atomicfile.SyncDir(filepath.Dir(path)) //nolint:wrapcheck // says what it did
}

// candidate is a kept record that may be pruned.
type candidate struct {
	id     string
	bytes  int64
	ended  time.Time
	hollow bool
}

// prunedPrefix marks directories on their way out.
const prunedPrefix = ".pruned-"

// candidates lists the records under dir. A directory that a pruning left half done is removed.
func candidates(dir string) ([]candidate, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list records: %w", err)
	}
	var out []candidate
	var failed []error
	for _, e := range entries {
		switch {
		case !e.IsDir():
		case strings.HasPrefix(e.Name(), prunedPrefix):
			failed = append(failed, os.RemoveAll(filepath.Join(dir, e.Name())))
		case ValidSession(e.Name()):
			c, err := measure(dir, e.Name())
			failed = append(failed, err)
			out = append(out, c)
		}
	}
	return out, errors.Join(failed...)
}

func measure(dir, id string) (candidate, error) {
	c := candidate{id: id}
	files, err := os.ReadDir(filepath.Join(dir, id))
	if err != nil {
		return c, fmt.Errorf("measure record: %w", err)
	}
	for _, f := range files {
		info, err := f.Info()
		if err != nil {
			continue // gone since
		}
		c.bytes += info.Size()
		if info.ModTime().After(c.ended) {
			c.ended = info.ModTime()
		}
	}
	return c, nil
}

// remove takes a record's directory away: at once out of sight, then file by file.
func remove(dir, id string) error {
	gone := filepath.Join(dir, prunedPrefix+id)
	err := os.Rename(filepath.Join(dir, id), gone)
	if err == nil {
		err = os.RemoveAll(gone)
	}
	if err != nil {
		return fmt.Errorf("prune record: %w", err)
	}
	return nil
}
