package snapshot

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"capsem/core/api"
	"capsem/core/fault"
)

// rig is a workspace and its store.
type rig struct {
	t    testing.TB
	dir  string
	s    *Store
	opts Options
}

func newRig(t testing.TB, change ...func(*Options)) *rig {
	t.Helper()
	r := &rig{t: t, dir: t.TempDir()}
	if err := os.Mkdir(r.dir+"/workspace", 0o700); err != nil {
		t.Fatal(err)
	}
	r.opts = Options{Workspace: r.dir + "/workspace", Dir: r.dir + "/snapshots", Log: slog.New(slog.NewTextHandler(logTo{t}, nil))}
	for _, c := range change {
		c(&r.opts)
	}
	r.open()
	t.Cleanup(func() { _ = r.s.Close() })
	return r
}

type logTo struct{ t testing.TB }

func (l logTo) Write(p []byte) (int, error) {
	l.t.Log(strings.TrimSpace(string(p)))
	return len(p), nil
}

func (r *rig) open() {
	r.t.Helper()
	s, err := Open(context.Background(), r.opts)
	if err != nil {
		r.t.Fatal(err)
	}
	r.s = s
}

func (r *rig) reopen() {
	r.t.Helper()
	if err := r.s.Close(); err != nil {
		r.t.Fatal(err)
	}
	r.open()
}

func (r *rig) path(p string) string { return filepath.Join(r.opts.Workspace, p) }

func (r *rig) write(p, text string) {
	r.t.Helper()
	if err := os.MkdirAll(filepath.Dir(r.path(p)), 0o755); err != nil {
		r.t.Fatal(err)
	}
	if err := os.WriteFile(r.path(p), []byte(text), 0o644); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) remove(p string) {
	r.t.Helper()
	if err := os.RemoveAll(r.path(p)); err != nil {
		r.t.Fatal(err)
	}
}

func (r *rig) take(origin, name string) api.SnapshotCreated {
	r.t.Helper()
	c, err := r.s.Create(context.Background(), origin, name)
	if err != nil {
		r.t.Fatalf("create %s %s: %v", origin, name, err)
	}
	return c
}

func (r *rig) manual(name string) string {
	r.t.Helper()
	return r.take(api.OriginManual, name).Checkpoint
}

func (r *rig) revert(path, id string) api.SnapshotReverted {
	r.t.Helper()
	d, err := r.s.Revert(context.Background(), path, id)
	if err != nil {
		r.t.Fatalf("revert %q to %s: %v", path, id, err)
	}
	return d
}

func (r *rig) list() api.SnapshotsReply {
	r.t.Helper()
	l, err := r.s.List(context.Background())
	if err != nil {
		r.t.Fatal(err)
	}
	return l
}

// tree is what is in a directory: for each path its kind, mode and content.
func tree(t testing.TB, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		what := info.Mode().String() + " "
		switch info.Mode().Type() {
		case 0:
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			what += string(data)
		case fs.ModeSymlink:
			target, err := os.Readlink(path)
			if err != nil {
				return err
			}
			what += target
		}
		out[strings.TrimPrefix(path, dir+"/")] = what
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func (r *rig) tree() map[string]string { r.t.Helper(); return tree(r.t, r.opts.Workspace) }

// held is what a snapshot holds, with contents read from the store, in the form of tree.
func held(t testing.TB, s *Store, id string) map[string]string {
	t.Helper()
	h, err := s.lookup(id)
	if err != nil {
		t.Fatal(err)
	}
	m, err := s.manifest(h)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for _, e := range m.entries {
		mode := fs.FileMode(e.mode & 0o777)
		if e.mode&unix.S_ISVTX != 0 {
			mode |= fs.ModeSticky
		}
		switch e.kind {
		case kindFile:
			f, err := s.OpenFile(context.Background(), id, e.path)
			if err != nil {
				t.Fatalf("%s in %s: %v", e.path, id, err)
			}
			data, err := io.ReadAll(f)
			if err := errors.Join(err, f.Close()); err != nil {
				t.Fatal(err)
			}
			out[e.path] = mode.String() + " " + string(data)
		case kindDir:
			out[e.path] = (mode | fs.ModeDir).String() + " "
		case kindSymlink:
			out[e.path] = (mode | fs.ModeSymlink).String() + " " + e.target
		}
	}
	return out
}

// clock is one that a test sets.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) read() time.Time { c.mu.Lock(); defer c.mu.Unlock(); return c.now }

func (c *clock) add(d time.Duration) { c.mu.Lock(); defer c.mu.Unlock(); c.now = c.now.Add(d) }

func wantFault(t testing.TB, err error, code fault.Code, text string) {
	t.Helper()
	if !fault.Is(err, code) || !strings.Contains(err.Error(), text) {
		t.Errorf("got %v, want %s with %q", err, code, text)
	}
}
