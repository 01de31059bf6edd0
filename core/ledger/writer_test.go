package ledger

import (
	"path/filepath"
	"testing"
	"time"
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

func BenchmarkWriter(b *testing.B) {
	path := filepath.Join(b.TempDir(), "session.db")
	o := testOptions(b, testKey(b))
	o.Patience = time.Minute
	o.SignEvery = 2 * time.Second
	w := open(b, path, o)
	e := NetEvent{
		Domain: "api.example.com", Port: 443, Decision: "allowed", Rule: "preset:web", Process: Process{Name: "node", PID: 812},
		Method: "POST", Path: "/v1/things/812", Status: 200, Sent: 812, Received: 40960, Duration: 12 * time.Millisecond, Type: "https", Remote: "192.0.2.7:443",
	}
	b.ReportAllocs()
	for b.Loop() {
		w.Record(e)
	}
	b.StartTimer() // b.Loop has stopped it
	if err := w.Flush(b.Context()); err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
	b.StopTimer()
	closeWriter(b, w)
	if c := w.Counters(); c.Lost != 0 || c.Written != uint64(b.N) {
		b.Fatalf("%+v of %d", c, b.N)
	}
}
