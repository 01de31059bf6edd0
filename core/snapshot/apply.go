package snapshot

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"golang.org/x/sys/unix"
)

// apply carries the steps out in the workspace: each one is a rename, and what was there is in revert/ afterwards.
func (r *revert) apply(ops []op, from int) error {
	for i, o := range ops {
		r.touched[parent(o.path)] = true
		if o.meta {
			r.touched[o.path] = true
			continue
		}
		if err := r.step(o, stagedName(from+i)); err != nil {
			return fmt.Errorf("change %s: %w", shown(o.path), err)
		}
	}
	// Modes last, deepest first: they may keep us out.
	for _, o := range slices.Backward(ops) {
		if o.meta {
			if err := r.inParent(o.path, func(dir int, name string) error { return finishDir(dir, name, &o.tree[0]) }); err != nil {
				return fmt.Errorf("change %s: %w", shown(o.path), err)
			}
		}
	}
	return r.times()
}

// times gives back their times to directories in which something was changed.
func (r *revert) times() error {
	if r.resumed {
		for _, e := range r.target.under(r.path) {
			r.touched[e.path] = e.kind == kindDir
		}
	}
	for path := range r.touched {
		e := r.target.find(path)
		if e == nil || e.kind != kindDir || !below(path, r.path) {
			continue
		}
		err := r.inParent(path, func(dir int, name string) error { return setTime(dir, name, e.mtime) })
		if err != nil {
			return fmt.Errorf("change %s: %w", shown(path), err)
		}
	}
	return nil
}

// step puts what is staged into its place and takes out what was there.
func (r *revert) step(o op, staged string) error {
	r.s.opts.during("apply", o.path)
	out := r.s.dirs.revert
	err := r.inParent(o.path, func(dir int, name string) error {
		r.s.opts.before("apply")
		if len(o.tree) == 0 {
			return moveDir(dir, name, out, staged)
		}
		for range maxRounds {
			err := exchange(out, staged, dir, name)
			if denied(err) {
				err = r.exchangeDirs(o, staged, dir, name)
			}
			if errors.Is(err, unix.ENOENT) {
				err = moveDir(out, staged, dir, name)
			}
			if !errors.Is(err, unix.EEXIST) { // somebody was faster
				return err
			}
		}
		return unix.ENOENT
	})
	if err == nil && len(o.tree) > 0 && o.tree[0].kind == kindDir {
		err = r.inParent(o.path, func(dir int, name string) error { return finishDir(dir, name, &o.tree[0]) })
	}
	return err
}

// exchangeDirs swaps what may be directories that we may not change, which therefore cannot be moved.
func (r *revert) exchangeDirs(o op, staged string, dir int, name string) error {
	for _, d := range []struct {
		dir  int
		name string
	}{{r.s.dirs.revert, staged}, {dir, name}} {
		f, err := openToChange(d.dir, d.name)
		if err == nil {
			err = f.Close()
		}
		if err != nil && !gone(err) {
			return fmt.Errorf("exchange %s: %w", shown(o.path), err)
		}
	}
	return exchange(r.s.dirs.revert, staged, dir, name)
}

// inParent does something to a name in its directory, which is changed by nobody but through this descriptor. Where the directory is no
// longer there, or is something else, the revert looks again.
func (r *revert) inParent(path string, do func(dir int, name string) error) error {
	f, _, err := openIn(r.s.root, parent(path), dirFlags)
	if err != nil {
		if gone(err) {
			r.again = true
			return nil
		}
		return err
	}
	defer f.Close()
	err = widened(int(f.Fd()), func() error { return do(int(f.Fd()), base(path)) })
	if gone(err) {
		r.again = true
		return nil
	}
	return err
}

// keepLate saves what was taken out of the workspace and is not what the undo snapshot has: somebody changed it after that was taken.
func (r *revert) keepLate(ctx context.Context) error {
	sc := &scanner{s: r.s, ctx: ctx, root: r.s.dirs.revert, store: true, base: r.undo, named: r.journal.path, moved: true}
	if err := sc.run(); err != nil {
		return fmt.Errorf("look at what was replaced: %w", err)
	}
	var late []entry
	for _, e := range sc.out.entries {
		e.path = r.journal.path(e.path)
		if e.path != "" && !known(&e, r.undo.find(e.path)) && !known(&e, r.target.find(e.path)) {
			late = append(late, e)
		}
	}
	if len(late) == 0 {
		return nil
	}
	r.s.opts.Log.Info("changes made during a revert are kept in its undo snapshot", "snapshot", r.undo.id(), "files", len(late))
	return r.amend(late)
}

// known reports whether an entry is what a snapshot has. Of a directory only its being there counts.
func known(e, in *entry) bool {
	return in != nil && e.kind == in.kind && (e.kind == kindDir || e.same(in))
}

// amend puts entries into the undo snapshot.
func (r *revert) amend(late []entry) error {
	m := *r.undo
	m.entries = slices.Clone(m.entries)
	slices.SortFunc(late, func(a, b entry) int { return treeOrder(a.path, b.path) })
	for _, e := range late {
		i, ok := slices.BinarySearchFunc(m.entries, e.path, func(e entry, p string) int { return treeOrder(e.path, p) })
		up := m.find(parent(e.path))
		if parent(e.path) != "" && (up == nil || up.kind != kindDir) || ok && (m.entries[i].kind == kindDir || e.kind == kindDir) {
			r.s.opts.Log.Warn("a change made during a revert cannot be kept: something else is in its place", "path", e.path)
			continue
		}
		if ok {
			m.entries[i] = e
		} else {
			m.entries = slices.Insert(m.entries, i, e)
		}
	}
	m.finish()
	named, err := r.s.writeManifest(&m)
	if !named {
		return err
	}
	old := r.undo
	r.s.objects.use(m.entries)
	r.s.mu.Lock()
	r.s.cache.put(&m)
	for i, h := range r.s.table {
		if h.Seq == m.Seq {
			r.s.table[i] = m.header
		}
	}
	r.s.mu.Unlock()
	r.undo = &m
	return errors.Join(err, r.s.objects.release(old.entries))
}
