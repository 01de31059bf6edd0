package snapshot

import (
	"context"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"capsem/core/api"
	"capsem/core/fault"
)

func TestADeletedDirectoryComesBackAndThatRevertCanBeReverted(t *testing.T) {
	r := newRig(t)
	r.write("src/a.go", "a")
	r.write("src/deep/b\xff.go", "b")
	r.write("keep", "keep")
	if err := os.Symlink("../nowhere", r.path("src/link")); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(r.path("src/a.go"), 0o751); err != nil {
		t.Fatal(err)
	}
	when := time.Unix(1_600_000_000, 123_000_000)
	for _, p := range []string{"src/a.go", "src/deep", "src"} {
		if err := os.Chtimes(r.path(p), when, when); err != nil {
			t.Fatal(err)
		}
	}
	want := r.tree()
	id := r.manual("before")
	r.remove("src")
	without := r.tree()

	done := r.revert("/root/src", "")
	if done.Action != api.ActionRestored || done.Checkpoint != id || done.Path != "src" || !done.Reverted {
		t.Errorf("it answers %+v", done)
	}
	if got := r.tree(); !maps.Equal(got, want) {
		t.Fatalf("it made\n%q\nwant\n%q", got, want)
	}
	for _, p := range []string{"src/a.go", "src/deep", "src"} {
		if info, err := os.Stat(r.path(p)); err != nil || !info.ModTime().Equal(when) {
			t.Errorf("%s was written %v, %v", p, info.ModTime(), err)
		}
	}
	if done = r.revert("src", done.Undo); done.Action != api.ActionDeleted {
		t.Errorf("it answers %+v", done)
	}
	if got := r.tree(); !maps.Equal(got, without) {
		t.Errorf("undoing it made\n%q", got)
	}
}

func TestRevertRefusesAndSaysWhy(t *testing.T) {
	r := newRig(t)
	r.write("a", "a")
	r.write("dir/b", "b")
	id := r.manual("one")
	r.remove("dir")
	r.write("dir", "now a file")
	r.write("later", "x")
	before := r.tree()
	for name, c := range map[string]struct {
		path, id string
		code     fault.Code
		text     string
	}{
		"the same":               {"a", id, fault.Conflict, "current already"},
		"the same in all":        {"a", "", fault.Conflict, "current already"},
		"up":                     {"../etc", id, fault.Invalid, "must not contain .."},
		"up in between":          {"a/../b", id, fault.Invalid, "must not contain .."},
		"elsewhere":              {"/etc/passwd", id, fault.Invalid, "outside of the workspace"},
		"nearly home":            {"/rootkit", id, fault.Invalid, "outside of the workspace"},
		"NUL":                    {"a\x00b", id, fault.Invalid, "not a path"},
		"too long":               {strings.Repeat("x", 300), id, fault.Invalid, "too long"},
		"in no snapshot":         {"later", "", fault.NotFound, "no snapshot has"},
		"nowhere":                {"nothing", id, fault.NotFound, "neither now nor"},
		"no such snapshot":       {"a", "cp-99", fault.NotFound, "no snapshot cp-99"},
		"no snapshot's name":     {"a", "99", fault.Invalid, "not a snapshot"},
		"below what is no more":  {"dir/b", id, fault.Conflict, "no directory now"},
		"an id with more digits": {"a", "cp-007", fault.Invalid, "not a snapshot"},
	} {
		_, err := r.s.Revert(context.Background(), c.path, c.id)
		wantFault(t, err, c.code, c.text)
		if got := r.tree(); !maps.Equal(got, before) || len(r.list().Snapshots) != 1 {
			t.Fatalf("%s: it changed something", name)
		}
	}
}

func TestRevertNeverWritesThroughAFileThatIsOpenOrHasOtherNames(t *testing.T) {
	r := newRig(t)
	r.write("f", "old")
	id := r.manual("one")
	r.write("f", "now")
	if err := os.Link(r.path("f"), r.path("twin")); err != nil {
		t.Fatal(err)
	}
	open, err := os.Open(r.path("f"))
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close()
	r.revert("f", id)
	text := make([]byte, 8)
	n, _ := open.Read(text)
	twin, err := os.ReadFile(r.path("twin"))
	if string(text[:n]) != "now" || string(twin) != "now" || err != nil {
		t.Errorf("whoever has it open reads %q, under its other name it is %q, %v", text[:n], twin, err)
	}
	if got := r.tree()["f"]; !strings.HasSuffix(got, " old") {
		t.Errorf("it is %q", got)
	}
}

func TestAttributesAndModesComeBack(t *testing.T) {
	r := newRig(t)
	r.write("f", "same")
	r.write("d/x", "x")
	for _, p := range []string{"f", "d"} {
		if err := unix.Setxattr(r.path(p), "user.colour", []byte("red"), 0); err != nil {
			t.Skipf("this file system has no attributes: %v", err)
		}
	}
	id := r.manual("one")
	for _, p := range []string{"f", "d"} {
		if err := unix.Setxattr(r.path(p), "user.colour", []byte("blue"), 0); err != nil {
			t.Fatal(err)
		}
		if err := unix.Setxattr(r.path(p), "user.more", nil, 0); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(r.path("d"), 0o700); err != nil {
		t.Fatal(err)
	}
	got, err := r.s.Changes(context.Background())
	if err != nil || len(got.Changes) != 2 || got.Changes[0].Op != api.OpModified || !got.Changes[0].IsDir {
		t.Errorf("changes: %+v, %v", got, err)
	}
	r.revert("", id)
	buf := make([]byte, 64)
	for _, p := range []string{"f", "d"} {
		n, err := unix.Getxattr(r.path(p), "user.colour", buf)
		if err != nil || string(buf[:n]) != "red" {
			t.Errorf("%s is %q, %v", p, buf[:max(n, 0)], err)
		}
		if _, err := unix.Getxattr(r.path(p), "user.more", buf); err == nil {
			t.Errorf("%s kept an attribute that it did not have", p)
		}
	}
	if info, _ := os.Stat(r.path("d")); info.Mode().Perm() != 0o755 {
		t.Errorf("its mode is %v", info.Mode())
	}
}

func TestWhatIsChangedDuringARevertIsKeptInItsUndo(t *testing.T) {
	var r *rig
	done := false
	r = newRig(t, func(o *Options) {
		o.during = func(step, path string) {
			if step != "apply" || path != "dir" || done {
				return
			}
			done = true // after the undo snapshot was taken
			r.write("dir/late", "written late")
			r.write("dir/old", "changed late")
		}
	})
	r.write("a", "1")
	id := r.manual("one")
	r.write("a", "2")
	r.write("dir/old", "old")
	back := r.revert("", id)
	if !done {
		t.Fatal("nothing was changed late")
	}
	if got := r.tree(); len(got) != 1 || !strings.HasSuffix(got["a"], " 1") {
		t.Errorf("it made %q", got)
	}
	r.revert("", back.Undo)
	got := r.tree()
	if !strings.HasSuffix(got["dir/late"], " written late") || !strings.HasSuffix(got["dir/old"], " changed late") || !strings.HasSuffix(got["a"], " 2") {
		t.Errorf("undoing it made %q", got)
	}
}

func TestADamagedContentStopsARevertBeforeItChangesAnything(t *testing.T) {
	r := newRig(t)
	r.write("a", "good")
	r.write("b", "fine")
	id := r.manual("one")
	r.write("a", "now")
	r.remove("b")
	before := r.tree()
	objects, _ := filepath.Glob(r.opts.Dir + "/objects/*/*")
	for _, o := range objects {
		if text, _ := os.ReadFile(o); string(text) == "good" {
			if err := os.Chmod(o, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(o, []byte("evil"), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	_, err := r.s.Revert(context.Background(), "", id)
	wantFault(t, err, fault.Unavailable, "is damaged")
	if got := r.tree(); !maps.Equal(got, before) {
		t.Errorf("it changed the workspace: %q", got)
	}
	r.revert("b", id) // the rest can be used
	if _, err = r.s.OpenFile(context.Background(), id, "a"); err == nil {
		t.Error("a damaged content can be read")
	}
	r.write("a", "good")
	r.manual("two") // stores that content anew
	r.reopen()
	if got := held(t, r.s, id); !strings.HasSuffix(got["a"], " good") {
		t.Errorf("it is %q", got)
	}
}

func TestADamagedManifestIsMovedAsideAndNamed(t *testing.T) {
	r := newRig(t)
	r.write("a", "1")
	one := r.manual("one")
	r.write("a", "2")
	two := r.manual("two")
	name := r.opts.Dir + "/manifests/" + two
	data, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	data[len(data)/2] ^= 1
	if err := os.WriteFile(name, data, 0o600); err != nil {
		t.Fatal(err)
	}
	r.reopen()
	if l := r.list(); len(l.Snapshots) != 1 || len(l.Damaged) != 1 || l.Damaged[0] != two {
		t.Errorf("it lists %+v", l)
	}
	_, err = r.s.Revert(context.Background(), "a", two)
	wantFault(t, err, fault.Unavailable, two+" is damaged")
	r.revert("a", one)
	if aside, _ := filepath.Glob(r.opts.Dir + "/damaged/*"); len(aside) != 1 {
		t.Errorf("moved aside: %v", aside)
	}
}
