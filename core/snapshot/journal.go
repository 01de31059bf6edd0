package snapshot

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/fxamacker/cbor/v2"
	"golang.org/x/sys/unix"

	"capsem/core/fault"
)

const journalName = "journal"

// journal says what a revert that has begun is to do. It is there from before the first change of the workspace until after the last, so
// whoever finds one carries the revert out to its end.
type journal struct {
	Version int    `cbor:"1,keyasint"`
	Path    []byte `cbor:"2,keyasint"`
	// Target and Undo are the numbers of snapshots.
	Target uint64 `cbor:"3,keyasint"`
	Undo   uint64 `cbor:"4,keyasint"`
	// Staged are the paths that s-0, s-1 and so on in revert/ belong to, whether they are still to go there or came from there.
	Staged [][]byte `cbor:"5,keyasint"`
}

var journalMode = must(cbor.DecOptions{
	DupMapKey: cbor.DupMapKeyEnforcedAPF, MaxNestedLevels: 4, MaxArrayElements: 2 * maxEntries, MaxMapPairs: 16,
	IndefLength: cbor.IndefLengthForbidden, TagsMd: cbor.TagsForbidden, UTF8: cbor.UTF8RejectInvalid,
}.DecMode())

func decodeJournal(data []byte) (*journal, error) {
	j := &journal{}
	if err := journalMode.Unmarshal(data, j); err != nil {
		return nil, fmt.Errorf("read journal: %w: %w", errDamaged, err)
	}
	ok := j.Version == 1 && (len(j.Path) == 0 || validPath(string(j.Path)))
	for _, p := range j.Staged {
		ok = ok && validPath(string(p))
	}
	if !ok {
		return nil, fmt.Errorf("read journal: %w", errDamaged)
	}
	return j, nil
}

// path is where what has a name below revert/ belongs, "" if nowhere.
func (j *journal) path(name string) string {
	top, rest, deeper := strings.Cut(name, "/")
	number, ok := strings.CutPrefix(top, "s-")
	n, err := strconv.Atoi(number)
	if !ok || err != nil || n < 0 || n >= len(j.Staged) {
		return ""
	}
	if !deeper {
		return string(j.Staged[n])
	}
	return string(j.Staged[n]) + "/" + rest
}

func (s *Store) readJournal() (*journal, error) {
	fd, err := unix.Openat(s.dirs.store, journalName, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) {
		return nil, nil //nolint:nilnil // there is none
	}
	if err != nil {
		return nil, fmt.Errorf("read journal: %w", err)
	}
	f := os.NewFile(uintptr(fd), journalName)
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxManifest))
	if err != nil {
		return nil, fmt.Errorf("read journal: %w", err)
	}
	return decodeJournal(data)
}

func (s *Store) writeJournal(j *journal) error {
	data, err := encMode.Marshal(j)
	if err != nil {
		return fmt.Errorf("write journal: %w", err)
	}
	s.opts.before("write journal")
	if err := s.writeTemp(journalName, data, true); err != nil {
		return err
	}
	s.opts.before("name journal")
	if err := unix.Renameat(s.dirs.temp, journalName, s.dirs.store, journalName); err != nil {
		return fmt.Errorf("name journal: %w", err)
	}
	s.opts.before("sync store")
	if err := unix.Fsync(s.dirs.store); err != nil {
		return fmt.Errorf("sync: %w", err)
	}
	return nil
}

// removeJournal ends a revert, after all that it did is on the disk.
func (s *Store) removeJournal() error {
	s.opts.before("sync workspace")
	if err := syncAll(s.dirs.store); err != nil {
		return fmt.Errorf("sync: %w", err)
	}
	s.opts.before("remove journal")
	if err := unix.Unlinkat(s.dirs.store, journalName, 0); err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("remove journal: %w", err)
	}
	s.opts.before("sync store")
	if err := unix.Fsync(s.dirs.store); err != nil {
		return fmt.Errorf("sync: %w", err)
	}
	s.opts.before("sweep")
	return empty(s.dirs.revert)
}

// recoverRevert carries out a revert that was cut off.
func (s *Store) recoverRevert(ctx context.Context) error {
	j, err := s.readJournal()
	if err == nil && j == nil {
		return empty(s.dirs.revert)
	}
	if err != nil && !errors.Is(err, errDamaged) {
		return err
	}
	var r *revert
	if err == nil {
		r, err = s.resume(j)
	}
	if err != nil {
		return s.giveUp(err)
	}
	s.opts.Log.Info("a revert was cut off and is carried out to its end", "path", string(j.Path), "snapshot", r.target.id(), "undo", r.undo.id())
	ctx = context.WithoutCancel(ctx)
	if err := r.keepLate(ctx); err != nil {
		return err
	}
	if err := empty(s.dirs.revert); err != nil {
		return err
	}
	r.journal.Staged, r.resumed = nil, true
	err = r.carryOut(ctx)
	if fault.Is(err, fault.Unavailable) { // a content is damaged; that must not keep the other snapshots from being used
		return s.giveUp(err)
	}
	if fault.Is(err, fault.Conflict) {
		s.opts.Log.Warn("a revert that was cut off is only partly carried out", "path", string(j.Path), "undo", r.undo.id(), "err", err)
		return nil
	}
	return err
}

func (s *Store) resume(j *journal) (*revert, error) {
	r := &revert{s: s, path: string(j.Path), journal: j}
	for _, h := range s.headers() {
		var err error
		switch h.Seq {
		case j.Target:
			r.target, err = s.manifest(h)
		case j.Undo:
			r.undo, err = s.manifest(h)
		}
		if err != nil {
			return nil, err
		}
	}
	if r.target == nil || r.undo == nil {
		return nil, errors.New("a snapshot that it needs is not there")
	}
	return r, nil
}

// giveUp moves a journal aside that cannot be carried out, with what it had staged: that may be the only copy of something.
func (s *Store) giveUp(cause error) error {
	stamp := s.opts.Clock().UTC().Format("-20060102-150405.000")
	s.opts.Log.Error("a revert was cut off and cannot be carried out; what it left was moved to damaged/", "err", cause)
	names, err := list(s.dirs.revert, "")
	if err != nil {
		return fmt.Errorf("sweep: %w", err)
	}
	for _, name := range names {
		if err := moveDir(s.dirs.revert, name, s.dirs.damaged, name+stamp); err != nil {
			return fmt.Errorf("move aside: %w", err)
		}
	}
	if err := unix.Renameat(s.dirs.store, journalName, s.dirs.damaged, journalName+stamp); err != nil {
		return fmt.Errorf("move journal aside: %w", err)
	}
	return nil
}
