package ledger

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"capsem/core/fault"
)

func openIndex(t *testing.T) *Index {
	t.Helper()
	x, err := OpenIndex(t.Context(), filepath.Join(t.TempDir(), "main.db"))
	check(t, err)
	t.Cleanup(func() { check(t, x.Close(context.WithoutCancel(t.Context()))) })
	return x
}

func TestIndexFollowsASession(t *testing.T) {
	key := testKey(t)
	path := filled(t, key, testSession, 5)
	x := openIndex(t)
	check(t, x.Begin(t.Context(), Session{ID: testSession, Name: "vm", RAM: 1 << 30, Created: testTime, ForkedFrom: "base", Command: "run"}))
	s, err := x.Session(t.Context(), testSession)
	check(t, err)
	if s.Status != Running || !s.Stopped.IsZero() || s.Name != "vm" || !s.Created.Equal(testTime) {
		t.Fatalf("%+v", s)
	}
	check(t, x.Rename(t.Context(), testSession, "kept", true))
	check(t, x.Finish(t.Context(), testSession, Stopped, path, testTime.Add(time.Hour)))
	s, err = x.Session(t.Context(), testSession)
	check(t, err)
	if s.Status != Stopped || s.Name != "kept" || !s.Persistent || s.Totals.Requests != 5 || s.Totals.CostUSD != 1.25 || s.DBBytes == 0 || s.HeadSeq != 5*rowsOfEach {
		t.Fatalf("%+v", s)
	}
	r, err := Verify(t.Context(), path, Expect{Key: public(key), Session: s.ID, Seq: s.HeadSeq, Hash: s.HeadHash})
	if err != nil || !r.OK() {
		t.Fatal(err, r)
	}
	usage := query(t, x.db.Path(), `SELECT provider, call_count, input_tokens FROM ai_usage UNION ALL SELECT tool_name, call_count, total_bytes FROM tool_usage
		UNION ALL SELECT server_name||'.'||tool_name, call_count, total_bytes FROM mcp_usage`)
	if fmt.Sprint(usage) != "[[anthropic 5 500] [bash 5 10] [github.search 5 15]]" {
		t.Fatal(usage)
	}
	check(t, x.Begin(t.Context(), Session{ID: testSession, Name: "kept", Persistent: true}))
	if s, err = x.Session(t.Context(), testSession); err != nil || s.Status != Running || !s.Stopped.IsZero() || !s.Created.Equal(testTime) {
		t.Fatalf("resumed: %+v %v", s, err)
	}
}

func TestIndexLists(t *testing.T) {
	x := openIndex(t)
	for i := range 5 {
		check(t, x.Begin(t.Context(), Session{ID: fmt.Sprint("s", i), Created: testTime.Add(time.Duration(i) * time.Minute)}))
	}
	check(t, x.Finish(t.Context(), "s1", Crashed, "/nowhere/session.db", testTime))
	all, err := x.Sessions(t.Context(), "", 3)
	if err != nil || len(all) != 3 || all[0].ID != "s4" {
		t.Fatal(all, err)
	}
	crashed, err := x.Sessions(t.Context(), Crashed, 10)
	if err != nil || len(crashed) != 1 || crashed[0].ID != "s1" {
		t.Fatal(crashed, err)
	}
	if _, err := x.Session(t.Context(), "nope"); codeOf(err) != fault.NotFound {
		t.Error(err)
	}
	for _, bad := range []string{"", "../x", "a/b", "-x", ".", "a\x00"} {
		if err := x.Begin(t.Context(), Session{ID: bad}); codeOf(err) != fault.Invalid {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestKeepMovesARecordWhole(t *testing.T) {
	key := testKey(t)
	from := filepath.Dir(filled(t, key, testSession, 3))
	to := filepath.Join(t.TempDir(), "sessions", testSession)
	for range 2 { // again, as after a crash
		check(t, Keep(t.Context(), from, to))
	}
	if r := verify(t, filepath.Join(to, DBFile), key); !r.OK() || r.Rows != 3*rowsOfEach {
		t.Fatalf("%+v", r)
	}
	left, err := os.ReadDir(from)
	if err != nil || len(left) != 0 {
		t.Fatal(left, err)
	}
	check(t, Keep(t.Context(), to, to))
	other := filepath.Dir(filled(t, key, testSession, 1))
	if err := Keep(t.Context(), other, to); codeOf(err) != fault.Conflict {
		t.Fatal("a record was replaced:", err)
	}
}

// record puts a record of some size and age under dir.
func record(t *testing.T, dir, id string, size int, age time.Duration) {
	t.Helper()
	check(t, os.MkdirAll(filepath.Join(dir, id), 0o700))
	path := filepath.Join(dir, id, DBFile)
	check(t, os.WriteFile(path, make([]byte, size), 0o600))
	check(t, os.Chtimes(path, testTime.Add(-age), testTime.Add(-age)))
}

func TestSweepKeepsWhatTheLimitsAllow(t *testing.T) {
	const day = 24 * time.Hour
	tests := map[string]struct {
		limits Retention
		busy   string
		want   string
	}{
		"no limits": {Retention{}, "", "[]"},
		"age":       {Retention{Age: 3 * day}, "", "[{s4 100 age} {s5 100 age}]"},
		"sessions":  {Retention{Sessions: 4}, "", "[{s5 100 sessions} {hollow 100 sessions}]"},
		"bytes":     {Retention{Bytes: 300}, "", "[{s4 100 bytes} {s5 100 bytes} {hollow 100 bytes}]"},
		"busy":      {Retention{Age: 3 * day}, "s5", "[{s4 100 age}]"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			dir, x := t.TempDir(), openIndex(t)
			for i := 1; i <= 5; i++ {
				record(t, dir, fmt.Sprint("s", i), 100, time.Duration(i)*day-time.Hour)
			}
			record(t, dir, "live", 1000, 100*day)
			check(t, x.Begin(t.Context(), Session{ID: "live"}))
			record(t, dir, "hollow", 100, day/2)
			check(t, x.Begin(t.Context(), Session{ID: "hollow"}))
			check(t, x.Finish(t.Context(), "hollow", Stopped, filepath.Join(dir, "none"), testTime.Add(-day/2)))
			record(t, dir, ".pruned-x", 10, 0)
			check(t, os.WriteFile(filepath.Join(dir, "main.db"), nil, 0o600))
			check(t, os.Symlink("/", filepath.Join(dir, "s9")))
			got, err := x.Sweep(t.Context(), dir, test.limits, testTime, func(id string) bool { return id == test.busy })
			check(t, err)
			if fmt.Sprint(got) != test.want {
				t.Fatalf("%v, not %s", got, test.want)
			}
			for _, p := range got {
				if _, err := os.Lstat(filepath.Join(dir, p.Session)); !os.IsNotExist(err) {
					t.Error(p.Session, "is still there")
				}
			}
			for _, name := range []string{"live", "main.db", "s9", "s1"} {
				if _, err := os.Lstat(filepath.Join(dir, name)); err != nil {
					t.Error(err)
				}
			}
			if _, err := os.Lstat(filepath.Join(dir, ".pruned-x")); err == nil {
				t.Error("a half pruned record is left")
			}
		})
	}
}

func TestSweepForgetsSessionsLongGone(t *testing.T) {
	dir, x := t.TempDir(), openIndex(t)
	record(t, dir, "old", 10, 0)
	check(t, x.Begin(t.Context(), Session{ID: "old", Created: testTime.AddDate(-2, 0, 0)}))
	check(t, x.Finish(t.Context(), "old", Stopped, "none", testTime.AddDate(-2, 0, 1)))
	check(t, x.Begin(t.Context(), Session{ID: "running", Created: testTime.AddDate(-2, 0, 0)}))
	_, err := x.Sweep(t.Context(), dir, DefaultRetention(), testTime, nil)
	check(t, err)
	left, err := x.Sessions(t.Context(), "", 10)
	if err != nil || len(left) != 1 || left[0].ID != "running" {
		t.Fatal(left, err)
	}
}
