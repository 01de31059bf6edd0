package git

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/cgi"
	"net/http/httptest"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"capsem/core/approval"
	"capsem/core/credential/swap"
	"capsem/core/detect"
	"capsem/core/dns"
	"capsem/core/ledger"
	"capsem/core/mitm"
	"capsem/core/mitm/authority"
	"capsem/core/mitm/egress"
	"capsem/core/mitm/flow"
	"capsem/core/policy"
	"capsem/core/proto"
)

// open lets all connections to git.test through, so that the git rules decide.
const open = `
[[rule]]
id = "open"
effect = "allow"
reason = "for the tests"
hosts = ["git.test"]
ports = ["1-65535"]
cidr = ["127.0.0.0/8"]
`

// agents are the rules that the preset git-agent has.
const agents = open + `
[[git]]
id = "team/branches"
effect = "allow"
hosts = ["git.test"]
ops = ["push"]
refs = ["refs/heads/agent/**"]
kinds = ["create", "update"]
max_pack = "1MB"
[[git]]
id = "team/other"
effect = "deny"
reason = "agents push to agent/ only"
hosts = ["git.test"]
ops = ["push"]
`

type oneName struct{}

func (oneName) Name(netip.Addr) (string, bool) { return "git.test", true }

type judging struct{ *judgeOf }

type judgeOf = approval.Judge

func (j judging) Refusal(v policy.Verdict, req *policy.Request) policy.Refusal {
	return j.Policy().Refusal(v, req)
}

type nothing struct{}

func (nothing) Asked(approval.Question)                      {}
func (nothing) Answered(approval.Question, approval.Outcome) {}

type rows struct {
	mu  sync.Mutex
	all []ledger.NetEvent
}

func (r *rows) RecordNet(e ledger.NetEvent) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.all = append(r.all, e)
}

// rig is a git client, the proxy, and a real server of git.
type rig struct {
	t *testing.T
	// url is that of the repository as the client has it; work the client's copy, bare the server's.
	url, work, bare string
	env             []string
	rows            rows

	mu sync.Mutex
	// pushes are the bodies that reached the server's receive-pack, whole or not.
	pushes [][]byte
	asked  []string
	agree  bool
	// shut has the server refuse whoever wants to read.
	shut bool
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

func must[T any](t testing.TB) func(v T, err error) T {
	t.Helper()
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// newRig starts all of it; rules are the policy, h2 says that the server speaks HTTP/2.
func newRig(t *testing.T, rules string, h2 bool) *rig {
	t.Helper()
	backend := strings.TrimSpace(string(must[[]byte](t)(exec.Command("git", "--exec-path").Output()))) + "/git-http-backend"
	if _, err := os.Stat(backend); err != nil {
		t.Fatal("git http-backend is not there; .ci/deps test installs it: ", err)
	}
	dir := t.TempDir()
	g := &rig{t: t, bare: filepath.Join(dir, "srv/team/repo.git"), work: filepath.Join(dir, "work")}
	g.env = []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "GIT_CONFIG_NOSYSTEM=1", "GIT_TERMINAL_PROMPT=0", "LC_ALL=C", "GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@x",
		"GIT_COMMITTER_NAME=a", "GIT_COMMITTER_EMAIL=a@x",
	}
	ours, hosts := must[*authority.Authority](t)(authority.LoadOrCreate(t.TempDir())), must[*authority.Authority](t)(authority.LoadOrCreate(t.TempDir()))

	h := &cgi.Handler{Path: backend, Env: []string{"GIT_PROJECT_ROOT=" + filepath.Join(dir, "srv"), "GIT_HTTP_EXPORT_ALL=1", "REMOTE_USER=agent"}, Stderr: io.Discard}
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { g.serve(h, w, r) }))
	srv.TLS = &tls.Config{GetCertificate: func(i *tls.ClientHelloInfo) (*tls.Certificate, error) { return hosts.Leaf(i.ServerName) }}
	srv.EnableHTTP2 = h2
	srv.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug)
	srv.StartTLS()
	t.Cleanup(func() { srv.CloseClientConnections(); srv.Close() })
	_, port, _ := net.SplitHostPort(srv.Listener.Addr().String())

	ca, names := filepath.Join(dir, "hosts.pem"), filepath.Join(dir, "hosts")
	for name, data := range map[string][]byte{ca: hosts.CertPEM(), filepath.Join(dir, "ca.pem"): ours.CertPEM(), names: []byte("127.0.0.1 git.test\n")} {
		if err := os.WriteFile(name, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	g.proxy(rules, port, ca, names, ours)
	g.url = "https://git.test:" + port + "/team/repo.git"
	g.git(dir, "config", "--global", "http.sslCAInfo", filepath.Join(dir, "ca.pem"))
	g.git(dir, "config", "--global", "http.curloptResolve", "git.test:"+port+":127.0.0.2")
	g.git(dir, "config", "--global", "init.defaultBranch", "main")
	g.git(dir, "config", "--global", "credential.helper", "store")
	if err := os.WriteFile(filepath.Join(dir, ".git-credentials"), []byte("https://agent:"+placeholder+"@git.test:"+port+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	g.seed()
	return g
}

// seed makes the server's repository with two commits.
func (g *rig) seed() {
	g.git(".", "init", "-q", "--bare", g.bare)
	g.git(g.bare, "config", "http.receivepack", "true")
	first := filepath.Join(filepath.Dir(g.work), "first")
	g.git(".", "init", "-q", first)
	for _, text := range []string{"one", "two"} {
		if err := os.WriteFile(filepath.Join(first, "file"), []byte(text), 0o600); err != nil {
			g.t.Fatal(err)
		}
		g.git(first, "add", "-A")
		g.git(first, "commit", "-qm", text)
	}
	g.git(first, "push", "-q", g.bare, "main", "main:agent/old")
}

// placeholder is what the guest has of the password, password what the server wants.
const placeholder, password = "ghp_placeholder00000000000000000000000000", "ghp_theRealOne1111111111111111111111111"

// vault has the password.
func (g *rig) vault() *swap.Vault {
	v := swap.NewVault()
	if err := v.Set(&proto.Credentials{Grants: []proto.Grant{{
		Name: "git", Kind: "github", Hosts: []string{"git.test"}, Places: []proto.GrantPlace{{In: "basic"}},
		Secrets: []proto.GrantSecret{{Placeholder: placeholder, Value: password}},
	}}}); err != nil {
		g.t.Fatal(err)
	}
	return v
}

// proxy is the proxy, on the same port of another address.
func (g *rig) proxy(rules, port, ca, names string, ours *authority.Authority) {
	t := g.t
	ctx, cancel := context.WithCancel(context.Background())
	resolver := must[*dns.Resolver](t)(dns.NewResolver(ctx, dns.ResolverConfig{Servers: []string{"127.0.0.1:9"}, HostsFile: names, Tries: 1}))
	dialer := must[*egress.Dialer](t)(egress.New(egress.Config{Resolver: resolver, CAFiles: []string{ca}, Log: slog.New(slog.DiscardHandler)}))
	board := approval.NewBoard(approval.Config{Recorder: nothing{}})
	judge := approval.NewJudge(compiled(t, rules), board)
	secrets := swap.NewModifiers(swap.Config{Vault: g.vault()})
	var s *mitm.Server
	fetch := func(req *http.Request) (*http.Response, error) {
		if err := secrets.Requests().ModifyRequest(req); err != nil {
			return nil, err
		}
		return s.RoundTrip(req)
	}
	m := New(Config{Policy: judge.Policy, Fetch: fetch, Ask: func(_ context.Context, _ *flow.Flow, rule, reason string) bool {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.asked = append(g.asked, rule+": "+reason)
		return g.agree
	}})
	found := detect.NewModifiers(detect.Config{
		Engine: detect.NewEngine(nil), Verdict: func(string) string { return detect.Deny }, Record: func(*flow.Flow, detect.Finding, string) {},
	})
	s = must[*mitm.Server](t)(mitm.New(ctx, mitm.Config{
		VM: "vm", Policy: judging{judge}, Names: oneName{}, Authority: ours, Dialer: dialer, Recorder: &g.rows,
		Modifiers: []any{secrets.Answers(), found, m, secrets.Requests()}, // as a machine has them
	}))
	in, err := net.Listen("tcp", "127.0.0.2:"+port)
	if err != nil {
		t.Fatal("a second loopback address is needed: ", err)
	}
	n, _ := strconv.Atoi(port)
	dest := netip.AddrPortFrom(netip.MustParseAddr("100.64.0.1"), uint16(n)).String()
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := in.Accept()
			if err != nil {
				return
			}
			serving.Go(func() { s.Serve(ctx, conn, proto.NetworkOpen{Dest: dest}) })
		}
	})
	t.Cleanup(func() {
		_ = in.Close()
		cancel()
		board.Close()
		s.Close()
		serving.Wait()
		resolver.Close()
	})
}

// serve answers as git's server does. CGI knows no chunks, so the body is collected first.
func (g *rig) serve(h http.Handler, w http.ResponseWriter, r *http.Request) {
	if _, got, _ := r.BasicAuth(); got != password {
		w.Header().Set("WWW-Authenticate", `Basic realm="git"`)
		http.Error(w, "who are you?", http.StatusUnauthorized)
		return
	}
	body, err := io.ReadAll(r.Body)
	if strings.HasSuffix(r.URL.Path, receive) && r.Method == http.MethodPost {
		g.mu.Lock()
		g.pushes = append(g.pushes, body)
		g.mu.Unlock()
	}
	if err != nil {
		http.Error(w, "cut short", http.StatusBadRequest)
		return
	}
	r.Body, r.ContentLength, r.TransferEncoding = io.NopCloser(bytes.NewReader(body)), int64(len(body)), nil
	g.mu.Lock()
	shut := g.shut && strings.HasSuffix(r.URL.Path, upload)
	g.mu.Unlock()
	if shut {
		http.Error(w, "not now", http.StatusForbidden)
		return
	}
	h.ServeHTTP(w, r)
}

// try runs git.
func (g *rig) try(dir string, args ...string) (string, error) {
	cmd := exec.Command("git", args...)
	cmd.Dir, cmd.Env = dir, g.env
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func (g *rig) git(dir string, args ...string) string {
	g.t.Helper()
	out, err := g.try(dir, args...)
	if err != nil {
		g.t.Fatalf("git %v: %v\n%s", args, err, out)
	}
	return strings.TrimSpace(out)
}

// clone gives the client a copy, and commit adds a commit of some size there.
func (g *rig) clone() {
	g.t.Helper()
	g.git(".", "clone", "-q", g.url, g.work)
}

func (g *rig) commit(branch string, size int) {
	g.t.Helper()
	g.git(g.work, "checkout", "-qB", branch)
	data := make([]byte, size)
	x := uint32(len(g.git(g.work, "rev-parse", "HEAD"))) + uint32(size)
	for i := range data { // not to be compressed
		x = x*1664525 + 1013904223
		data[i] = byte(x >> 24)
	}
	if err := os.WriteFile(filepath.Join(g.work, "data"), data, 0o600); err != nil {
		g.t.Fatal(err)
	}
	g.git(g.work, "add", "-A")
	g.git(g.work, "commit", "--allow-empty", "-qm", "more on "+branch)
}

// at is where a ref of the server is, "" if it is not there.
func (g *rig) at(ref string) string {
	out, err := g.try(g.bare, "rev-parse", "--verify", "-q", ref)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(out)
}

// packs counts the packs that reached the server.
func (g *rig) packs() (n int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, b := range g.pushes {
		if len(b) > 4 {
			n++
		}
	}
	return n
}

// client is a guest's HTTP client, for what git does not send.
func (g *rig) client() *http.Client {
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(must[[]byte](g.t)(os.ReadFile(filepath.Join(filepath.Dir(g.work), "ca.pem"))))
	_, port, _ := net.SplitHostPort(strings.TrimSuffix(strings.TrimPrefix(g.url, "https://"), "/team/repo.git"))
	tr := &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", "127.0.0.2:"+port)
		},
		TLSClientConfig: &tls.Config{RootCAs: pool}, DisableCompression: true,
	}
	g.t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr}
}
