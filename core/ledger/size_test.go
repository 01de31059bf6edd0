package ledger

import (
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

func TestAFullRecordCountsFileEventsAndKeepsTheRest(t *testing.T) {
	key := testKey(t)
	path := filepath.Join(t.TempDir(), DBFile)
	o := testOptions(t, key)
	o.MaxBytes, o.CountEvery, o.SignEvery, o.Patience = 1<<20, time.Hour, 5*time.Millisecond, time.Minute
	w := open(t, path, o)
	long := strings.Repeat("x", 900)
	recorded := 0
	for end := time.Now().Add(20 * time.Second); !w.full.Load() && time.Now().Before(end); {
		for range 50 {
			w.Record(FileEvent{Action: "modified", Path: long})
			recorded++
		}
		check(t, w.Flush(t.Context()))
	}
	for range 1000 { // a guest that goes on, while counts may be written all the time
		w.Record(FileEvent{Action: "modified", Path: long})
		w.Record(AuditEvent{Exe: "/bin/true"})
		recorded++
	}
	w.Record(largeRequest())
	w.Record(DNSEvent{Name: "after.test"})
	w.Record(Approval{AskID: "after"})
	w.Record(ModelCall{Provider: "after"})
	w.Record(Lifecycle{Event: "after"})
	check(t, w.Flush(t.Context()))
	lost := int64(w.Counters().Lost)
	closeWriter(t, w)

	kept := query(t, path, "SELECT count(*) FROM fs_events")[0][0].(int64)
	files := query(t, path, "SELECT coalesce(sum(count),0) FROM drop_events WHERE kind='file'")[0][0].(int64)
	audits := query(t, path, "SELECT coalesce(sum(count),0) FROM drop_events WHERE kind='audit'")[0][0].(int64)
	if files < 1000 || kept+files != int64(recorded) || audits != 1000 || files+audits != lost {
		t.Errorf("%d files recorded: %d kept, %d counted; %d audit events counted; %d lost", recorded, kept, files, audits, lost)
	}
	if n := query(t, path, "SELECT count(*) FROM drop_events")[0][0].(int64); n > 4 {
		t.Errorf("%d rows only to count", n)
	}
	size := query(t, path, "SELECT length(request_headers)+length(response_headers)+length(path) FROM net_events")[0][0].(int64)
	if size < 100 || size > 3*maxShort {
		t.Errorf("a request is %d bytes of text", size)
	}
	for _, table := range []string{"net_events", "dns_events", "approvals", "model_calls", "lifecycle_events"} {
		if n := query(t, path, "SELECT count(*) FROM "+table)[0][0].(int64); n != 1 {
			t.Errorf("%s: %d rows", table, n)
		}
	}
	if r := verify(t, path, key); !r.OK() || r.Lost != lost {
		t.Errorf("%+v", r)
	}

	staysFull(t, path, o, lost)
}

// staysFull opens a full record again: it is full at once.
func staysFull(t *testing.T, path string, o Options, lost int64) {
	t.Helper()
	w := open(t, path, o)
	w.Record(FileEvent{Action: "modified", Path: "again"})
	if w.Counters().Lost != 1 {
		t.Error("it has room again")
	}
	closeWriter(t, w)
	if r := verify(t, path, o.Key); !r.OK() || r.Lost != lost+1 {
		t.Errorf("%+v", r)
	}
}

// largeRequest is a request whose every text is as long as it may be.
func largeRequest() NetEvent {
	many := http.Header{}
	for n := range 1000 {
		many.Set("X-"+strconv.Itoa(n), strings.Repeat("x", 900))
	}
	return NetEvent{Domain: "after.test", Path: strings.Repeat("/x", MaxText), RequestHeaders: many, ResponseHeaders: many}
}

func TestAWriterThatWasKilledIsNoticed(t *testing.T) {
	key := testKey(t)
	path := filepath.Join(t.TempDir(), DBFile)
	w := open(t, path, testOptions(t, key))
	if w.Unclosed() {
		t.Error("a new record was not closed")
	}
	w.Record(Lifecycle{Event: "one"})
	check(t, w.Flush(t.Context()))
	killed := filepath.Join(t.TempDir(), DBFile) // what is on the disk now is what a killed writer leaves
	for _, name := range []string{"", "-wal"} {
		text, err := os.ReadFile(path + name)
		check(t, err)
		check(t, os.WriteFile(killed+name, text, 0o600))
	}
	closeWriter(t, w)
	for file, want := range map[string]bool{path: false, killed: true} {
		w = open(t, file, testOptions(t, key))
		if w.Unclosed() != want {
			t.Errorf("%s: unclosed %v", file, w.Unclosed())
		}
		closeWriter(t, w)
	}
}
