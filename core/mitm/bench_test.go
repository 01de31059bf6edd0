package mitm

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"capsem/core/ledger"
)

// way is a client that reaches an upstream, through the proxy or through what it is compared with.
type way struct {
	name   string
	client *http.Client
	url    string
}

// bare is httputil.ReverseProxy with TLS on both sides, and nothing else: no policy, no record, no checks.
func (g *rig) bare(h2 bool, to string) way {
	front := httptest.NewUnstartedServer(&httputil.ReverseProxy{
		Rewrite: func(pr *httputil.ProxyRequest) { pr.Out.URL.Scheme, pr.Out.URL.Host = "https", "a.open.test:"+to },
		Transport: &http.Transport{
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return new(net.Dialer).DialContext(ctx, "tcp", "127.0.0.1:"+to)
			},
			TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableCompression: true, MaxIdleConnsPerHost: 300, ForceAttemptHTTP2: h2,
		},
		FlushInterval: -1, BufferPool: buffers, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, 0),
	})
	front.TLS = &tls.Config{GetCertificate: func(h *tls.ClientHelloInfo) (*tls.Certificate, error) { return g.s.cfg.Authority.Leaf(h.ServerName) }}
	front.EnableHTTP2 = h2
	front.StartTLS()
	g.t.Cleanup(func() { front.CloseClientConnections(); front.Close() })
	addr := front.Listener.Addr().String()
	dial := func(tr *http.Transport) {
		tr.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", addr)
		}
	}
	if h2 {
		return way{"bare", g.client(both, dial), "https://a.open.test:" + to}
	}
	return way{"bare", g.client(dial), "https://a.open.test:" + to}
}

func (g *rig) ways(h2 bool, handler http.HandlerFunc) []way {
	to := g.upstream(h2, handler)
	ours := way{"capsem", g.client(), "https://a.open.test:" + to}
	if h2 {
		ours.client = g.client(both)
	}
	return []way{g.bare(h2, to), ours}
}

// BenchmarkSmallRequests is keep-alive requests of a few bytes, so many at once: on as many connections of HTTP/1.1, or on one of HTTP/2; the time of "bare" is what the
// one of "capsem" is compared with.
func BenchmarkSmallRequests(b *testing.B) {
	for _, proto := range []string{"h1", "h2"} {
		for _, conns := range []int{1, 10, 50, 200} {
			g := newRig(b, rules, func(c *Config) { c.Recorder = &discard{} })
			for _, w := range g.ways(proto == "h2", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "hello, world") }) {
				b.Run(fmt.Sprintf("%s/%d/%s", proto, conns, w.name), func(b *testing.B) { load(b, w, conns) })
			}
		}
	}
}

// load sends b.N requests from some clients at once.
func load(b *testing.B, w way, conns int) {
	if tr, ok := w.client.Transport.(*http.Transport); ok && !tr.Protocols.HTTP2() {
		tr.MaxConnsPerHost = conns // else it makes some in reserve, whose handshakes would be measured
	}
	var left atomic.Int64
	var mu sync.Mutex
	var took []time.Duration
	once := func() {
		began := time.Now()
		res, err := w.client.Get(w.url + "/small")
		if err != nil {
			b.Error(err)
			return
		}
		_, _ = io.Copy(io.Discard, res.Body)
		_ = res.Body.Close()
		mu.Lock()
		took = append(took, time.Since(began))
		mu.Unlock()
	}
	var all sync.WaitGroup
	run := func() {
		for range conns {
			all.Go(func() {
				for left.Add(-1) >= 0 {
					once()
				}
			})
		}
		all.Wait()
	}
	left.Store(int64(20 * conns)) // connections are made before
	run()
	left.Store(int64(b.N))
	took = nil
	b.ResetTimer()
	began, cpu := time.Now(), cpuTime()
	run()
	b.ReportMetric(float64(b.N)/time.Since(began).Seconds(), "req/s")
	b.ReportMetric(float64((cpuTime()-cpu).Microseconds())/float64(b.N), "cpu-us/op")
	slices.Sort(took)
	b.ReportMetric(took[len(took)/2].Seconds()*1000, "p50-ms")
	b.ReportMetric(took[len(took)*99/100].Seconds()*1000, "p99-ms")
}

// BenchmarkBodies is long answers and long requests.
func BenchmarkBodies(b *testing.B) {
	const chunk = 64 << 10
	block := bytes.Repeat([]byte("x"), chunk)
	send := func(w io.Writer, n int64) {
		for ; n > 0; n -= chunk {
			if _, err := w.Write(block[:min(n, chunk)]); err != nil {
				return
			}
		}
	}
	for _, proto := range []string{"h1", "h2"} {
		g := newRig(b, rules, func(c *Config) { c.Recorder = &discard{} })
		ways := g.ways(proto == "h2", func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			n, _ := strconv.ParseInt(r.URL.Query().Get("n"), 10, 64)
			w.Header().Set("Content-Length", strconv.FormatInt(n, 10))
			send(w, n)
		})
		for _, size := range []int64{10 << 20, 1 << 30} {
			for _, w := range ways {
				b.Run(fmt.Sprintf("%s/down/%dMiB/%s", proto, size>>20, w.name), func(b *testing.B) {
					b.SetBytes(size)
					for b.Loop() {
						res, err := w.client.Get(fmt.Sprintf("%s/?n=%d", w.url, size))
						if err != nil {
							b.Fatal(err)
						}
						if n, err := io.Copy(io.Discard, res.Body); n != size || err != nil {
							b.Fatal(n, err)
						}
						_ = res.Body.Close()
					}
					b.ReportMetric(float64(resident())/(1<<20), "RSS-MiB")
				})
			}
		}
		for _, w := range ways {
			b.Run(proto+"/up/10MiB/"+w.name, func(b *testing.B) {
				b.SetBytes(10 << 20)
				for b.Loop() {
					res, err := w.client.Post(w.url+"/?n=0", "", io.LimitReader(endless{}, 10<<20))
					if err != nil {
						b.Fatal(err)
					}
					_ = res.Body.Close()
				}
			})
		}
	}
}

// discard is a record that only counts.
type discard struct{ n atomic.Int64 }

func (d *discard) RecordNet(ledger.NetEvent) { d.n.Add(1) }

type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

// cpuTime is what this process has used, client and upstream included: a measure that a busy machine disturbs less.
func cpuTime() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// resident is the memory of this process, in bytes.
func resident() int64 {
	text, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		return 0
	}
	fields := strings.Fields(string(text))
	pages, _ := strconv.ParseInt(fields[1], 10, 64)
	return pages * int64(os.Getpagesize())
}

// BenchmarkFirstEvent is the time from a request to the first event of its answer, whose rest is yet to come.
func BenchmarkFirstEvent(b *testing.B) {
	g := newRig(b, rules, func(c *Config) { c.Recorder = &discard{} })
	ways := g.ways(false, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		_, _ = io.WriteString(w, "data: 1\n\n")
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	})
	for _, w := range ways {
		b.Run(w.name, func(b *testing.B) {
			for b.Loop() {
				ctx, cancel := context.WithCancel(b.Context())
				req, _ := http.NewRequestWithContext(ctx, http.MethodGet, w.url, nil)
				res, err := w.client.Do(req)
				if err != nil {
					b.Fatal(err)
				}
				_, _ = bufio.NewReader(res.Body).ReadString('\n')
				cancel()
				_ = res.Body.Close()
			}
		})
	}
}
