package ledger

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"
)

func TestEveryRowIsKeptAndVerifies(t *testing.T) {
	key := testKey(t)
	path := filled(t, key, testSession, 20)
	r := verify(t, path, key)
	if !r.OK() || r.Rows != 20*rowsOfEach || r.Signed != r.Rows || r.Heads != 2 || r.Session != testSession {
		t.Fatalf("report %+v", r)
	}
	for i := range tables {
		n := query(t, path, "SELECT count(*), min(id), max(id) FROM "+tables[i].name)[0]
		if n[0] != int64(20) || n[1] != int64(1) || n[2] != int64(20) {
			t.Errorf("%s: %v", tables[i].name, n)
		}
		for _, col := range tables[i].columns {
			nulls := query(t, path, "SELECT count(*) FROM "+tables[i].name+" WHERE "+col+" IS NULL")[0][0]
			if nulls != int64(0) {
				t.Errorf("%s.%s is empty in %d rows", tables[i].name, col, nulls)
			}
		}
	}
}

// block makes the database unwritable for the writer, as a full disk does, until the returned function is called.
func block(t *testing.T, path string) func() {
	t.Helper()
	db, err := sql.Open("sqlite3", path)
	check(t, err)
	conn, err := db.Conn(t.Context())
	check(t, err)
	_, err = conn.ExecContext(t.Context(), "BEGIN IMMEDIATE")
	check(t, err)
	return func() {
		_, err := conn.ExecContext(context.WithoutCancel(t.Context()), "ROLLBACK")
		if err := errors.Join(err, conn.Close(), db.Close()); err != nil {
			t.Error(err)
		}
	}
}

func TestOverflowIsCountedInARow(t *testing.T) {
	key := testKey(t)
	path := filepath.Join(t.TempDir(), DBFile)
	o := testOptions(t, key)
	o.Queue, o.Batch, o.Patience = 8, 4, time.Millisecond
	w := open(t, path, o)
	release := block(t, path)
	const files, calls = 60, 7
	for range files {
		w.Record(FileEvent{Action: "created", Path: "x"})
	}
	for range calls {
		w.Record(ModelCall{Provider: "p", Calls: []ToolCall{{Tool: "t"}}})
	}
	lost := w.Counters().Lost
	if lost < files+2*calls-12-2 {
		t.Fatalf("%+v", w.Counters())
	}
	release()
	check(t, w.Flush(t.Context()))
	total := query(t, path, "SELECT sum(count) FROM drop_events")[0][0]
	kept := query(t, path, "SELECT (SELECT count(*) FROM fs_events)+(SELECT count(*) FROM model_calls)+(SELECT count(*) FROM tool_calls)")[0][0]
	if total != int64(lost) || kept != int64(files+2*calls)-int64(lost) {
		t.Fatalf("%v lost in rows, %d counted, %v kept", total, lost, kept)
	}
	kinds := query(t, path, "SELECT kind, count, reason FROM drop_events ORDER BY kind")
	if len(kinds) != 3 || kinds[0][0] != "file" || kinds[1][0] != "model" || kinds[2][0] != "tool" || kinds[0][2] != "queue full" {
		t.Fatalf("%v", kinds)
	}
	closeWriter(t, w)
	if r := verify(t, path, key); !r.OK() || r.Lost != int64(lost) {
		t.Fatalf("%+v", r)
	}
}

func TestQueueIsBoundedInBytes(t *testing.T) {
	key := testKey(t)
	path := filepath.Join(t.TempDir(), DBFile)
	o := testOptions(t, key)
	o.QueueBytes, o.Patience, o.Bodies = 1<<20, time.Millisecond, MaxBody
	w := open(t, path, o)
	release := block(t, path)
	big := strings.Repeat("x", 10*MaxBody)
	for range 100 {
		w.Record(NetEvent{Domain: "d", RequestBody: big, ResponseBody: big})
	}
	if c := w.Counters(); c.QueuedBytes > o.QueueBytes || c.Lost < 80 {
		t.Fatalf("%+v", c)
	}
	release()
	closeWriter(t, w)
	if r := verify(t, path, key); !r.OK() || r.Lost+r.Rows-int64(len(query(t, path, "SELECT 1 FROM drop_events"))) != 100 {
		t.Fatalf("%+v", r)
	}
}

func TestManyRecordAtOnce(t *testing.T) {
	key := testKey(t)
	path := filepath.Join(t.TempDir(), DBFile)
	o := testOptions(t, key)
	o.Patience, o.SignEvery, o.SignRows = time.Minute, time.Millisecond, 50
	w := open(t, path, o)
	const recorders, each = 8, 60
	var group sync.WaitGroup
	for range recorders {
		group.Go(func() {
			for i := range each {
				for _, row := range oneOfEach(i) {
					w.Record(row)
				}
				if i%20 == 0 {
					if err := w.Flush(t.Context()); err != nil {
						t.Error(err)
					}
					_ = w.Counters()
				}
			}
		})
	}
	group.Wait()
	closeWriter(t, w)
	w.Record(Lifecycle{Event: "late"}) // must neither block nor panic
	if c := w.Counters(); c.Lost != 1 || c.Written != c.Recorded || c.QueuedBytes != 0 {
		t.Fatalf("%+v", c)
	}
	if r := verify(t, path, key); !r.OK() || r.Rows != recorders*each*rowsOfEach {
		t.Fatalf("%+v", r)
	}
	if err := w.Flush(t.Context()); err == nil {
		t.Fatal("flushed after the end")
	}
	if err := w.Close(t.Context()); err != nil {
		t.Fatal("a second Close:", err)
	}
}

func TestCloseGivesUpInTimeAndSaysWhatWasLost(t *testing.T) {
	path := filepath.Join(t.TempDir(), DBFile)
	w := open(t, path, testOptions(t, testKey(t)))
	release := block(t, path)
	defer release()
	for range 5 {
		w.Record(Lifecycle{Event: "x"})
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := w.Flush(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatal(err)
	}
	err := w.Close(ctx)
	if err == nil || !strings.Contains(err.Error(), "5 rows were not written") {
		t.Fatal(err)
	}
}

func TestChildrenPointToTheirModelCall(t *testing.T) {
	key := testKey(t)
	path := filepath.Join(t.TempDir(), DBFile)
	w := open(t, path, testOptions(t, key))
	w.Record(ModelCall{Provider: "a"})
	w.Record(ModelCall{Provider: "b", Calls: []ToolCall{{CallID: "x"}, {CallID: "y"}}, Results: []ToolResponse{{CallID: "x"}}})
	w.Record(ModelCall{Provider: "c", Calls: make([]ToolCall, maxChildren+3)})
	closeWriter(t, w)
	got := query(t, path, "SELECT (SELECT group_concat(model_call_id) FROM tool_calls WHERE call_id IS NOT NULL), (SELECT model_call_id FROM tool_responses), (SELECT count FROM drop_events)")
	if fmt.Sprint(got[0]) != "[2,2 2 3]" {
		t.Fatal(got)
	}
}

func TestSnapshotNotesTheFileEventsSinceTheLast(t *testing.T) {
	key := testKey(t)
	path := filepath.Join(t.TempDir(), DBFile)
	for range 2 {
		w := open(t, path, testOptions(t, key))
		for range 3 {
			w.Record(FileEvent{Action: "created", Path: "x", Size: -1})
		}
		w.Record(SnapshotEvent{Name: "a"})
		w.Record(SnapshotEvent{Name: "b"})
		closeWriter(t, w)
	}
	got := query(t, path, "SELECT group_concat(coalesce(start_fs_event_id||'-'||stop_fs_event_id,'none')) FROM snapshot_events")[0][0]
	if got != "1-3,none,4-6,none" {
		t.Fatal(got)
	}
}

func TestStoredTextIsBoundedAndClean(t *testing.T) {
	key := testKey(t)
	path := filepath.Join(t.TempDir(), DBFile)
	w := open(t, path, testOptions(t, key))
	for _, s := range []string{"a\x00b", "\xff\xfe", strings.Repeat("é", MaxText), strings.Repeat("\xf0\x9f", MaxText), strings.Repeat("\x80", 3*MaxText), "x\r\ny"} {
		w.Record(NetEvent{Domain: s, Path: s, RequestBody: s, RequestHeaders: http.Header{s: {s}}, Process: Process{CommandLine: s}})
		w.Record(ExecEvent{Command: s, Stdout: s})
		w.Record(Event{Kind: s, Attrs: []slog.Attr{slog.String(s, s)}})
	}
	closeWriter(t, w)
	for _, row := range append(query(t, path, "SELECT * FROM net_events"), append(query(t, path, "SELECT * FROM exec_events"), query(t, path, "SELECT * FROM lifecycle_events")...)...) {
		for _, v := range row {
			if s, ok := v.(string); ok && (!utf8.ValidString(s) || strings.Contains(s, "\x00") || len(s) > MaxLong) {
				t.Errorf("%d bytes: %.40q", len(s), s)
			}
		}
	}
	if got := query(t, path, "SELECT max(length(CAST(domain AS BLOB))), max(length(CAST(request_body_preview AS BLOB))) FROM net_events")[0]; got[0].(int64) > MaxText || got[1].(int64) > 4096 {
		t.Error(got)
	}
	if r := verify(t, path, key); !r.OK() {
		t.Fatal(r.Problems)
	}
}

func TestBodiesAreOffUnlessAskedFor(t *testing.T) {
	path := filepath.Join(t.TempDir(), DBFile)
	o := testOptions(t, testKey(t))
	o.Bodies = 0
	w := open(t, path, o)
	for _, row := range oneOfEach(1) {
		w.Record(row)
	}
	closeWriter(t, w)
	got := query(t, path, `SELECT request_body_preview, response_body_preview FROM net_events UNION ALL SELECT system_prompt_preview, text_content FROM model_calls
		UNION ALL SELECT request_preview, response_preview FROM mcp_calls UNION ALL SELECT arguments, NULL FROM tool_calls UNION ALL SELECT content_preview, NULL FROM tool_responses`)
	for _, row := range got {
		if row[0] != nil || row[1] != nil {
			t.Error(row)
		}
	}
}

func TestNumbersThatSQLiteWouldChangeStillVerify(t *testing.T) {
	key := testKey(t)
	path := filepath.Join(t.TempDir(), DBFile)
	w := open(t, path, testOptions(t, key))
	for _, f := range []float64{0, math.Copysign(0, -1), math.NaN(), math.Inf(1), 1, 1e300, 0.1, 5e-324, 1 << 60} {
		w.Record(ModelCall{CostUSD: f, InputTokens: math.MaxInt64, OutputTokens: math.MinInt64})
	}
	w.Record(Lifecycle{Time: time.Date(-5, 1, 1, 0, 0, 0, 0, time.UTC)})
	w.Record(Lifecycle{Time: time.Date(20000, 1, 1, 0, 0, 0, 0, time.UTC)})
	closeWriter(t, w)
	if r := verify(t, path, key); !r.OK() {
		t.Fatal(r.Problems)
	}
}
