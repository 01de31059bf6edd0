package snapshot

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// stager builds what a revert puts into the workspace, in revert/, under the names s-0, s-1 and so on. Each content is checked.
type stager struct {
	s    *Store
	ctx  context.Context //nolint:containedctx // lives as long as one call
	room *holding
	in   *os.File // the directory that was used last
	at   string
}

func stagedName(n int) string { return "s-" + strconv.Itoa(n) }

// stage builds what the steps need. It changes nothing in the workspace.
func (s *Store) stage(ctx context.Context, room *holding, ops []op, from int) error {
	st := &stager{s: s, ctx: ctx, room: room, at: "\x00"}
	defer st.leave()
	for i, o := range ops {
		if len(o.tree) == 0 || o.meta {
			continue
		}
		if err := st.tree(stagedName(from+i), o.tree); err != nil {
			return fmt.Errorf("prepare %s: %w", shown(o.path), err)
		}
	}
	return nil
}

// tree builds an entry and all below it. Directories get their modes and times last, as those may keep us out or change.
func (st *stager) tree(name string, tree []entry) error {
	top := len(tree[0].path)
	for i := range tree {
		if err := st.ctx.Err(); err != nil {
			return context.Cause(st.ctx) //nolint:wrapcheck // stage does
		}
		if err := st.entry(name+tree[i].path[top:], &tree[i]); err != nil {
			return err
		}
	}
	for i := len(tree) - 1; i >= 0; i-- {
		if tree[i].kind != kindDir {
			continue
		}
		to := name + tree[i].path[top:]
		if err := st.enter(parent(to)); err != nil {
			return err
		}
		if err := finishDir(int(st.in.Fd()), base(to), &tree[i]); err != nil {
			return err
		}
	}
	return nil
}

func (st *stager) entry(to string, e *entry) error {
	if err := st.enter(parent(to)); err != nil {
		return err
	}
	cost := int64(nameCost)
	if e.kind == kindDir {
		cost += dirCost
	}
	if err := st.room.take(cost + int64(len(e.target))); err != nil {
		return err
	}
	st.s.opts.before("stage")
	dir, name := int(st.in.Fd()), base(to)
	switch e.kind {
	case kindDir:
		return unix.Mkdirat(dir, name, 0o700)
	case kindSymlink:
		if err := unix.Symlinkat(e.target, dir, name); err != nil {
			return err
		}
		return errors.Join(own(dir, name, e), setTime(dir, name, e.mtime))
	case kindFile:
		return st.file(dir, name, e)
	}
	return nil
}

func (st *stager) file(dir int, name string, e *entry) error {
	src, err := st.s.objects.open(e.hash)
	if err != nil {
		return err
	}
	defer src.Close()
	f, h, err := st.s.objects.duplicate(st.ctx, src, e.size, dir, name, st.room.take)
	if err != nil {
		return err
	}
	defer f.Close()
	if info, err := statFD(int(src.Fd())); err != nil || h != e.hash || info.size != e.size {
		return errors.Join(err, st.s.objects.spoiled(e.hash))
	}
	if err := writeXattrs(int(f.Fd()), e.xattrs); err != nil {
		return fmt.Errorf("set attributes: %w", err)
	}
	if err := errors.Join(own(dir, name, e), unix.Fchmod(int(f.Fd()), e.mode)); err != nil {
		return fmt.Errorf("set mode: %w", err)
	}
	return setTime(dir, name, e.mtime)
}

// enter makes a directory below revert/ the one that is used.
func (st *stager) enter(path string) error {
	if st.at == path {
		return nil
	}
	st.leave()
	fd, err := openBeneath(st.s.dirs.revert, path, dirFlags)
	if err != nil {
		return err
	}
	st.in, st.at = os.NewFile(uintptr(fd), path), path
	return nil
}

func (st *stager) leave() {
	if st.in != nil {
		_ = st.in.Close()
	}
	st.in, st.at = nil, "\x00"
}

// finishDir gives a directory the attributes, mode and time of its entry.
func finishDir(dir int, name string, e *entry) error {
	f, err := openToChange(dir, name)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := writeXattrs(int(f.Fd()), e.xattrs); err != nil {
		return fmt.Errorf("set attributes: %w", err)
	}
	if err := errors.Join(own(dir, name, e), unix.Fchmod(int(f.Fd()), e.mode)); err != nil {
		return fmt.Errorf("set mode: %w", err)
	}
	return setTime(dir, name, e.mtime)
}

// own gives an entry its owner back, if we may: only a worker that runs as root can have files of others.
func own(dir int, name string, e *entry) error {
	st, err := statAt(dir, name)
	if err != nil || st.uid == e.uid && st.gid == e.gid {
		return err
	}
	if err := unix.Fchownat(dir, name, int(e.uid), int(e.gid), unix.AT_SYMLINK_NOFOLLOW); err != nil && !denied(err) {
		return err
	}
	return nil
}

// setTime sets when an entry was last written.
func setTime(dir int, name string, mtime int64) error {
	ts := unix.NsecToTimespec(mtime)
	return unix.UtimesNanoAt(dir, name, []unix.Timespec{ts, ts}, unix.AT_SYMLINK_NOFOLLOW)
}
