package mitm

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"capsem/core/approval"
	"capsem/core/ledger"
)

// rawRules open raw TCP to a.open.test on a port, besides what is open for HTTP.
func rawRules(port string) string {
	return rules + fmt.Sprintf("[[rule]]\nid = \"raw\"\neffect = \"allow\"\nreason = \"raw\"\nhosts = [\"a.open.test\", \"raw.test\"]\n"+
		"ports = [%q]\nschemes = [\"tcp\"]\ncidr = [\"127.0.0.0/8\"]\n", port)
}

// host accepts connections on the loopback.
func host(t *testing.T, serve func(c *net.TCPConn)) (port string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() { defer c.Close(); serve(c.(*net.TCPConn)) }()
		}
	}()
	_, port, _ = net.SplitHostPort(l.Addr().String())
	return port
}

func TestRawTCPPassesWhereARuleOpensIt(t *testing.T) {
	speaksFirst := host(t, func(c *net.TCPConn) {
		_, _ = io.WriteString(c, "220 ready\r\n")
		rest, _ := io.ReadAll(c) // until the guest's end of file
		fmt.Fprintf(c, "got %s", rest)
	})
	g := newRig(t, rawRules(speaksFirst))
	c, err := g.connect(t.Context(), "a.open.test:"+speaksFirst)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(patience))
	r := bufio.NewReader(c)
	if line, err := r.ReadString('\n'); line != "220 ready\r\n" {
		t.Fatalf("%q %v", line, err)
	}
	_, _ = io.WriteString(c, "HELO x\r\n")
	_ = c.(*net.TCPConn).CloseWrite()
	if rest, err := io.ReadAll(r); string(rest) != "got HELO x\r\n" || err != nil {
		t.Errorf("%q %v", rest, err)
	}
	row := g.rows.one(t, "raw", func(e ledger.NetEvent) bool { return e.Type == "tcp" })
	if row.Decision != "allowed" || row.Sent != 8 || row.Received != 23 || row.Rule != "raw" || row.Remote != "127.0.0.1:"+speaksFirst {
		t.Errorf("%+v", row)
	}
}

func TestRawTCPIsRefusedElsewhere(t *testing.T) {
	reached := make(chan string, 1)
	port := host(t, func(c *net.TCPConn) { reached <- "reached"; _, _ = io.Copy(io.Discard, c) })
	g := newRig(t, rawRules("22"), func(c *Config) { c.Limits.FirstBytes = 200 * time.Millisecond })
	for name, text := range map[string]string{
		"open for HTTP only": "RFB 003.008\n", "not text": "\x00\x01\x02", "a line that is no request": "HELO x\r\n",
		"TLS of an old kind": "\x16\x02\x00", "an unknown method, no HTTP": "FOO bar\r\n",
	} {
		c, err := g.connect(t.Context(), "b.open.test:"+port)
		if err != nil {
			t.Fatal(err)
		}
		_ = c.SetDeadline(time.Now().Add(patience))
		_, _ = io.WriteString(c, text)
		got, err := io.ReadAll(c)
		if ssh := strings.HasPrefix(text, "SSH-"); ssh != (len(got) > 0) || ssh != (err == nil) { // only that is told why
			t.Errorf("%s: %q %v", name, got, err)
		}
		_ = c.Close()
	}
	row := g.rows.one(t, "raw", func(e ledger.NetEvent) bool { return e.Type == "tcp" })
	if row.Decision != "denied" || row.Domain != "b.open.test" || len(reached) > 0 {
		t.Errorf("%+v", row)
	}
	// A client of a refused host that waits for it to speak ends as well, and is recorded.
	c, err := g.connect(t.Context(), "shut.test:22")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(patience))
	if got, err := io.ReadAll(c); len(got) > 0 || err != nil && strings.Contains(err.Error(), "timeout") {
		t.Errorf("%q %v", got, err)
	}
	if row = g.rows.one(t, "silent", func(e ledger.NetEvent) bool { return e.Domain == "shut.test" }); row.Decision != "denied" {
		t.Errorf("%+v", row)
	}
}

func TestTLSAndHTTPAreLookedIntoThoughRawTCPIsOpen(t *testing.T) {
	g := newRig(t, rules)
	port := g.upstream(true, func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.Host) })
	g.reload(rawRules(port))
	if res, text := get(t, g.client(both), "https://a.open.test:"+port+"/seen"); res.StatusCode != http.StatusOK || text != "a.open.test:"+port {
		t.Errorf("%s %q", res.Status, text)
	}
	if row := g.rows.one(t, "https", func(e ledger.NetEvent) bool { return e.Path == "/seen" }); row.Type != "h2" {
		t.Errorf("%+v", row)
	}
}

func TestARawConnectionEndsWhenItsRuleGoes(t *testing.T) {
	port := host(t, func(c *net.TCPConn) { _, _ = io.Copy(c, c) })
	g := newRig(t, rawRules(port))
	c, err := g.connect(t.Context(), "a.open.test:"+port)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(patience))
	_, _ = io.WriteString(c, "\x01echo")
	if _, err := io.ReadFull(c, make([]byte, 5)); err != nil {
		t.Fatal(err)
	}
	g.reload(rules)
	if n, err := c.Read(make([]byte, 1)); n > 0 || err == nil || strings.Contains(err.Error(), "timeout") {
		t.Errorf("%d %v", n, err)
	}
	row := g.rows.one(t, "cut", func(e ledger.NetEvent) bool { return e.Type == "tcp" })
	if row.Decision != "denied" || !strings.Contains(row.Error, "no longer") || row.Sent != 5 || row.Received != 5 {
		t.Errorf("%+v", row)
	}
}

func TestAQuestionHoldsARawConnection(t *testing.T) {
	port := host(t, func(c *net.TCPConn) { _, _ = io.WriteString(c, "hello") })
	g := newRig(t, strings.ReplaceAll(rawRules(port), "id = \"raw\"\neffect = \"allow\"", "id = \"raw\"\neffect = \"ask\""))
	states, err := g.board.Watch(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	c, err := g.connect(t.Context(), "raw.test:"+port)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for st := range states {
		if len(st.Pending) > 0 {
			if q := st.Pending[0]; q.URL != "tcp://raw.test:"+port {
				t.Errorf("%+v", q)
			}
			if _, _, err := g.board.Answer(st.Pending[0].ID, approval.Answer{Answer: "deny", By: "test"}); err != nil {
				t.Fatal(err)
			}
			break
		}
	}
	_ = c.SetDeadline(time.Now().Add(patience))
	if text, err := io.ReadAll(c); len(text) > 0 || err == nil {
		t.Errorf("%q %v", text, err)
	}
}

func TestABypassedHostHasItsOwnCertificate(t *testing.T) {
	g := newRig(t, rules, func(c *Config) { c.Bypass = []string{"a.open.test", "*.shut.test"} })
	port := g.upstream(true, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "pinned") })
	g.roots.AppendCertsFromPEM(g.hosts.CertPEM())
	res, text := get(t, g.client(both), "https://a.open.test:"+port)
	if text != "pinned" || !bytes.Contains(g.hosts.CertPEM(), []byte("CERTIFICATE")) || !issuedBy(res.TLS, g) {
		t.Errorf("%q, issued by %v", text, res.TLS.PeerCertificates[0].Issuer)
	}
	// Where the policy has to see requests, they are looked into; and what is refused is readable.
	g.reload(strings.Replace(rules, "hosts =", "methods = [\"GET\"]\nhosts =", 1))
	res, text = get(t, g.client(both), "https://a.open.test:"+port)
	if text != "pinned" || issuedBy(res.TLS, g) {
		t.Errorf("%q, issued by %v", text, res.TLS.PeerCertificates[0].Issuer)
	}
	if res, _ = get(t, g.client(both), "https://x.shut.test"); res.StatusCode != http.StatusForbidden {
		t.Error(res.Status)
	}
	g.s.Close() // ends the tunnel
	row := g.rows.one(t, "tunnel", func(e ledger.NetEvent) bool { return e.Type == "tunnel" })
	if row.Rule != "open" || row.Sent == 0 || row.Received == 0 || row.Domain != "a.open.test" {
		t.Errorf("%+v", row)
	}
}

// issuedBy reports whether a certificate is the host's own, not the proxy's.
func issuedBy(state *tls.ConnectionState, g *rig) bool {
	return state.PeerCertificates[len(state.PeerCertificates)-1].Equal(mustParse(g))
}

func mustParse(g *rig) *x509.Certificate {
	g.t.Helper()
	block, _ := pem.Decode(g.hosts.CertPEM())
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		g.t.Fatal(err)
	}
	return cert
}

func FuzzClassify(f *testing.F) {
	for _, text := range []string{"", "\x16\x03\x01", preface, "GET / HTTP/1.1\r\n", "FOO /x HTTP/1.0\n", "SSH-2.0-x\r\n", "PRI * HTTP/1.1\r\n", "0 0 HTTP/1.\n"} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		whole := classify(b)
		for n := range b[:min(len(b), 64)] { // what is clear from a beginning stays so
			if p := classify(b[:n]); p != speaksUnknown && p != whole {
				t.Errorf("%q: %d, but %d after %d bytes", b, whole, p, n)
			}
		}
		if whole == speaksUnknown && len(b) > maxLine {
			t.Errorf("still unclear after %d bytes", len(b))
		}
	})
}
