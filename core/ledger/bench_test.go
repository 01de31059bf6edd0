package ledger

import (
	"fmt"
	"path/filepath"
	"testing"
	"time"
)

// benchEvent is an ordinary request, to one of many hosts.
func benchEvent(n int) NetEvent {
	return NetEvent{
		Domain: fmt.Sprintf("api%d.example.com", n*7919%500), Port: 443, Decision: "allowed", Rule: "preset:web", Process: Process{Name: "node", PID: 812},
		Method: "POST", Path: fmt.Sprintf("/v1/things/%d", n), Status: 200, Sent: 812, Received: 40960, Duration: 12 * time.Millisecond, Type: "https",
		Remote: "192.0.2.7:443",
	}
}

// BenchmarkWriter is what the ledger takes, indexed, chained, signed and on the disk, from several recorders.
func BenchmarkWriter(b *testing.B) {
	for _, recorders := range []int{1, 8} {
		b.Run(fmt.Sprintf("recorders=%d", recorders), func(b *testing.B) {
			path := filepath.Join(b.TempDir(), DBFile)
			o := testOptions(b, testKey(b))
			o.Patience, o.SignEvery = time.Minute, 2*time.Second
			w := open(b, path, o)
			b.ReportAllocs()
			b.SetParallelism(recorders)
			b.ResetTimer()
			b.RunParallel(func(pb *testing.PB) {
				for n := 0; pb.Next(); n++ {
					w.Record(benchEvent(n))
				}
			})
			if err := w.Flush(b.Context()); err != nil {
				b.Fatal(err)
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
			b.StopTimer()
			closeWriter(b, w)
			if c := w.Counters(); c.Lost != 0 || c.Written != uint64(b.N) {
				b.Fatalf("%+v of %d", c, b.N)
			}
		})
	}
}

// BenchmarkVerify is how fast a record is checked, and that it takes no more memory for more rows shows in B/row.
func BenchmarkVerify(b *testing.B) {
	const rows = 100_000
	key := testKey(b)
	path := filepath.Join(b.TempDir(), DBFile)
	o := testOptions(b, key)
	o.Patience = time.Minute
	w := open(b, path, o)
	for n := range rows {
		w.Record(benchEvent(n))
	}
	closeWriter(b, w)
	b.ReportAllocs()
	for b.Loop() {
		if r := verify(b, path, key); !r.OK() || r.Rows != rows {
			b.Fatalf("%+v", r)
		}
	}
	b.ReportMetric(float64(b.N)*rows/b.Elapsed().Seconds(), "rows/s")
}
