package ledger

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// crashEnv holds the directory in which this binary, run again, writes until it is killed.
const crashEnv = "CAPSEM_TEST_LEDGER_CRASH"

func TestMain(m *testing.M) {
	if dir := os.Getenv(crashEnv); dir != "" {
		if err := writeForever(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(3)
		}
		return
	}
	os.Exit(m.Run())
}

// writeForever records and signs as fast as it can. Every thousand rows it says how many are surely written.
func writeForever(dir string) error {
	key, err := LoadOrCreateKey(filepath.Join(dir, "key"))
	if err != nil {
		return err
	}
	ctx := context.Background()
	w, err := Open(ctx, filepath.Join(dir, DBFile), Options{
		Session: testSession, Key: key, Log: quiet(), SignEvery: 3 * time.Millisecond, Batch: 100, Patience: time.Minute,
	})
	if err != nil {
		return err
	}
	for i := 0; ; i++ {
		for _, row := range oneOfEach(i) {
			w.Record(row)
		}
		if i%20 == 0 {
			if err := w.Flush(ctx); err != nil {
				return err
			}
			fmt.Println(w.Counters().Written)
		}
	}
}

func TestKilledWriterLosesNothingWrittenAndGoesOn(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, DBFile)
	var total int64
	for round := range 8 {
		ctx, cancel := context.WithTimeout(t.Context(), time.Duration(120+37*round)*time.Millisecond)
		cmd := exec.CommandContext(ctx, os.Args[0])
		cmd.Env = append(os.Environ(), crashEnv+"="+dir)
		out, err := cmd.Output() // killed with SIGKILL by the context
		cancel()
		if err == nil || cmd.ProcessState.ExitCode() != -1 {
			t.Fatalf("the writer ended by itself: %v %s", err, out)
		}
		if _, err := os.Stat(path); err != nil {
			continue // killed before it began
		}
		total += lastCount(t, string(out))
		key, err := LoadOrCreateKey(filepath.Join(dir, "key"))
		check(t, err)
		r := verify(t, path, key)
		if total == 0 && r.Rows == 0 {
			continue // killed while it made the tables, on a busy machine
		}
		if !r.OK() || r.Rows < total {
			t.Fatalf("round %d: %d rows of %d surely written, %v", round, r.Rows, total, r.Problems)
		}
		total = r.Rows
		t.Logf("round %d: %d rows, %d signed, %d heads", round, r.Rows, r.Signed, r.Heads)
	}
	if total == 0 {
		t.Fatal("nothing was ever written")
	}
	key, err := LoadOrCreateKey(filepath.Join(dir, "key"))
	check(t, err)
	w := open(t, path, testOptions(t, key))
	w.Record(Lifecycle{Event: "after"})
	closeWriter(t, w)
	if r := verify(t, path, key); !r.OK() || r.Rows != total+1 || r.Signed != r.Rows {
		t.Fatalf("%+v", r)
	}
}

func lastCount(t *testing.T, out string) int64 {
	t.Helper()
	lines := strings.Fields(out)
	if len(lines) == 0 {
		return 0
	}
	var n int64
	if _, err := fmt.Sscan(lines[len(lines)-1], &n); err != nil {
		t.Fatal(err)
	}
	return n
}

func TestUnsignedTailIsNoTampering(t *testing.T) {
	key := testKey(t)
	path := filepath.Join(t.TempDir(), DBFile)
	w := open(t, path, testOptions(t, key))
	defer closeWriter(t, w)
	w.Record(Lifecycle{Event: "one"})
	check(t, w.Seal(t.Context()))
	w.Record(Lifecycle{Event: "two"})
	check(t, w.Flush(t.Context()))
	// The writer is still at work: Verify reads beside it.
	if r := verify(t, path, key); !r.OK() || r.Rows != 2 || r.Signed != 1 || r.Heads != 1 {
		t.Fatalf("%+v", r)
	}
}

// What was signed before the side file could be written is still right, and the file follows.
func TestWriterBringsTheSideFileUpToDate(t *testing.T) {
	key := testKey(t)
	path := filepath.Join(t.TempDir(), DBFile)
	w := open(t, path, testOptions(t, key))
	w.Record(Lifecycle{Event: "one"})
	check(t, w.Seal(t.Context()))
	old, err := os.ReadFile(headPath(path))
	check(t, err)
	w.Record(Lifecycle{Event: "two"})
	closeWriter(t, w)
	check(t, os.WriteFile(headPath(path), old, 0o600))
	if r := verify(t, path, key); !r.OK() {
		t.Fatal(r.Problems)
	}
	closeWriter(t, open(t, path, testOptions(t, key)))
	h, err := ReadHead(path)
	check(t, err)
	if h.Number != 2 || h.Seq != 2 {
		t.Fatalf("%+v", h)
	}
}

func TestOpenRefusesWhatDoesNotFit(t *testing.T) {
	key := testKey(t)
	base := filled(t, key, testSession, 4)
	tests := map[string]struct {
		sql    []string
		change func(o *Options)
	}{
		"tail gone":       {[]string{"DELETE FROM chain WHERE seq>30"}, nil},
		"heads gone":      {[]string{"DELETE FROM heads"}, nil},
		"last link bad":   {[]string{"UPDATE chain SET hash=x'00' WHERE seq=60"}, nil},
		"another session": {nil, func(o *Options) { o.Session = "other" }},
		"another key":     {nil, func(o *Options) { o.Key = testKey(t) }},
		"newer schema":    {[]string{"INSERT INTO schema_version VALUES (99,'')"}, nil},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			path := copyRecord(t, base)
			tamper(t, path, test.sql...)
			o := testOptions(t, key)
			if test.change != nil {
				test.change(&o)
			}
			if w, err := Open(t.Context(), path, o); err == nil {
				closeWriter(t, w)
				t.Fatal("opened")
			}
			aside, err := SetAside(path, testTime)
			check(t, err)
			if _, err := os.Stat(aside); err != nil {
				t.Fatal(err)
			}
			closeWriter(t, open(t, path, testOptions(t, key)))
		})
	}
}
