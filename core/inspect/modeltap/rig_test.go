package modeltap

import (
	"cmp"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"

	"capsem/core/budget"
	"capsem/core/inspect/price"
	"capsem/core/ledger"
	"capsem/core/mitm/flow"
)

// rows are what was recorded.
type rows struct {
	mu    sync.Mutex
	calls []ledger.ModelCall
	steps []ledger.Lifecycle
}

func (r *rows) Record(row ledger.Row) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch row := row.(type) {
	case ledger.ModelCall:
		r.calls = append(r.calls, row)
	case ledger.Lifecycle:
		r.steps = append(r.steps, row)
	}
}

func (r *rows) all() []ledger.ModelCall {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]ledger.ModelCall{}, r.calls...)
}

func (r *rows) events() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var b strings.Builder
	for _, s := range r.steps {
		fmt.Fprintf(&b, "%s %s\n", s.Event, s.Detail)
	}
	return b.String()
}

// rig is a provider over TLS, and a proxy before it that runs a Tap.
type rig struct {
	tap  *Tap
	rows *rows
	book *budget.Book
	// asked counts the requests that the provider got, whole ones; tried those that the proxy got.
	asked, tried atomic.Int64
	proxy        *httptest.Server
	// bare leaves the Tap out.
	bare bool
}

// provider answers like a model's API: in odd pieces, compressed as it likes.
type provider struct {
	status      int
	contentType string
	body        string
	encoding    string
	piece       int
	// hang keeps the answer open behind what there is.
	hang bool
}

func (p provider) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", cmp.Or(p.contentType, "application/json"))
	var out io.Writer = w
	flush := func() error { return http.NewResponseController(w).Flush() }
	switch p.encoding {
	case "gzip":
		z := gzip.NewWriter(w)
		defer z.Close()
		out, flush = z, func() error { return errors.Join(z.Flush(), http.NewResponseController(w).Flush()) }
	case "br":
		z := brotli.NewWriter(w)
		defer z.Close()
		out, flush = z, func() error { return errors.Join(z.Flush(), http.NewResponseController(w).Flush()) }
	case "zstd":
		z, err := zstd.NewWriter(w, zstd.WithEncoderConcurrency(1))
		if err != nil {
			panic(err)
		}
		defer z.Close()
		out, flush = z, func() error { return errors.Join(z.Flush(), http.NewResponseController(w).Flush()) }
	}
	if p.encoding != "" {
		w.Header().Set("Content-Encoding", p.encoding)
	}
	w.WriteHeader(max(p.status, 200))
	for text := p.body; text != ""; {
		n := len(text)
		if p.piece > 0 {
			n = min(n, p.piece)
		}
		if _, err := io.WriteString(out, text[:n]); err != nil {
			return
		}
		if flush() != nil {
			return
		}
		text = text[n:]
	}
	if p.hang {
		<-r.Context().Done()
	}
}

// newRig makes a rig whose guest thinks it talks to host.
func newRig(t testing.TB, host string, handler http.Handler) *rig {
	t.Helper()
	r := &rig{rows: &rows{}}
	var err error
	if r.book, err = budget.Open(filepath.Join(t.TempDir(), "budgets"), time.UTC); err != nil {
		t.Fatal(err)
	}
	prices, err := price.Embedded()
	if err != nil {
		t.Fatal(err)
	}
	r.tap = New(Config{Recorder: r.rows, Account: r.book.Account("dev", ""), Prices: prices, Log: slog.New(slog.DiscardHandler), Keep: 200})
	upstream := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if _, err := io.Copy(io.Discard, req.Body); err != nil {
			return
		}
		r.asked.Add(1)
		handler.ServeHTTP(w, req)
	}))
	upstream.EnableHTTP2 = true
	upstream.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	upstream.StartTLS()
	base, err := url.Parse(upstream.URL)
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: upstream.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs, ServerName: "example.com"}, ForceAttemptHTTP2: true,
		DisableCompression: true,
	}
	r.proxy = httptest.NewServer(r.handler(host, base, transport))
	t.Cleanup(func() {
		r.proxy.Close()
		transport.CloseIdleConnections()
		upstream.CloseClientConnections()
		upstream.Close()
		if err := r.book.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

// handler is the proxy, in small: the flow around each request, the modifiers in it.
func (r *rig) handler(host string, base *url.URL, transport http.RoundTripper) http.Handler {
	refuse := func(w http.ResponseWriter, _ *http.Request, err error) {
		refusal, ok := errors.AsType[*flow.Refusal](err)
		if !ok {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		maps.Copy(w.Header(), refusal.Header)
		w.WriteHeader(refusal.Status)
		_, _ = w.Write(refusal.Body)
	}
	proxy := &httputil.ReverseProxy{
		Rewrite: func(p *httputil.ProxyRequest) { p.SetURL(base) }, Transport: transport, FlushInterval: -1,
		ModifyResponse: func(res *http.Response) error {
			if r.bare {
				return nil
			}
			return r.tap.ModifyResponse(res)
		},
		ErrorHandler: refuse, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError),
	}
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		r.tried.Add(1)
		f := &flow.Flow{VM: "dev", Host: host, Port: 443, Scheme: "https", Type: "https", Began: time.Now()}
		req = req.WithContext(flow.With(req.Context(), f))
		defer func() {
			failed := recover()
			f.Finish(flow.End{At: time.Now()})
			if failed != nil {
				panic(failed)
			}
		}()
		if !r.bare {
			if err := r.tap.ModifyRequest(req); err != nil {
				refuse(w, req, err)
				return
			}
		}
		proxy.ServeHTTP(w, req)
	})
}

func (r *rig) limit(t *testing.T, p budget.Period, m budget.Meter, n int64) {
	t.Helper()
	if err := r.book.Set(budget.Scope{Kind: budget.VM, Name: "dev"}, p, m, n); err != nil {
		t.Fatal(err)
	}
}

// used is what the book says is spent and taken.
func (r *rig) used(t *testing.T, m budget.Meter) (used, held int64) {
	t.Helper()
	lines, err := r.book.Lines()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range lines {
		if l.Scope.Kind == budget.VM && l.Period == budget.Session && l.Meter == m {
			return l.Used, l.Held
		}
	}
	return 0, 0
}

// post sends a request and reads all of the answer.
func (r *rig) post(t *testing.T, path, body string, header ...string) (int, string, http.Header, error) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, r.proxy.URL+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, "", nil, err
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	return res.StatusCode, string(text), res.Header, err
}

// eventually waits for what happens when an exchange has ended for the proxy too.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(10 * time.Second); !is(); <-tick.C {
		if time.Now().After(end) {
			t.Fatal("it did not come to that: " + what)
		}
	}
}

// markStreams tells the provider which requests ask for a stream.
func (r *rig) markStreams(t *testing.T) {
	t.Helper()
	inner := r.proxy.Config.Handler
	r.proxy.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		body, err := io.ReadAll(req.Body)
		if err != nil {
			t.Error(err)
		}
		if streams(req, string(body)) {
			req.Header.Set("X-Test-Stream", "1")
		}
		req.Body = io.NopCloser(strings.NewReader(string(body)))
		inner.ServeHTTP(w, req)
	})
}
