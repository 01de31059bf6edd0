package machine

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"capsem/core/approval"
	"capsem/core/budget"
	"capsem/core/config"
	"capsem/core/detect"
	"capsem/core/inspect/modeltap"
	"capsem/core/inspect/price"
	"capsem/core/ledger"
	"capsem/core/mitm"
	"capsem/core/mitm/authority"
	"capsem/core/mitm/egress"
	"capsem/core/paths"
	"capsem/core/proto"
)

const speedHost = "api.anthropic.com"

// speedRig is one host, and proxies of a VM before it that differ in what they look at.
type speedRig struct {
	b     testing.TB
	w     *Worker
	ca    *authority.Authority
	roots *x509.CertPool
	to    string
	h2    bool
}

// oneHost dials one host whatever the name, and gives every address its name.
type oneHost struct{ *speedRig }

func (o oneHost) Name(netip.Addr) (string, bool) { return speedHost, true }
func (o oneHost) RecordNet(ledger.NetEvent)      {}
func (o oneHost) Dial(ctx context.Context, _ string, _ uint16, _ egress.Permit) (net.Conn, error) {
	return (&net.Dialer{}).DialContext(ctx, "tcp", o.to)
}

func (o oneHost) DialTLS(ctx context.Context, host string, port uint16, p egress.Permit, alpn []string) (*tls.Conn, error) {
	c, err := o.Dial(ctx, host, port, p)
	if err != nil {
		return nil, err
	}
	t := tls.Client(c, &tls.Config{ServerName: host, RootCAs: o.roots, NextProtos: alpn, MinVersion: tls.VersionTLS12})
	if err := t.HandshakeContext(ctx); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return t, nil
}

type noRows struct{}

func (noRows) Record(ledger.Row) {}

func newSpeedRig(b testing.TB, h2 bool, handler http.HandlerFunc) *speedRig {
	b.Helper()
	r := &speedRig{b: b, h2: h2, roots: x509.NewCertPool(), w: &Worker{credentials: newCredentials(), log: quiet()}}
	r.w.spec.Detect = proto.DetectSpec{Placeholders: detect.Deny, Secrets: detect.Deny, OwnSecrets: detect.Deny, Injection: detect.Report}
	var grants []proto.Grant
	for i, host := range []string{speedHost, "api.openai.com", "github.com"} { // what somebody who works with agents has
		s := proto.GrantSecret{Placeholder: fmt.Sprintf("sk-fake-%d-%s", i, strings.Repeat("pQ3x", 8)), Value: proto.Secret(fmt.Sprintf("sk-real-%d-Rv9sK2mQ7xTz4LwY8bNc3VdF6hJp1GaE", i))}
		grants = append(grants, proto.Grant{Name: "key" + strconv.Itoa(i), Kind: "generic", Hosts: []string{host}, Places: []proto.GrantPlace{{In: "header"}}, Secrets: []proto.GrantSecret{s}})
	}
	if err := r.w.setCredentials(b.Context(), &proto.Credentials{Grants: grants}); err != nil {
		b.Fatal(err)
	}
	var err error
	if r.ca, err = authority.LoadOrCreate(b.TempDir()); err != nil {
		b.Fatal(err)
	}
	r.roots.AppendCertsFromPEM(r.ca.CertPEM())
	up := httptest.NewUnstartedServer(handler)
	up.TLS = &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return r.ca.Leaf(speedHost) }}
	up.EnableHTTP2 = h2
	up.StartTLS()
	b.Cleanup(func() { up.CloseClientConnections(); up.Close() })
	r.to = up.Listener.Addr().String()
	return r
}

// network is the VM's, with the rules that open the host.
func (r *speedRig) network() *network {
	home := paths.Home(r.b.TempDir())
	rule := fmt.Sprintf("[[rule]]\nid = \"open\"\neffect = \"allow\"\nreason = \"for the test\"\nhosts = [%q]\n", speedHost)
	if err := os.WriteFile(home.UserPolicy(), []byte(rule), 0o600); err != nil {
		r.b.Fatal(err)
	}
	n := &network{w: r.w, rules: config.NewPolicySource(config.PolicyFiles(home, ""))}
	n.current = n.rules.Current()
	n.board = approval.NewBoard(approval.Config{Recorder: questionRecord{r.w}})
	n.judge = approval.NewJudge(n.current, n.board)
	r.b.Cleanup(n.board.Close)
	return n
}

// guest is a client behind a proxy that has everything on, or only what a proxy without credentials has.
func (r *speedRig) guest(everything bool) *http.Client {
	n := r.network()
	var modifiers []any
	if everything {
		book, err := budget.Open(filepath.Join(r.b.TempDir(), "budgets"), time.UTC)
		if err != nil {
			r.b.Fatal(err)
		}
		r.b.Cleanup(func() { _ = book.Close() })
		if err := book.Set(budget.Scope{Kind: budget.VM, Name: "dev"}, budget.Session, budget.Tokens, 1<<50); err != nil {
			r.b.Fatal(err)
		}
		prices, err := price.Embedded()
		if err != nil {
			r.b.Fatal(err)
		}
		modifiers = n.modifiers(modeltap.New(modeltap.Config{Recorder: noRows{}, Account: book.Account("dev", ""), Prices: prices, Log: quiet()}))
	}
	server, err := mitm.New(r.b.Context(), mitm.Config{
		VM: "dev", Policy: inForce{n}, Names: oneHost{r}, Authority: r.ca, Dialer: oneHost{r}, Recorder: oneHost{r}, Log: quiet(), Modifiers: modifiers,
	})
	if err != nil {
		r.b.Fatal(err)
	}
	in, err := (&net.ListenConfig{}).Listen(r.b.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		r.b.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			c, err := in.Accept()
			if err != nil {
				return
			}
			serving.Go(func() { server.Serve(context.Background(), c, proto.NetworkOpen{Dest: "100.64.0.1:443"}) })
		}
	})
	transport := &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "tcp", in.Addr().String())
		},
		TLSClientConfig: &tls.Config{RootCAs: r.roots, MinVersion: tls.VersionTLS12}, ForceAttemptHTTP2: r.h2, MaxIdleConnsPerHost: 300, DisableCompression: true,
	}
	r.b.Cleanup(func() {
		transport.CloseIdleConnections()
		_ = in.Close()
		server.Close()
		serving.Wait()
	})
	return &http.Client{Transport: transport}
}

// workload is what guests do: so many calls by some clients at once.
type workload struct {
	name           string
	calls, clients int
	body           string // a POST if there is one
	header         http.Header
	answer         http.HandlerFunc
}

func speedWorkloads() []workload {
	var messages strings.Builder
	for i := range 100 {
		fmt.Fprintf(&messages, `{"role":"user","content":[{"type":"text","text":"%d: the function f(x) in file %d.go returns \"nil\" where it should say what failed;\nsee line %d of it, and what its caller does. %s"}]},`, i, i, i*7, strings.Repeat("Some more words about the code, and why. ", 24))
	}
	model := `{"model":"claude-sonnet-4-5","max_tokens":100,"stream":true,"messages":[` + strings.TrimSuffix(messages.String(), ",") + `]}`
	var events strings.Builder
	events.WriteString("event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"m\",\"model\":\"claude-sonnet-4-5\",\"usage\":{\"input_tokens\":100,\"output_tokens\":1}}}\n\n" +
		"event: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":0,\"content_block\":{\"type\":\"text\",\"text\":\"\"}}\n\n")
	for i := range 200 {
		fmt.Fprintf(&events, "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\" word %d and more\"}}\n\n", i)
	}
	events.WriteString("event: content_block_stop\ndata: {\"type\":\"content_block_stop\",\"index\":0}\n\n" +
		"event: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\"},\"usage\":{\"output_tokens\":300}}\n\nevent: message_stop\ndata: {\"type\":\"message_stop\"}\n\n")
	stream := events.String()
	key := http.Header{"X-Api-Key": {"sk-fake-0-" + strings.Repeat("pQ3x", 8)}, "Content-Type": {"application/json"}, "User-Agent": {"bench/1"}, "Anthropic-Version": {"2023-06-01"}}
	text := strings.Repeat("A line of a document that is sent somewhere, with 12345 and (some) signs.\n", 1<<20/74)
	small := func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		_, _ = io.WriteString(w, "hello, world")
	}
	return []workload{
		{"small", 2000, 50, "", key, small},
		{"model call of 140 KB", 150, 4, model, key, func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			w.Header().Set("Content-Type", "text/event-stream")
			for rest := stream; rest != ""; {
				n := min(1000, len(rest))
				_, _ = io.WriteString(w, rest[:n])
				_ = http.NewResponseController(w).Flush()
				rest = rest[n:]
			}
		}},
		{"text of 1 MiB down", 40, 4, "", key, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/plain")
			_, _ = io.WriteString(w, text)
		}},
		{"text of 1 MiB up", 40, 4, text, http.Header{"Content-Type": {"text/plain"}}, small},
	}
}

// do makes the calls and gives the time, and what it took of the processors.
func (l *workload) do(b *testing.B, c *http.Client, n int) (wall, cpu time.Duration) {
	var left atomic.Int64
	left.Store(int64(n))
	path := "/x"
	if l.body != "" && strings.HasPrefix(l.body, "{") {
		path = "/v1/messages"
	}
	var all sync.WaitGroup
	began, used := time.Now(), processTime()
	for range l.clients {
		all.Go(func() {
			for left.Add(-1) >= 0 {
				req, err := http.NewRequestWithContext(b.Context(), http.MethodGet, "https://"+speedHost+path, nil)
				if err == nil && l.body != "" {
					req, err = http.NewRequestWithContext(b.Context(), http.MethodPost, "https://"+speedHost+path, strings.NewReader(l.body))
				}
				if err != nil {
					b.Error(err)
					return
				}
				req.Header = l.header.Clone()
				res, err := c.Do(req)
				if err != nil {
					b.Error(err)
					return
				}
				if _, err := io.Copy(io.Discard, res.Body); err != nil || res.StatusCode != http.StatusOK {
					b.Error(res.Status, err)
				}
				_ = res.Body.Close()
			}
		})
	}
	all.Wait()
	return time.Since(began), processTime() - used
}

// TestALongConversationPassesInBoundedMemory: a JSON body through everything that looks into it. A hundred megabytes are read by each part in its own tests.
func TestALongConversationPassesInBoundedMemory(t *testing.T) {
	const size = 40 << 20
	most, start := uint64(0), uint64(0)
	heap := func() uint64 {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	got := int64(0)
	r := newSpeedRig(t, false, func(w http.ResponseWriter, req *http.Request) {
		for buf := make([]byte, 1<<20); ; {
			n, err := io.ReadFull(req.Body, buf)
			got += int64(n)
			if got>>20%10 == 0 {
				most = max(most, heap())
			}
			if err != nil {
				break
			}
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, `{"model":"claude-sonnet-4-5","usage":{"input_tokens":40000000,"output_tokens":1}}`)
	})
	guest := r.guest(true)
	begin := `{"model":"claude-sonnet-4-5","max_tokens":1,"messages":[{"role":"user","content":"`
	piece := strings.Repeat(`Some \"words\" of a conversation\nin lines, \u0041nd more of it. `, 1000)
	body := func() io.Reader {
		parts := []io.Reader{strings.NewReader(begin)}
		for range size / len(piece) {
			parts = append(parts, strings.NewReader(piece))
		}
		return io.MultiReader(append(parts, strings.NewReader(`"}]}`))...)
	}
	start = heap()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://"+speedHost+"/v1/messages", body())
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	res, err := guest.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if want := int64(len(begin) + size/len(piece)*len(piece) + 4); err != nil || res.StatusCode != http.StatusOK || got != want {
		t.Errorf("status %d, %d of %d bytes arrived, %v: %s", res.StatusCode, got, want, err, text)
	}
	if most > start+20<<20 {
		t.Errorf("%d MiB more than before are in use", (most-start)>>20)
	}
}

// BenchmarkEverything compares a proxy with credentials, model calls, budgets and detectors with one that only has the policy. The two take turns, so that
// what else the machine does is the same for both: x is how fast it is beside the other.
func BenchmarkEverything(b *testing.B) {
	for _, l := range speedWorkloads() {
		for _, proto := range []string{"h1", "h2"} {
			b.Run(proto+"/"+strings.ReplaceAll(l.name, " ", "_"), func(b *testing.B) {
				r := newSpeedRig(b, proto == "h2", l.answer)
				without, with := r.guest(false), r.guest(true)
				l.do(b, without, 2*l.clients)
				l.do(b, with, 2*l.clients)
				var rates, ratios, ofCPU []float64
				for b.Loop() {
					bare, bareCPU := l.do(b, without, l.calls)
					all, allCPU := l.do(b, with, l.calls)
					rates = append(rates, float64(l.calls)/all.Seconds())
					ratios, ofCPU = append(ratios, bare.Seconds()/all.Seconds()), append(ofCPU, bareCPU.Seconds()/allCPU.Seconds())
				}
				b.ReportMetric(middle(rates), "req/s")
				b.ReportMetric(middle(ratios), "x")
				b.ReportMetric(middle(ofCPU), "x-cpu")
			})
		}
	}
}

func middle(v []float64) float64 {
	slices.Sort(v)
	return v[len(v)/2]
}

// processTime is what this process has used: client and host included.
func processTime() time.Duration {
	var u syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
