package link

import (
	"io"
	"net"
	"slices"
	"testing"
	"time"

	"capsem/core/proto"
)

// roundTrips sends n messages of 64 bytes one after another to an echo and returns how long each took.
func roundTrips(tb testing.TB, st Stream, n int) []time.Duration {
	tb.Helper()
	buf := make([]byte, 64)
	took := make([]time.Duration, n)
	for i := range took {
		start := time.Now()
		if _, err := st.Write(buf); err != nil {
			tb.Fatal(err)
		}
		if _, err := io.ReadFull(st, buf); err != nil {
			tb.Fatal(err)
		}
		took[i] = time.Since(start)
	}
	slices.Sort(took)
	return took
}

func percentile(sorted []time.Duration, p int) time.Duration { return sorted[(len(sorted)-1)*p/100] }

func BenchmarkEcho(b *testing.B) {
	h, g := socketPair(b)
	host, guest := pair(b, h, g)
	echo(b, guest, proto.PortTerminal)
	st := open(b, host, proto.PortTerminal)
	took := roundTrips(b, st, max(b.N, 100))
	b.ReportMetric(float64(percentile(took, 50).Nanoseconds()), "p50-ns")
	b.ReportMetric(float64(percentile(took, 99).Nanoseconds()), "p99-ns")
}

// BenchmarkOpenRequest is what each command costs: a stream with a request, an answer, the end.
func BenchmarkOpenRequest(b *testing.B) {
	h, g := socketPair(b)
	host, guest := pair(b, h, g)
	echo(b, guest, proto.PortExec)
	request := make([]byte, 200)
	for b.Loop() {
		st, err := OpenWith(b.Context(), host, proto.StreamHeader{Port: proto.PortExec}, request)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := io.ReadFull(st, request); err != nil {
			b.Fatal(err)
		}
		_ = st.Close()
	}
}

func BenchmarkThroughput(b *testing.B) {
	for name, swap := range map[string]bool{"host to guest": false, "guest to host": true} {
		b.Run(name, func(b *testing.B) {
			h, g := socketPair(b)
			from, to := pair(b, h, g)
			if swap {
				from, to = to, from
			}
			l := listen(b, to, proto.PortExec)
			st := open(b, from, proto.PortExec)
			done := make(chan struct{})
			go func() {
				defer close(done)
				_, _ = io.Copy(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{accept(b, l)})
			}()
			chunk := make([]byte, 64<<10)
			b.SetBytes(int64(len(chunk)))
			for b.Loop() {
				if _, err := st.Write(chunk); err != nil {
					b.Fatal(err)
				}
			}
			closeWrite(b, st)
			<-done
		})
	}
}

// BenchmarkEchoUnderBulk is the round trip of a keystroke while other streams transfer as much as they can.
func BenchmarkEchoUnderBulk(b *testing.B) {
	for name, bulk := range map[string]struct{ up, down int }{"idle": {}, "up": {up: 1}, "down": {down: 1}, "both": {1, 1}, "many": {8, 8}} {
		b.Run(name, func(b *testing.B) {
			h, g := socketPair(b)
			host, guest := pair(b, h, g)
			took := echoUnderBulk(b, host, guest, bulk.up, bulk.down, max(b.N, 100))
			b.ReportMetric(float64(percentile(took, 50).Nanoseconds()), "p50-ns")
			b.ReportMetric(float64(percentile(took, 99).Nanoseconds()), "p99-ns")
		})
	}
}

// echoUnderBulk measures echoes while up streams go to the guest and down streams come from it.
func echoUnderBulk(tb testing.TB, host, guest Session, up, down, n int) []time.Duration {
	tb.Helper()
	echo(tb, guest, proto.PortTerminal)
	st := open(tb, host, proto.PortTerminal)
	var bulk []Stream
	add := func(from, to Session, port proto.Port, count int) {
		l := listen(tb, to, port)
		for range count {
			out := open(tb, from, port)
			in := accept(tb, l)
			bulk = append(bulk, out, in)
			go func() { _, _ = io.Copy(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{in}) }()
			go func() {
				buf := make([]byte, 256<<10)
				for {
					if _, err := out.Write(buf); err != nil {
						return
					}
				}
			}()
		}
	}
	add(host, guest, proto.PortExec, up)
	add(guest, host, proto.PortNetwork, down)
	roundTrips(tb, st, 20)
	took := roundTrips(tb, st, n)
	for _, s := range append(bulk, st) {
		_ = s.Close()
	}
	return took
}

// narrow is a carrier that carries so many bytes a second, with a small queue, as a slow guest's port does.
type narrow struct {
	net.Conn
	perSecond int
	next      time.Time
}

func (c *narrow) Write(p []byte) (int, error) {
	now := time.Now()
	if c.next.Before(now) {
		c.next = now
	}
	c.next = c.next.Add(time.Duration(len(p)) * time.Second / time.Duration(c.perSecond))
	<-time.After(time.Until(c.next.Add(-time.Millisecond)))
	return c.Conn.Write(p)
}

// A bulk transfer must not make a terminal slow: the 99th percentile of a keystroke's echo stays within three times that of
// an idle link, above a floor that a busy machine needs.
func TestATerminalStaysQuickUnderBulk(t *testing.T) {
	noLeaks(t)
	const speed, floor = 4 << 20, 45 * time.Millisecond
	measure := func(up, down int) time.Duration {
		h, g := socketPair(t)
		host, guest := pair(t, &narrow{Conn: h, perSecond: speed}, &narrow{Conn: g, perSecond: speed})
		defer closeAll(t, host, guest)
		return percentile(echoUnderBulk(t, host, guest, up, down, 200), 99)
	}
	idle := measure(0, 0)
	for name, bulk := range map[string]struct{ up, down int }{"up": {up: 1}, "down": {down: 1}, "many": {4, 4}} {
		loaded := measure(bulk.up, bulk.down)
		for tries := 0; loaded > max(3*idle, floor) && tries < 5; tries++ { // others use this machine
			loaded = min(loaded, measure(bulk.up, bulk.down))
		}
		t.Logf("%s: p99 %v, idle %v", name, loaded, idle)
		if loaded > max(3*idle, floor) {
			t.Errorf("%s: p99 of an echo is %v, idle it is %v", name, loaded, idle)
		}
	}
}
