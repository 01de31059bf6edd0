package snapshot

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"capsem/core/api"
	"capsem/core/fault"
)

// settled waits until no file may change any more without its times showing it.
func settled(t testing.TB) {
	t.Helper()
	timer := time.NewTimer(coarse + coarse/2)
	defer timer.Stop()
	<-timer.C
}

func TestOneChangeAmongTenThousandFilesReadsOneFile(t *testing.T) {
	r := newRig(t)
	for i := range 10_000 {
		r.write(fmt.Sprintf("d%d/f%d", i%100, i), fmt.Sprint("file ", i))
	}
	settled(t)
	r.manual("one")
	if n := r.s.counts.read.Load(); n != 10_000 {
		t.Fatalf("the first read %d files", n)
	}
	r.reopen() // what is known is in the newest manifest
	r.write("d7/f7", "Xile 7")
	settled(t)
	r.manual("two")
	if read, walks := r.s.counts.read.Load(), r.s.counts.walks.Load(); read != 1 || walks != 1 {
		t.Errorf("it read %d files in %d walks, want 1 in 1", read, walks)
	}
	changes := r.list().Snapshots[1].Changes
	if len(changes) != 1 || changes[0].Path != "d7/f7" || changes[0].Op != api.OpModified {
		t.Errorf("changes: %+v", changes)
	}
	if objects, _ := filepath.Glob(r.opts.Dir + "/objects/*/*"); len(objects) != 10_001 {
		t.Errorf("%d objects", len(objects))
	}
}

func TestAnEditOfTheSameSizeAndTimeIsSeen(t *testing.T) {
	r := newRig(t)
	r.write("f", "one")
	info, err := os.Stat(r.path("f"))
	if err != nil {
		t.Fatal(err)
	}
	id := r.manual("a")
	r.write("f", "two")
	if err := os.Chtimes(r.path("f"), info.ModTime(), info.ModTime()); err != nil {
		t.Fatal(err)
	}
	got, err := r.s.Changes(context.Background())
	if err != nil || len(got.Changes) != 1 || got.Changes[0].Op != api.OpModified || got.Changes[0].Checkpoint != id {
		t.Errorf("changes: %+v, %v", got, err)
	}
}

func TestTouchingAFileIsNoChange(t *testing.T) {
	r := newRig(t)
	r.write("f", "one")
	first := r.take(api.OriginAuto, "")
	if err := os.Chtimes(r.path("f"), time.Now(), time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	if c := r.take(api.OriginAuto, ""); !c.Unchanged || c.Checkpoint != first.Checkpoint || c.Hash != first.Hash {
		t.Errorf("it answers %+v", c)
	}
}

func TestTheRingGoesRoundAndManualSlotsAreNeverOverwritten(t *testing.T) {
	r := newRig(t, func(o *Options) { o.AutoMax, o.ManualMax = 3, 2 })
	if c := r.take(api.OriginAuto, ""); c.Checkpoint != "cp-0" || c.Unchanged || c.Available != 2 {
		t.Errorf("the first, of nothing: %+v", c)
	}
	r.write("f", "manual")
	one, two := r.manual("same"), r.manual("same")
	if one != "cp-3" || two != "cp-4" {
		t.Errorf("manual ones are %s and %s", one, two)
	}
	_, err := r.s.Create(context.Background(), api.OriginManual, "more")
	wantFault(t, err, fault.LimitReached, "all 2 manual snapshots are taken")
	var ids []string
	for i := range 5 {
		r.write("f", strconv.Itoa(i))
		ids = append(ids, r.take(api.OriginAuto, "").Checkpoint)
	}
	if got := strings.Join(ids, " "); got != "cp-1 cp-2 cp-0 cp-1 cp-2" {
		t.Errorf("the ring went %s", got)
	}
	if err := r.s.Delete(context.Background(), one); err != nil {
		t.Fatal(err)
	}
	if id := r.manual("again"); id != one {
		t.Errorf("it went to %s, but %s is free", id, one)
	}
	if got := held(t, r.s, two)["f"]; !strings.HasSuffix(got, "manual") {
		t.Errorf("%s holds %q", two, got)
	}
	l := r.list()
	if l.AutoMax != 3 || l.ManualMax != 2 || l.ManualAvailable != 0 || len(l.Snapshots) != 5 {
		t.Errorf("it lists %+v", l)
	}
	wantFault(t, r.s.Delete(context.Background(), "cp-0"), fault.Forbidden, "automatic")
	wantFault(t, r.s.Delete(context.Background(), "cp-9"), fault.NotFound, "no snapshot cp-9")
}

func TestOtherLimitsMoveNoSnapshot(t *testing.T) {
	r := newRig(t, func(o *Options) { o.AutoMax, o.ManualMax = 2, 2 })
	r.write("f", "0")
	r.take(api.OriginAuto, "")
	manual := r.manual("kept") // cp-2
	for _, max := range []int{4, 1} {
		r.opts.AutoMax = max
		r.reopen()
		for i := range 6 {
			r.write("f", fmt.Sprint(max, i))
			r.take(api.OriginAuto, "")
		}
		n := 0
		for _, s := range r.list().Snapshots {
			if s.Origin == api.OriginAuto {
				n++
			}
		}
		if n != max || !strings.HasSuffix(held(t, r.s, manual)["f"], "0") {
			t.Errorf("with %d there are %d, and %s holds %q", max, n, manual, held(t, r.s, manual)["f"])
		}
	}
}

func TestASlotThatIsReadIsNotOverwritten(t *testing.T) {
	r := newRig(t, func(o *Options) { o.AutoMax = 2 })
	r.write("f", "0")
	first := r.take(api.OriginAuto, "").Checkpoint
	f, err := r.s.OpenFile(context.Background(), first, "/root/f")
	if err != nil {
		t.Fatal(err)
	}
	for i := range 4 {
		r.write("f", fmt.Sprint("new ", i))
		if id := r.take(api.OriginAuto, "").Checkpoint; id == first {
			t.Errorf("%s was overwritten while it was read", id)
		}
	}
	text, err := io.ReadAll(f)
	if string(text) != "0" || err != nil || f.Size != 1 || f.Mode != 0o644 {
		t.Errorf("it reads %q, %v, %+v", text, err, f)
	}
	if err := errors.Join(f.Close(), f.Close()); err != nil {
		t.Error(err)
	}
	r.write("f", "last")
	if id := r.take(api.OriginAuto, "").Checkpoint; id != first {
		t.Errorf("it went to %s", id)
	}
}

func TestNamesAreChecked(t *testing.T) {
	r := newRig(t)
	for _, name := range []string{"", "a b", "ü", "a/b", "..", strings.Repeat("x", 65), "a\x00"} {
		_, err := r.s.Create(context.Background(), api.OriginManual, name)
		wantFault(t, err, fault.Invalid, "not a name")
	}
	r.manual(strings.Repeat("x", 64))
	_, err := r.s.Create(context.Background(), api.OriginRevert, "x")
	wantFault(t, err, fault.Invalid, "not a kind")
}

func TestOneProcessHasAStoreOpen(t *testing.T) {
	r := newRig(t)
	_, err := Open(context.Background(), r.opts)
	wantFault(t, err, fault.Conflict, "another process")
	if err := r.s.Close(); err != nil {
		t.Fatal(err)
	}
	for name, err := range map[string]error{
		"create": func() error { _, err := r.s.Create(context.Background(), api.OriginAuto, ""); return err }(),
		"list":   func() error { _, err := r.s.List(context.Background()); return err }(),
	} {
		if !fault.Is(err, fault.Unavailable) {
			t.Errorf("%s of a closed store: %v", name, err)
		}
	}
	r.open()
	bad := r.opts
	for _, n := range []int{-1, 51} {
		bad.AutoMax = n
		_, err := Open(context.Background(), bad)
		wantFault(t, err, fault.OutOfRange, "outside 1-50")
	}
}

func TestTheQuotaIsAClearErrorAndLeavesNothing(t *testing.T) {
	r := newRig(t, func(o *Options) { o.Quota = 3 << 20 })
	r.write("small", "fits")
	id := r.manual("one")
	used := r.s.Used()
	r.write("large", string(bytes.Repeat([]byte("large file "), 1<<19)))
	_, err := r.s.Create(context.Background(), api.OriginManual, "two")
	wantFault(t, err, fault.NoSpace, "may take no more than 3 MiB")
	_, err = r.s.Revert(context.Background(), "", id)
	wantFault(t, err, fault.NoSpace, "may take no more than 3 MiB")
	if left, _ := filepath.Glob(r.opts.Dir + "/tmp/*"); len(left) > 0 || r.s.Used() != used {
		t.Errorf("left %v, %d bytes are used, were %d", left, r.s.Used(), used)
	}
	r.remove("large")
	r.manual("two")
}

func TestACallThatIsCancelledLeavesNothing(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	r := newRig(t, func(o *Options) {
		o.during = func(step, _ string) {
			if step == "was read" {
				cancel()
			}
		}
	})
	for i := range 20 {
		r.write(fmt.Sprint("f", i), strconv.Itoa(i))
	}
	if _, err := r.s.Create(ctx, api.OriginManual, "one"); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if objects, _ := filepath.Glob(r.opts.Dir + "/objects/*/*"); len(objects) > 0 || r.s.Used() != 0 {
		t.Errorf("left %v, %d bytes", objects, r.s.Used())
	}
}

func TestCallsAtTheSameTimeWaitForEachOther(t *testing.T) {
	r := newRig(t, func(o *Options) { o.Log = nil })
	r.write("f", "0")
	id := r.manual("first")
	var wait sync.WaitGroup
	for i := range 8 {
		wait.Go(func() {
			for range 5 {
				_ = os.WriteFile(r.path("f"), []byte(fmt.Sprint("text ", i)), 0o644)
				_, err := r.s.Create(context.Background(), api.OriginAuto, "")
				if _, err2 := r.s.List(context.Background()); err == nil {
					err = err2
				}
				if _, err2 := r.s.History(context.Background(), "f"); err == nil {
					err = err2
				}
				f, err2 := r.s.OpenFile(context.Background(), id, "f")
				if err2 == nil {
					err2 = f.Close()
				}
				if err == nil {
					err = err2
				}
				if err != nil && !fault.Is(err, fault.Conflict) {
					t.Error(err)
				}
				_, _ = r.s.Revert(context.Background(), "f", id)
			}
		})
	}
	wait.Wait()
}

func TestListHistoryCompactAndDiffAnswerAsTheWireSays(t *testing.T) {
	now := &clock{now: time.Unix(1_700_000_000, 0)}
	r := newRig(t, func(o *Options) { o.Clock = now.read })
	r.write("a", "one\ntwo\nthree\n")
	r.write("gone", "x")
	r.take(api.OriginAuto, "")
	now.add(time.Minute)
	r.write("a", "one\n2\nthree\n")
	r.remove("gone")
	r.write("bin", "\x00\x01")
	if err := os.Symlink("a", r.path("link")); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(r.path("empty/in"), 0o755); err != nil {
		t.Fatal(err)
	}
	manual := r.manual("m1")
	now.add(2 * time.Hour)

	list := r.list()
	wantJSON(t, list.Snapshots[1].Changes, `[{"path":"a","op":"modified","size":12,"is_symlink":false},{"path":"bin","op":"new","size":2,"is_symlink":false},`+
		`{"path":"empty/in","op":"new","size":0,"is_symlink":false,"is_dir":true},{"path":"gone","op":"deleted","size":1,"is_symlink":false},`+
		`{"path":"link","op":"new","size":1,"is_symlink":true}]`)
	s := list.Snapshots[1]
	if s.Checkpoint != manual || s.Slot != 10 || s.Origin != "manual" || s.Name != "m1" || s.Age != "2h ago" || s.FilesCount != 3 || len(s.Hash) != 64 {
		t.Errorf("it lists %+v", s)
	}
	r.remove("a")
	history, err := r.s.History(context.Background(), "/root/a")
	if err != nil {
		t.Fatal(err)
	}
	wantJSON(t, history, `{"path":"a","current_size":null,"versions":[`+
		`{"checkpoint":"cp-10","origin":"manual","name":"m1","age":"2h ago","size":12,"status":"modified"},`+
		`{"checkpoint":"cp-0","origin":"auto","name":"","age":"2h ago","size":14,"status":"new"}]}`)
	changes, err := r.s.Changes(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	wantJSON(t, changes.Changes[0], `{"path":"a","op":"deleted","size":12,"is_symlink":false,"checkpoint":"cp-10","origin":"manual","age":"2h ago"}`)
	diff, err := r.s.Diff(context.Background(), "cp-0", "cp-10", "")
	if err != nil {
		t.Fatal(err)
	}
	if want := "--- a/a\n+++ b/a\n@@ -1,3 +1,3 @@\n one\n-two\n+2\n three\n"; diff.Files[0].Diff != want {
		t.Errorf("diff is\n%s", diff.Files[0].Diff)
	}
	if f := diff.Files[1]; !f.Binary || f.Diff != "" {
		t.Errorf("diff of no text: %+v", f)
	}
	live, err := r.s.Diff(context.Background(), "cp-10", "", "a")
	if err != nil || len(live.Files) != 1 || !strings.HasPrefix(live.Files[0].Diff, "--- a/a\n+++ /dev/null\n@@ -1,3 +0,0 @@\n-one\n") {
		t.Errorf("diff with now: %+v, %v", live, err)
	}
	compactedAnswersAsTheWireSays(t, r)
}

func compactedAnswersAsTheWireSays(t *testing.T, r *rig) {
	t.Helper()
	compacted, err := r.s.Compact(context.Background(), []string{"cp-10", "cp-0", "cp-10"}, "")
	if err != nil {
		t.Fatal(err)
	}
	hash := compacted.Hash
	compacted.Hash = ""
	wantJSON(t, compacted, `{"compacted":true,"checkpoint":"cp-11","name":"compacted_1700007260","hash":"","merged_count":2,"deleted_checkpoints":["cp-10"],"files_count":4}`)
	if got := held(t, r.s, "cp-11"); len(hash) != 64 || !strings.HasSuffix(got["a"], "2\nthree\n") || !strings.HasSuffix(got["gone"], " x") {
		t.Errorf("it holds %q", got)
	}
	_, err = r.s.Compact(context.Background(), nil, "")
	wantFault(t, err, fault.Invalid, "no snapshots")
}

func wantJSON(t *testing.T, got any, want string) {
	t.Helper()
	text, err := json.Marshal(got)
	if err != nil {
		t.Fatal(err)
	}
	if string(text) != want {
		t.Errorf("got\n%s\nwant\n%s", text, want)
	}
}

func TestCompactingIntoAFullPoolTakesTheSlotOfASource(t *testing.T) {
	r := newRig(t, func(o *Options) { o.ManualMax = 2 })
	r.write("a", "a")
	one := r.manual("one")
	r.remove("a")
	r.write("b", "b")
	two := r.manual("two")
	c, err := r.s.Compact(context.Background(), []string{one, two}, "both")
	if err != nil || c.Checkpoint != one || len(r.list().Snapshots) != 1 {
		t.Fatalf("%+v, %v", c, err)
	}
	r.reopen()
	if got := held(t, r.s, one); len(got) != 2 {
		t.Errorf("it holds %q", got)
	}
}

func TestNamesThatAreNoUTF8ComeThroughJSONAndBack(t *testing.T) {
	r := newRig(t)
	r.write("x\xff\xfey", "1")
	id := r.manual("one")
	c := r.list().Snapshots[0].Changes[0]
	if string(c.PathRaw) != "x\xff\xfey" {
		t.Errorf("it lists %+v", c)
	}
	want := r.tree()
	r.remove("x\xff\xfey")
	r.revert(string(c.PathRaw), id)
	if got := r.tree(); !maps.Equal(got, want) {
		t.Errorf("there is %q", got)
	}
}
