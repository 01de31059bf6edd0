package mitm

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"capsem/core/approval"
	"capsem/core/ledger"
)

// ask is a policy that asks about ask.test and refuses large or unwanted requests to open.test.
const ask = rules + `
[[rule]]
id = "asks"
effect = "ask"
reason = "is it wanted?"
hosts = ["ask.test"]
ports = ["1-65535"]
cidr = ["127.0.0.0/8"]
`

func (g *rig) reload(text string) { g.judge.Reload(compiled(g.t, text)) }

// secure is a TLS connection of the guest.
func (g *rig) secure(hostport, serverName string, alpn ...string) (*tls.Conn, error) {
	raw, err := g.connect(g.ctx, hostport)
	if err != nil {
		return nil, err
	}
	_ = raw.SetDeadline(time.Now().Add(patience))
	g.t.Cleanup(func() { _ = raw.Close() })
	tc := tls.Client(raw, &tls.Config{RootCAs: g.roots, ServerName: serverName, NextProtos: alpn})
	err = tc.Handshake()
	return tc, err
}

func TestAServerNameThatIsNotTheConnectionsIsRefused(t *testing.T) {
	g := newRig(t, rules)
	reached := false
	port := g.upstream(true, func(http.ResponseWriter, *http.Request) { reached = true })
	for _, name := range []string{"b.open.test", "shut.test", "other.example", "a.open.test.example"} {
		_, err := g.secure("a.open.test:"+port, name)
		if err == nil || !strings.Contains(err.Error(), "unrecognized name") {
			t.Errorf("%s: %v", name, err)
		}
		row := g.rows.one(t, name, func(e ledger.NetEvent) bool { return strings.HasSuffix(e.Reason, "TLS asks for "+name) })
		if row.Decision != "denied" || row.Rule != ruleSNI || row.Domain != "a.open.test" {
			t.Errorf("%+v", row)
		}
	}
	if reached {
		t.Error("the host was reached")
	}
}

func TestWithoutAServerNameTheStandInSaysWhichHostItIs(t *testing.T) {
	g := newRig(t, rules)
	port := g.upstream(false, func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.Host) })
	raw, err := g.connect(t.Context(), "a.open.test:"+port)
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	tc := tls.Client(raw, &tls.Config{InsecureSkipVerify: true})
	fmt.Fprintf(tc, "GET / HTTP/1.1\r\nHost: a.open.test:%s\r\nConnection: close\r\n\r\n", port)
	text, err := io.ReadAll(tc)
	if err != nil || !strings.HasSuffix(string(text), "a.open.test:"+port) {
		t.Errorf("%s %v", text, err)
	}
	if names := tc.ConnectionState().PeerCertificates[0].DNSNames; len(names) != 1 || names[0] != "a.open.test" {
		t.Errorf("the certificate is for %v", names)
	}
}

func TestARequestForAnotherHostThanItsConnectionIs421(t *testing.T) {
	g := newRig(t, rules)
	reached := false
	h1, h2 := g.upstream(false, func(http.ResponseWriter, *http.Request) { reached = true }), g.upstream(true, func(http.ResponseWriter, *http.Request) { reached = true })
	open := g.plain(func(http.ResponseWriter, *http.Request) { reached = true })
	for _, url := range []string{"https://a.open.test:" + h1, "https://a.open.test:" + h2, "http://a.open.test:" + open} {
		for _, host := range []string{"b.open.test", "shut.test", "a.open.test:1", "a.open.test.", "127.0.0.1", "a.open.test@shut.test", "a.open.test:x"} {
			req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
			req.Host = host
			res, err := g.client(both).Do(req)
			if err != nil {
				if strings.Contains(host, "@") {
					continue // not sent at all
				}
				t.Fatal(err)
			}
			_ = res.Body.Close()
			want := 421
			if host == "a.open.test." { // the same name
				want = 200
			}
			if res.StatusCode != want && (want != 421 || res.StatusCode != http.StatusBadRequest) {
				t.Errorf("%s, %s: %s", url, host, res.Status)
			}
			reached = reached && want != 200
		}
	}
	if reached {
		t.Error("a host was reached")
	}
	row := g.rows.one(t, "421", func(e ledger.NetEvent) bool { return e.Status == 421 })
	if row.Decision != "denied" || row.Rule != ruleHost {
		t.Errorf("%+v", row)
	}
}

// exchangeRaw sends bytes on a plain connection and returns all that comes back.
func (g *rig) exchangeRaw(hostport, text string) string {
	g.t.Helper()
	c, err := g.connect(g.ctx, hostport)
	if err != nil {
		g.t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(patience))
	_, _ = io.WriteString(c, text)
	got, _ := io.ReadAll(c)
	return string(got)
}

func TestThisIsNoOpenProxy(t *testing.T) {
	g := newRig(t, rules)
	reached := false
	port := g.plain(func(http.ResponseWriter, *http.Request) { reached = true })
	for text, want := range map[string]string{
		"CONNECT shut.test:443 HTTP/1.1\r\nHost: shut.test:443\r\n\r\n":                          "405",
		"CONNECT a.open.test:" + port + " HTTP/1.1\r\nHost: a.open.test:" + port + "\r\n\r\n":    "405",
		"GET http://shut.test/ HTTP/1.1\r\nHost: a.open.test\r\nConnection: close\r\n\r\n":       "421",
		"GET shut.test:80 HTTP/1.1\r\nHost: a.open.test\r\nConnection: close\r\n\r\n":            "400",
		"GET http://u:p@a.open.test/ HTTP/1.1\r\nHost: a.open.test\r\nConnection: close\r\n\r\n": "400",
		"OPTIONS * HTTP/1.1\r\nHost: a.open.test\r\nConnection: close\r\n\r\n":                   "403",
	} {
		if got := g.exchangeRaw("a.open.test:"+port, text); !strings.HasPrefix(got, "HTTP/1.1 "+want) {
			t.Errorf("%q: %q", text, got)
		}
	}
	if reached {
		t.Error("the host was reached")
	}
}

func TestAddressesThatNoRuleOpensAreNotDialled(t *testing.T) {
	// Everything is allowed, but no address of a private network.
	g := newRig(t, "[[rule]]\nid = \"all\"\neffect = \"allow\"\nreason = \"all\"\nhosts = [\"**\"]\nports = [\"1-65535\"]\n"+
		"[[rule]]\nid = \"raw\"\neffect = \"allow\"\nreason = \"raw\"\nhosts = [\"**.open.test\"]\nports = [\"22\"]\nschemes = [\"tcp\"]\n")
	reached := false
	port := g.upstream(true, func(http.ResponseWriter, *http.Request) { reached = true })
	open := g.plain(func(http.ResponseWriter, *http.Request) { reached = true })
	for _, c := range []struct{ url, kind string }{
		{"https://a.open.test:" + port, "loopback"},
		{"http://a.open.test:" + open, "loopback"},
		{"http://meta.open.test", "link-local or cloud metadata"},
		{"https://private.open.test", "private"},
		{"http://mapped.open.test", "private"},
		{"http://nat64.open.test", "private"},
		{"http://127.0.0.1:" + open, "loopback"},
		{"http://169.254.169.254/latest/meta-data", "link-local or cloud metadata"},
		{"http://[::1]:" + open, "loopback or unspecified"},
		{"http://[fd00::1]", "private"},
		{"http://100.64.99.99", "carrier-grade NAT"},
	} {
		res, text := get(t, g.client(both), c.url)
		if res.StatusCode != http.StatusForbidden || res.Header.Get("X-Capsem-Rule") != "capsem:private-address" {
			t.Errorf("%s: %s %s", c.url, res.Status, text)
		}
		contains(t, text, "is a "+c.kind+" address")
	}
	if reached {
		t.Error("a host was reached")
	}
	if got := g.exchangeRaw("private.open.test:22", "SSH-2.0-x\r\n"); got != "" {
		t.Errorf("raw: %q", got)
	}
	row := g.rows.one(t, "raw", func(e ledger.NetEvent) bool { return e.Type == "tcp" })
	if row.Decision != "denied" || row.Rule != "capsem:private-address" {
		t.Errorf("%+v", row)
	}
}

func TestAConnectionThatOneRuleOpenedIsNotUsedUnderAnother(t *testing.T) {
	// Only GET may go to the loopback; the connection it leaves behind must not carry the POST.
	g := newRig(t, `
[[rule]]
id = "reads"
effect = "allow"
reason = "reads"
hosts = ["a.open.test"]
ports = ["1-65535"]
methods = ["GET"]
cidr = ["127.0.0.0/8"]
[[rule]]
id = "writes"
effect = "allow"
reason = "writes"
hosts = ["a.open.test"]
ports = ["1-65535"]
`)
	var reached []string
	handler := func(_ http.ResponseWriter, r *http.Request) { reached = append(reached, r.Method) }
	for _, h2 := range []bool{false, true} {
		reached = nil
		url, client := "https://a.open.test:"+g.upstream(h2, handler), g.client(both)
		for _, c := range []struct {
			method string
			status int
		}{{"GET", 200}, {"POST", 403}, {"GET", 200}, {"POST", 403}} {
			req, _ := http.NewRequestWithContext(t.Context(), c.method, url, nil)
			res, err := client.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			_ = res.Body.Close()
			if res.StatusCode != c.status {
				t.Errorf("h2=%v %s: %s", h2, c.method, res.Status)
			}
		}
		if fmt.Sprint(reached) != "[GET GET]" {
			t.Errorf("h2=%v: the host got %v", h2, reached)
		}
	}
}

func TestAQuestionHoldsTheRequestUntilItIsAnswered(t *testing.T) {
	g := newRig(t, ask)
	reached := make(chan string, 4)
	port := g.upstream(true, func(_ http.ResponseWriter, r *http.Request) { reached <- r.URL.Path })
	for path, answer := range map[string]string{"/yes": "once", "/no": "deny"} {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		states, err := g.board.Watch(ctx)
		if err != nil {
			t.Fatal(err)
		}
		type outcome struct {
			res *http.Response
			err error
		}
		done := make(chan outcome, 1)
		go func() {
			req, _ := http.NewRequestWithContext(ctx, http.MethodPost, "https://ask.test:"+port+path, strings.NewReader("12345"))
			res, err := g.client(both).Do(req)
			done <- outcome{res, err}
		}()
		var q approval.Question
		for st := range states {
			if len(st.Pending) > 0 {
				q = st.Pending[0]
				break
			}
		}
		if q.URL != "https://ask.test:"+port+path || q.Size != 5 || q.Process.PID != 7 || len(reached) != 0 {
			t.Errorf("%+v", q)
		}
		if _, _, err := g.board.Answer(q.ID, approval.Answer{Answer: answer, By: "test"}); err != nil {
			t.Fatal(err)
		}
		out := <-done
		if out.err != nil {
			t.Fatal(out.err)
		}
		_ = out.res.Body.Close()
		row := g.rows.one(t, path, func(e ledger.NetEvent) bool { return e.Path == path })
		if answer == "once" && (out.res.StatusCode != http.StatusOK || <-reached != path || row.Decision != "allowed") {
			t.Errorf("%s %+v", out.res.Status, row)
		}
		if row.AskID != q.ID {
			t.Errorf("the row names question %q, it was %q", row.AskID, q.ID)
		}
		if answer == "deny" && (out.res.StatusCode != http.StatusForbidden || len(reached) != 0 || row.Decision != "denied") {
			t.Errorf("%s %+v", out.res.Status, row)
		}
		cancel()
	}
}

func TestABodyOfUnknownLengthIsStoppedWhereTheRuleEnds(t *testing.T) {
	g := newRig(t, `
[[rule]]
id = "small"
effect = "allow"
reason = "small bodies"
hosts = ["a.open.test"]
ports = ["1-65535"]
max_body = 100000
cidr = ["127.0.0.0/8"]
`)
	var got atomic.Int64
	port := g.upstream(true, func(_ http.ResponseWriter, r *http.Request) {
		n, _ := io.Copy(io.Discard, r.Body)
		got.Store(n)
	})
	for _, client := range []*http.Client{g.client(), g.client(both)} {
		for size, status := range map[int]int{100_000: 200, 100_001: 403, 5_000_000: 403} {
			got.Store(0)
			req, _ := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://a.open.test:"+port, io.MultiReader(strings.NewReader(strings.Repeat("x", size))))
			res, err := client.Do(req)
			if err != nil {
				if status == 403 && size > 1_000_000 {
					continue // HTTP/1: the connection may end while there is still much to send
				}
				t.Fatal(size, err)
			}
			_ = res.Body.Close()
			if res.StatusCode != status || got.Load() > 100_000 {
				t.Errorf("%d: %s, the host got %d", size, res.Status, got.Load())
			}
		}
	}
}

func TestAnEditOfThePolicyHoldsOnOpenConnections(t *testing.T) {
	g := newRig(t, rules)
	port := g.upstream(true, func(http.ResponseWriter, *http.Request) {})
	for _, client := range []*http.Client{g.client(), g.client(both)} {
		for _, c := range []struct {
			policy string
			status int
		}{{rules, 200}, {"", 403}, {rules, 200}} {
			g.reload(c.policy)
			if res, _ := get(t, client, "https://a.open.test:"+port); res.StatusCode != c.status {
				t.Errorf("%s, not %d", res.Status, c.status)
			}
		}
	}
}

func TestOneVMCannotHaveAllConnectionsOrRequests(t *testing.T) {
	g := newRig(t, rules, func(c *Config) { c.Limits.Connections, c.Limits.Requests = 4, 2 })
	free := make(chan struct{})
	inside := make(chan struct{}, 8)
	port := g.plain(func(http.ResponseWriter, *http.Request) { inside <- struct{}{}; <-free })
	url := "http://a.open.test:" + port
	for range 2 {
		go func() { _, _ = g.client().Get(url) }()
		<-inside
	}
	res, text := get(t, g.client(), url)
	if res.StatusCode != http.StatusServiceUnavailable || res.Header.Get("Retry-After") == "" {
		t.Errorf("%s %s", res.Status, text)
	}
	idle, err := g.connect(t.Context(), "a.open.test:"+port)
	if err != nil {
		t.Fatal(err)
	}
	defer idle.Close()
	for end := time.Now().Add(patience); ; { // the third of the clients above may still be going
		c, err := g.connect(t.Context(), "a.open.test:"+port)
		if err != nil {
			t.Fatal(err)
		}
		_ = c.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
		_, err = bufio.NewReader(c).ReadByte()
		if netErr := net.Error(nil); !errors.As(err, &netErr) || !netErr.Timeout() {
			break // reset
		}
		t.Cleanup(func() { _ = c.Close() })
		if time.Now().After(end) {
			t.Fatal("there is no bound")
		}
	}
	close(free)
}
