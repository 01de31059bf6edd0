package snapshot

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"capsem/core/api"
)

// copyDir copies a directory as a crash leaves it: what the process has in memory is gone.
func copyDir(t *testing.T, from, to string) {
	t.Helper()
	err := filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		dst := to + strings.TrimPrefix(path, from)
		info, err := d.Info()
		if err != nil {
			return err
		}
		switch info.Mode().Type() {
		case fs.ModeDir:
			if err := os.Mkdir(dst, 0o700); err != nil {
				return err
			}
			return os.Chmod(dst, info.Mode().Perm())
		case fs.ModeSymlink:
			target, err := os.Readlink(path)
			if err != nil {
				return err
			}
			return os.Symlink(target, dst)
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		return errors.Join(os.WriteFile(dst, data, 0o600), os.Chmod(dst, info.Mode().Perm()), os.Chtimes(dst, info.ModTime(), info.ModTime()))
	})
	if err != nil {
		t.Fatal(err)
	}
}

// crashCase is something that is cut off before each of its steps.
type crashCase struct {
	do func(r *rig) error
	// changes says that it changes the workspace.
	changes bool
}

func TestACrashAtAnyStepLeavesEverySnapshotWholeAndTheWorkspaceOldOrNew(t *testing.T) {
	ctx := context.Background()
	for name, c := range map[string]crashCase{
		"create": {do: func(r *rig) error { _, err := r.s.Create(ctx, api.OriginManual, "x"); return err }},
		"auto that overwrites": {do: func(r *rig) error {
			_, err := r.s.Create(ctx, api.OriginAuto, "")
			return err
		}},
		"delete": {do: func(r *rig) error { return r.s.Delete(ctx, "cp-3") }},
		"compact": {do: func(r *rig) error {
			_, err := r.s.Compact(ctx, []string{"cp-0", "cp-2", "cp-3"}, "")
			return err
		}},
		"revert of all":         {do: func(r *rig) error { _, err := r.s.Revert(ctx, "", "cp-2"); return err }, changes: true},
		"revert of a file":      {do: func(r *rig) error { _, err := r.s.Revert(ctx, "dir/file", "cp-2"); return err }, changes: true},
		"revert of a directory": {do: func(r *rig) error { _, err := r.s.Revert(ctx, "dir", "cp-2"); return err }, changes: true},
		"deleting by revert":    {do: func(r *rig) error { _, err := r.s.Revert(ctx, "new", "cp-2"); return err }, changes: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			crash(t, c)
		})
	}
}

func crash(t *testing.T, c crashCase) {
	var r *rig
	copies := t.TempDir()
	var steps []string
	armed := false
	r = newRig(t, func(o *Options) {
		o.AutoMax, o.ManualMax, o.Log, o.readers = 2, 3, nil, 1
		o.before = func(step string) {
			if armed {
				copyDir(t, r.dir, filepath.Join(copies, strconv.Itoa(len(steps))))
				steps = append(steps, step)
			}
		}
	})
	history(r)
	old, before := heldAll(t, r.s), r.tree()
	armed = true
	if err := c.do(r); err != nil {
		t.Fatal(err)
	}
	armed = false
	after := r.tree()
	if len(steps) < 2 || c.changes == maps.Equal(before, after) {
		t.Fatalf("it did %q", steps)
	}
	fresh := heldAll(t, r.s)
	for i, step := range steps {
		dir := filepath.Join(copies, strconv.Itoa(i))
		at := fmt.Sprintf("cut off before %q (%d)", step, i)
		afterCrash(t, at, dir, r.opts, func(s *Store) {
			got := tree(t, dir+"/workspace")
			if !maps.Equal(got, before) && !maps.Equal(got, after) {
				t.Errorf("%s: the workspace is\n%q", at, got)
			}
			for id, what := range heldAll(t, s) {
				if !maps.Equal(what, old[id]) && !maps.Equal(what, fresh[id]) {
					t.Errorf("%s: %s holds\n%q", at, id, what)
				}
			}
			for id := range old {
				if _, err := s.lookup(id); err != nil && fresh[id] != nil {
					t.Errorf("%s: %v", at, err)
				}
			}
			if maps.Equal(got, after) && c.changes {
				undone(t, at, s, before, dir)
			}
		})
	}
}

// history makes snapshots with all kinds of changes between them, and after them.
func history(r *rig) {
	r.write("dir/file", "one")
	r.write("dir/gone/deep", "gone")
	r.write("kind", "a file")
	r.take(api.OriginAuto, "")
	r.write("dir/other", "other")
	r.take(api.OriginAuto, "")
	r.manual("first")
	r.write("dir/file", "two")
	r.manual("second")
	r.remove("dir/gone")
	r.remove("kind")
	r.write("kind/now", "a directory")
	r.write("new", "new")
	r.write("dir/file", "three")
}

// undone checks that a revert that was carried out after a crash can be undone.
func undone(t *testing.T, at string, s *Store, before map[string]string, dir string) {
	t.Helper()
	h, ok := s.newest(api.OriginRevert)
	if !ok {
		t.Errorf("%s: there is nothing to undo it with", at)
		return
	}
	if _, err := s.Revert(context.Background(), "", h.id()); err != nil {
		t.Errorf("%s: %v", at, err)
	}
	if got := tree(t, dir+"/workspace"); !maps.Equal(got, before) {
		t.Errorf("%s: undoing it made\n%q", at, got)
	}
}

// afterCrash opens a store as it was left, and checks that nothing half-made is in it.
func afterCrash(t *testing.T, at, dir string, opts Options, check func(s *Store)) {
	t.Helper()
	opts.Workspace, opts.Dir, opts.before = dir+"/workspace", dir+"/snapshots", nil
	s, err := Open(context.Background(), opts)
	if err != nil {
		t.Fatalf("%s: %v", at, err)
	}
	defer s.Close()
	for _, d := range []string{"tmp", "revert", "damaged"} {
		if left, _ := filepath.Glob(opts.Dir + "/" + d + "/*"); len(left) > 0 {
			t.Errorf("%s: left %v", at, left)
		}
	}
	if _, err := os.Stat(opts.Dir + "/journal"); err == nil {
		t.Errorf("%s: left the journal", at)
	}
	s.objects.mu.Lock()
	for h, o := range s.objects.known {
		if o.refs < 1 || o.lost {
			t.Errorf("%s: object %s: %+v", at, h, *o)
		}
	}
	s.objects.mu.Unlock()
	check(s)
}

func heldAll(t *testing.T, s *Store) map[string]map[string]string {
	t.Helper()
	out := map[string]map[string]string{}
	for _, h := range s.headers() {
		out[h.id()] = held(t, s, h.id())
	}
	return out
}

func TestARevertThatCannotBeCarriedOutDoesNotKeepTheOtherSnapshotsClosed(t *testing.T) {
	var r *rig
	copied := t.TempDir() + "/copy"
	r = newRig(t, func(o *Options) {
		o.readers = 1
		o.before = func(step string) {
			if step == "apply" {
				if _, err := os.Stat(copied); err != nil {
					copyDir(t, r.dir, copied)
				}
			}
		}
	})
	r.write("a", "old")
	id := r.manual("one")
	r.write("a", "now")
	r.write("b", "b")
	r.revert("a", id)
	objects, _ := filepath.Glob(copied + "/snapshots/objects/*/*")
	for _, o := range objects {
		if text, _ := os.ReadFile(o); string(text) == "old" {
			if err := errors.Join(os.Chmod(o, 0o600), os.WriteFile(o, []byte("bad"), 0o600)); err != nil {
				t.Fatal(err)
			}
		}
	}
	opts := r.opts
	opts.Workspace, opts.Dir, opts.before = copied+"/workspace", copied+"/snapshots", nil
	s, err := Open(context.Background(), opts)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if aside, _ := filepath.Glob(opts.Dir + "/damaged/journal-*"); len(aside) != 1 {
		t.Errorf("moved aside: %v", aside)
	}
	undo, _ := s.newest(api.OriginRevert)
	if got := held(t, s, undo.id()); !strings.HasSuffix(got["a"], " now") || !strings.HasSuffix(got["b"], " b") {
		t.Errorf("the undo holds %q", got)
	}
	if _, err := s.Create(context.Background(), api.OriginManual, "works"); err != nil {
		t.Error(err)
	}
}
