package mitm

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"capsem/core/approval"
	"capsem/core/dns"
	"capsem/core/ledger"
	"capsem/core/mitm/authority"
	"capsem/core/mitm/egress"
	"capsem/core/policy"
	"capsem/core/proto"
)

// patience bounds every wait for something that is to happen.
const patience = 20 * time.Second

// rules are the policy of most tests: open.test and what is below it are open on every port, on the loopback.
const rules = `
[[rule]]
id = "open"
effect = "allow"
reason = "for the tests"
hosts = ["**.open.test"]
ports = ["1-65535"]
cidr = ["127.0.0.0/8"]
`

// judging is the real judge with its board, as the worker has them.
type judging struct{ *judgeOf }

// judgeOf is a Judge by a name that is no method of it.
type judgeOf = approval.Judge

func (j judging) Refusal(v policy.Verdict, req *policy.Request) policy.Refusal {
	return j.Policy().Refusal(v, req)
}

func compiled(t testing.TB, text string) *policy.Policy {
	t.Helper()
	set, err := policy.Parse(text, policy.LayerUser)
	if err != nil {
		t.Fatal(err)
	}
	p, err := policy.Compile(set)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// standIns gives names addresses of a pool, as the VM's name server does.
type standIns struct {
	mu    sync.Mutex
	names []string
}

func (s *standIns) Name(addr netip.Addr) (string, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !addr.Is4() {
		return "", false
	}
	b := addr.As4()
	if n := int(b[2])<<8 | int(b[3]); b[0] == 100 && n < len(s.names) {
		return s.names[n], true
	}
	return "", false
}

func (s *standIns) of(name string) netip.Addr {
	s.mu.Lock()
	defer s.mu.Unlock()
	for n, known := range s.names {
		if known == name {
			return netip.AddrFrom4([4]byte{100, 64, byte(n >> 8), byte(n)})
		}
	}
	s.names = append(s.names, name)
	n := len(s.names) - 1
	return netip.AddrFrom4([4]byte{100, 64, byte(n >> 8), byte(n)})
}

// rows collects what is recorded.
type rows struct {
	mu  sync.Mutex
	all []ledger.NetEvent
}

func (r *rows) RecordNet(e ledger.NetEvent) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.all = append(r.all, e)
}

func (r *rows) snapshot() []ledger.NetEvent {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]ledger.NetEvent(nil), r.all...)
}

// one waits for the next row that fits.
func (r *rows) one(t testing.TB, what string, fits func(e ledger.NetEvent) bool) ledger.NetEvent {
	t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); <-time.After(5 * time.Millisecond) {
		for _, e := range r.snapshot() {
			if fits(e) {
				return e
			}
		}
	}
	t.Fatalf("no row: %s; there are %+v", what, r.snapshot())
	return ledger.NetEvent{}
}

// rig is a proxy with a guest on one side and hosts on the loopback on the other.
type rig struct {
	t     testing.TB
	s     *Server
	judge *approval.Judge
	board *approval.Board
	names *standIns
	rows  *rows
	// roots trusts the proxy's CA; hosts signs the certificates of upstreams.
	roots *x509.CertPool
	hosts *authority.Authority
	in    net.Listener
	ctx   context.Context
}

type anyQuestion struct{}

func (anyQuestion) Asked(approval.Question)                      {}
func (anyQuestion) Answered(approval.Question, approval.Outcome) {}

func newRig(t testing.TB, text string, change ...func(*Config)) *rig {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	g := &rig{t: t, names: &standIns{}, rows: &rows{}, roots: x509.NewCertPool(), ctx: ctx}
	g.board = approval.NewBoard(approval.Config{Recorder: anyQuestion{}, Timeout: patience})
	g.judge = approval.NewJudge(compiled(t, text), g.board)
	ours, err := authority.LoadOrCreate(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	g.roots.AppendCertsFromPEM(ours.CertPEM())
	if g.hosts, err = authority.LoadOrCreate(t.TempDir()); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	ca, hosts := filepath.Join(dir, "ca.pem"), filepath.Join(dir, "hosts")
	names := "127.0.0.1 open.test a.open.test b.open.test shut.test ask.test\n169.254.169.254 meta.open.test\n10.1.2.3 private.open.test\n" +
		"::ffff:10.1.2.3 mapped.open.test\n64:ff9b::a01:203 nat64.open.test\n"
	for name, data := range map[string][]byte{ca: g.hosts.CertPEM(), hosts: []byte(names)} {
		if err := os.WriteFile(name, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	resolver, err := dns.NewResolver(ctx, dns.ResolverConfig{Servers: []string{"127.0.0.1:9"}, HostsFile: hosts, Tries: 1})
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.NewTextHandler(&testLog{t: t}, &slog.HandlerOptions{Level: slog.LevelWarn}))
	dialer, err := egress.New(egress.Config{Resolver: resolver, CAFiles: []string{ca}, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	cfg := Config{VM: "vm", Policy: judging{g.judge}, Names: g.names, Authority: ours, Dialer: dialer, Recorder: g.rows, Log: log}
	cfg.Limits.Quiet, cfg.Limits.Recheck = 100*time.Millisecond, 50*time.Millisecond
	for _, c := range change {
		c(&cfg)
	}
	if g.s, err = New(ctx, cfg); err != nil {
		t.Fatal(err)
	}
	if g.in, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		g.board.Close()
		g.s.Close()
		_ = g.in.Close()
		resolver.Close()
	})
	return g
}

// testLog writes what the proxy warns of to the test's log, as long as that takes it.
type testLog struct {
	t    testing.TB
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *testLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

// stream is a connection as the link gives it: timeouts are wrapped, and it can be reset.
type stream struct{ *net.TCPConn }

func (s stream) Read(p []byte) (int, error) {
	n, err := s.TCPConn.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		err = fmt.Errorf("read stream: %w", err)
	}
	return n, err
}

func (s stream) Write(p []byte) (int, error) {
	n, err := s.TCPConn.Write(p)
	if err != nil {
		err = fmt.Errorf("write stream: %w", err)
	}
	return n, err
}

// Refuse resets the connection.
func (s stream) Refuse() {
	_ = s.SetLinger(0)
	_ = s.Close()
}

// connect opens a connection of the guest to a host and port, which it resolves to a stand-in, or to an address.
func (g *rig) connect(ctx context.Context, hostport string) (net.Conn, error) {
	host, port, err := net.SplitHostPort(hostport)
	if err != nil {
		return nil, err
	}
	addr, err := netip.ParseAddr(host)
	if err != nil {
		addr = g.names.of(host)
	}
	var d net.Dialer
	client, err := d.DialContext(ctx, "tcp", g.in.Addr().String())
	if err != nil {
		return nil, err
	}
	server, err := g.in.Accept()
	if err != nil {
		return nil, err
	}
	n, _ := strconv.Atoi(port)
	open := proto.NetworkOpen{Dest: netip.AddrPortFrom(addr, uint16(n)).String(), Process: proto.ProcessClaim{PID: 7, Name: "curl"}}
	go g.s.Serve(g.ctx, stream{server.(*net.TCPConn)}, open)
	return client, nil
}

// client is an HTTP client in the guest.
func (g *rig) client(change ...func(*http.Transport)) *http.Client {
	var dialing sync.Mutex // accepting has to match
	tr := &http.Transport{
		DialContext: func(ctx context.Context, _, addr string) (net.Conn, error) {
			dialing.Lock()
			defer dialing.Unlock()
			return g.connect(ctx, addr)
		},
		TLSClientConfig: &tls.Config{RootCAs: g.roots}, DisableCompression: true, MaxIdleConnsPerHost: 300, Protocols: new(http.Protocols),
	}
	tr.Protocols.SetHTTP1(true)
	for _, c := range change {
		c(tr)
	}
	g.t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

func both(tr *http.Transport) { tr.Protocols.SetHTTP2(true) }

func prior(tr *http.Transport) {
	tr.Protocols = new(http.Protocols)
	tr.Protocols.SetUnencryptedHTTP2(true)
}

// upstream is a host on the loopback, over TLS with HTTP/2 if wanted.
func (g *rig) upstream(h2 bool, handler http.HandlerFunc) (port string) {
	g.t.Helper()
	srv := httptest.NewUnstartedServer(handler)
	srv.TLS = &tls.Config{GetCertificate: func(h *tls.ClientHelloInfo) (*tls.Certificate, error) { return g.hosts.Leaf(h.ServerName) }}
	srv.EnableHTTP2 = h2
	srv.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug)
	srv.StartTLS()
	g.t.Cleanup(func() { srv.CloseClientConnections(); srv.Close() })
	_, port, _ = net.SplitHostPort(srv.Listener.Addr().String())
	return port
}

// plain is one without TLS.
func (g *rig) plain(handler http.HandlerFunc) (port string) {
	g.t.Helper()
	srv := httptest.NewUnstartedServer(handler)
	srv.Config.Protocols = new(http.Protocols)
	srv.Config.Protocols.SetHTTP1(true)
	srv.Config.Protocols.SetUnencryptedHTTP2(true)
	srv.Start()
	g.t.Cleanup(func() { srv.CloseClientConnections(); srv.Close() })
	_, port, _ = net.SplitHostPort(srv.Listener.Addr().String())
	return port
}

func get(t testing.TB, c *http.Client, url string) (*http.Response, string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res, string(text)
}

// calm waits until no more goroutines than before are left.
func calm(t *testing.T, before int) {
	t.Helper()
	n := 0
	for end := time.Now().Add(patience); time.Now().Before(end); <-time.After(10 * time.Millisecond) {
		if n = runtime.NumGoroutine(); n <= before {
			return
		}
	}
	buf := make([]byte, 1<<20)
	t.Errorf("%d goroutines, %d before:\n%s", n, before, buf[:runtime.Stack(buf, true)])
}

func contains(t *testing.T, text string, parts ...string) {
	t.Helper()
	for _, p := range parts {
		if !strings.Contains(text, p) {
			t.Errorf("%q is not in %q", p, text)
		}
	}
}
