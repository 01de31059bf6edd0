package snapshot

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"capsem/core/api"
	"capsem/core/fault"
)

// edit changes something in the workspace at random.
func edit(r *rig, rnd *rand.Rand) {
	names := []string{"a", "b", "a-b", "c\xff", "d e", "ü"}
	path := ""
	for range 1 + rnd.IntN(4) {
		path = filepath.Join(path, names[rnd.IntN(len(names))])
	}
	full := r.path(path)
	info, err := os.Lstat(full)
	switch what := rnd.IntN(10); {
	case err == nil && what < 2:
		_ = os.RemoveAll(full)
	case err == nil && what < 4 && info.Mode().Type() != os.ModeSymlink:
		_ = os.Chmod(full, os.FileMode(0o700|rnd.IntN(0o100)))
	case err == nil && what < 5:
		_ = os.Rename(full, r.path(names[rnd.IntN(len(names))]))
	case err == nil && !info.Mode().IsRegular():
	default:
		if os.MkdirAll(filepath.Dir(full), 0o755) != nil {
			return
		}
		switch what {
		case 9:
			_ = os.Symlink(names[rnd.IntN(len(names))], full)
		case 8:
			_ = os.Mkdir(full, 0o750)
		default: // often of the same size
			_ = os.WriteFile(full, []byte(strings.Repeat(string(rune('0'+rnd.IntN(10))), 3)), 0o644)
		}
	}
}

// model is what the snapshots ought to hold.
type model struct {
	r    *rig
	held map[string]map[string]string
	// newest first in time: ids in the order they were made.
	order []string
}

func (m *model) made(id string, what map[string]string) {
	m.order = append(slices.DeleteFunc(m.order, func(o string) bool { return o == id }), id)
	m.held[id] = what
}

func (m *model) drop(id string) {
	m.order = slices.DeleteFunc(m.order, func(o string) bool { return o == id })
	delete(m.held, id)
}

// sub is what is at a path and below it.
func sub(all map[string]string, path string) map[string]string {
	out := map[string]string{}
	for p, w := range all {
		if below(p, path) {
			out[p] = w
		}
	}
	return out
}

func (m *model) check(step string) {
	m.r.t.Helper()
	l := m.r.list()
	var ids []string
	for _, s := range l.Snapshots {
		ids = append(ids, s.Checkpoint)
	}
	if !slices.Equal(ids, m.order) {
		m.r.t.Fatalf("%s: snapshots %v, want %v", step, ids, m.order)
	}
	for id, want := range m.held {
		if got := held(m.r.t, m.r.s, id); !maps.Equal(got, want) {
			m.r.t.Fatalf("%s: %s holds\n%q\nwant\n%q", step, id, got, want)
		}
	}
	refs := map[hash]bool{}
	for _, h := range m.r.s.headers() {
		mf, err := m.r.s.manifest(h)
		if err != nil {
			m.r.t.Fatal(err)
		}
		for _, e := range mf.entries {
			refs[e.hash] = refs[e.hash] || e.kind == kindFile
		}
	}
	delete(refs, hash{})
	if stored, _ := filepath.Glob(m.r.opts.Dir + "/objects/*/*"); len(stored) != len(refs) {
		m.r.t.Fatalf("%s: %d objects are stored, %d are needed", step, len(stored), len(refs))
	}
}

// expectChanges checks the answer of Changes against the model.
func (m *model) expectChanges(step string) {
	m.r.t.Helper()
	got, err := m.r.s.Changes(context.Background())
	if err != nil {
		m.r.t.Fatal(err)
	}
	now := m.r.tree()
	dir := func(w string) bool { return strings.HasPrefix(w, "d") }
	want := map[string]string{}
	for _, id := range slices.Backward(m.order) {
		was := m.held[id]
		for p := range maps.Keys(merged(was, now)) {
			if want[p] != "" || was[p] == now[p] {
				continue
			}
			a, inA := was[p]
			b, inB := now[p]
			switch {
			case !inA && (!dir(b) || len(sub(now, p)) == 1):
				want[p] = id + " created"
			case !inB && inA && (!dir(a) || len(sub(was, p)) == 1):
				want[p] = id + " deleted"
			case inA && inB && dir(b) && !dir(a):
				want[p] = id + " deleted"
			case inA && inB && dir(a) && !dir(b):
				want[p] = id + " created"
			case inA && inB:
				want[p] = id + " modified"
			}
		}
	}
	have := map[string]string{}
	for _, c := range got.Changes {
		if have[c.Path] != "" {
			m.r.t.Errorf("%s: %q is told of twice", step, c.Path)
		}
		have[c.Path] = c.Checkpoint + " " + c.Op
	}
	if !maps.Equal(have, want) {
		m.r.t.Fatalf("%s: changes\n%q\nwant\n%q", step, have, want)
	}
}

func merged(a, b map[string]string) map[string]string {
	out := maps.Clone(a)
	maps.Copy(out, b)
	return out
}

func (m *model) someID(rnd *rand.Rand) string {
	if len(m.order) == 0 {
		return "cp-0"
	}
	return m.order[rnd.IntN(len(m.order))]
}

func (m *model) create(rnd *rand.Rand, step string) {
	origin, name := api.OriginAuto, ""
	if rnd.IntN(2) == 0 {
		origin, name = api.OriginManual, "n"
	}
	c, err := m.r.s.Create(context.Background(), origin, name)
	if fault.Is(err, fault.LimitReached) {
		return
	}
	if err != nil {
		m.r.t.Fatalf("%s: %v", step, err)
	}
	if !c.Unchanged {
		m.made(c.Checkpoint, m.r.tree())
	} else if !maps.Equal(m.held[c.Checkpoint], m.r.tree()) {
		m.r.t.Fatalf("%s: %s is not what there is", step, c.Checkpoint)
	}
}

func (m *model) revert(rnd *rand.Rand, step string) {
	id, path := m.someID(rnd), ""
	all := slices.Sorted(maps.Keys(merged(m.held[id], m.r.tree())))
	if rnd.IntN(4) > 0 && len(all) > 0 {
		path = all[rnd.IntN(len(all))]
	}
	before := m.r.tree()
	d, err := m.r.s.Revert(context.Background(), path, id)
	after := m.r.tree()
	if err != nil {
		if !maps.Equal(before, after) {
			m.r.t.Fatalf("%s: a revert that failed changed something: %v", step, err)
		}
		if !fault.Is(err, fault.Conflict) && !fault.Is(err, fault.NotFound) {
			m.r.t.Fatalf("%s: %v", step, err)
		}
		if fault.Is(err, fault.Conflict) && strings.Contains(err.Error(), "already") && !maps.Equal(sub(before, path), sub(m.held[id], path)) {
			m.r.t.Fatalf("%s: it is not current: %v", step, err)
		}
		return
	}
	if want := sub(m.held[id], path); !maps.Equal(sub(after, path), want) {
		m.r.t.Fatalf("%s: revert of %q to %s made\n%q\nwant\n%q", step, path, id, sub(after, path), want)
	}
	for p, w := range before {
		if !below(p, path) && after[p] != w {
			m.r.t.Fatalf("%s: revert of %q changed %q", step, path, p)
		}
	}
	m.made(d.Undo, before)
}

func (m *model) compact(rnd *rand.Rand, step string) {
	var ids []string
	for range 1 + rnd.IntN(3) {
		ids = append(ids, m.someID(rnd))
	}
	c, err := m.r.s.Compact(context.Background(), ids, "")
	if err != nil {
		if !fault.Is(err, fault.LimitReached) {
			m.r.t.Fatalf("%s: %v", step, err)
		}
		return
	}
	all := map[string]string{}
	for _, id := range slices.Clone(m.order) {
		if !slices.Contains(ids, id) {
			continue
		}
		for p, w := range m.held[id] { // newest wins, and hides what it has no directory for
			for q := range maps.Clone(all) {
				if q != p && below(q, p) && !strings.HasPrefix(w, "d") {
					delete(all, q)
				}
			}
			all[p] = w
		}
	}
	for _, id := range c.DeletedCheckpoints {
		m.drop(id)
	}
	m.made(c.Checkpoint, all)
}

func TestRandomEditsSnapshotsRevertsAndDeletesAgreeWithAModel(t *testing.T) {
	for seed := range uint64(4) {
		t.Run(strconv.FormatUint(seed, 10), func(t *testing.T) {
			t.Parallel()
			rnd := rand.New(rand.NewPCG(seed, 1))
			r := newRig(t, func(o *Options) { o.AutoMax, o.ManualMax, o.Log = 3, 3, nil })
			m := &model{r: r, held: map[string]map[string]string{}}
			for n := range 120 {
				step := fmt.Sprintf("step %d", n)
				switch rnd.IntN(12) {
				case 0, 1, 2:
					m.create(rnd, step)
				case 3, 4:
					if len(m.order) > 0 {
						m.revert(rnd, step)
					}
				case 5:
					id := m.someID(rnd)
					if err := r.s.Delete(context.Background(), id); err == nil {
						m.drop(id)
					} else if !fault.Is(err, fault.Forbidden) && !fault.Is(err, fault.NotFound) {
						t.Fatal(err)
					}
				case 6:
					if len(m.order) > 0 {
						m.compact(rnd, step)
					}
				case 7:
					m.expectChanges(step)
				case 8:
					r.reopen()
				default:
					for range 4 {
						edit(r, rnd)
					}
					continue
				}
				m.check(step)
			}
		})
	}
}
