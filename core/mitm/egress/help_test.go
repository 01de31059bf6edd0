package egress

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"capsem/core/dns"
	"capsem/core/fault"
	"capsem/core/policy"
)

// liar answers each lookup of a name with the next of its answers, the last one for ever.
type liar struct {
	mu    sync.Mutex
	names map[string][][]string
	asked int
}

func (l *liar) Lookup(_ context.Context, name string) ([]netip.Addr, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.asked++
	answers := l.names[name]
	if len(answers) == 0 {
		return nil, dns.ErrNoName
	}
	if len(answers) > 1 {
		l.names[name] = answers[1:]
	}
	var out []netip.Addr
	for _, text := range answers[0] {
		out = append(out, netip.MustParseAddr(text))
	}
	return out, nil
}

// always resolves every name to the same addresses.
func always(name string, addrs ...string) *liar {
	return &liar{names: map[string][][]string{name: {addrs}}}
}

var errNotPermitted = errors.New("the policy refuses the address")

// byPolicy permits what a policy does that allows every request and opens some ranges.
func byPolicy(t *testing.T, host, cidrs string) Permit {
	t.Helper()
	text := "[[rule]]\nid = \"all\"\neffect = \"allow\"\nreason = \"test\"\nhosts = [\"" + host + "\"]\n"
	if cidrs != "" {
		text += "cidr = [" + cidrs + "]\n"
	}
	set, err := policy.Parse(text, policy.LayerUser)
	if err != nil {
		t.Fatal(err)
	}
	p, err := policy.Compile(set)
	if err != nil {
		t.Fatal(err)
	}
	return func(_ context.Context, addr netip.Addr) error {
		v := p.DecideDial(&policy.Request{Host: host, Port: 443, Scheme: "https", Method: "GET", Path: "/"}, addr)
		if v.Effect != policy.Allow {
			return errNotPermitted
		}
		return nil
	}
}

func anything(context.Context, netip.Addr) error { return nil }

// ca is an authority for tests, with its certificate in a file.
type ca struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	file string
}

func newCA(t *testing.T) *ca {
	t.Helper()
	c := &ca{t: t, file: filepath.Join(t.TempDir(), "ca.pem")}
	var der []byte
	der, c.key = c.sign(&x509.Certificate{
		Subject: pkix.Name{CommonName: "test authority"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	})
	var err error
	if c.cert, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	c.write(c.file, &pem.Block{Type: "CERTIFICATE", Bytes: der})
	return c
}

func (c *ca) write(name string, blocks ...*pem.Block) {
	c.t.Helper()
	var text []byte
	for _, b := range blocks {
		text = append(text, pem.EncodeToMemory(b)...)
	}
	if err := os.WriteFile(name, text, 0o600); err != nil {
		c.t.Fatal(err)
	}
}

func (c *ca) sign(template *x509.Certificate) ([]byte, *ecdsa.PrivateKey) {
	c.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		c.t.Fatal(err)
	}
	parent, signer := c.cert, c.key
	if parent == nil {
		parent, signer = template, key
	}
	template.SerialNumber = big.NewInt(time.Now().UnixNano())
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	if err != nil {
		c.t.Fatal(err)
	}
	return der, key
}

// leaf is a certificate for names and addresses; shift moves its validity of one hour around now.
func (c *ca) leaf(shift time.Duration, names ...string) tls.Certificate {
	c.t.Helper()
	template := &x509.Certificate{
		NotBefore: time.Now().Add(shift - time.Hour), NotAfter: time.Now().Add(shift + time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	for _, n := range names {
		if ip := net.ParseIP(n); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, n)
		}
	}
	der, key := c.sign(template)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// pair writes a client certificate and its key into one file.
func (c *ca) pair(cert tls.Certificate) string {
	c.t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	if err != nil {
		c.t.Fatal(err)
	}
	name := filepath.Join(c.t.TempDir(), "client.pem")
	c.write(name, &pem.Block{Type: "CERTIFICATE", Bytes: cert.Certificate[0]}, &pem.Block{Type: "PRIVATE KEY", Bytes: der})
	return name
}

// server accepts connections at a loopback address; each is greeted, after a handshake if there is a config.
type server struct {
	listener net.Listener
	port     uint16
	mu       sync.Mutex
	accepted int
}

func serveAt(t *testing.T, at string, config *tls.Config) *server {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", at)
	if err != nil {
		t.Fatalf("no listener at %s: %v", at, err)
	}
	s := &server{listener: l, port: netip.MustParseAddrPort(l.Addr().String()).Port()}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			s.mu.Lock()
			s.accepted++
			s.mu.Unlock()
			if config != nil {
				conn = tls.Server(conn, config)
			}
			wg.Go(func() {
				defer conn.Close()
				_ = conn.SetDeadline(time.Now().Add(time.Minute))
				host, _, _ := net.SplitHostPort(l.Addr().String())
				_, _ = io.WriteString(conn, "hello from "+host+"\n")
				if half, ok := conn.(interface{ CloseWrite() error }); ok {
					_ = half.CloseWrite()
				}
				_, _ = io.Copy(io.Discard, conn)
			})
		}
	})
	t.Cleanup(func() { _ = l.Close(); wg.Wait() })
	return s
}

func (s *server) count() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.accepted
}

func newDialer(t *testing.T, c Config) *Dialer {
	t.Helper()
	d, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func readAll(t *testing.T, conn net.Conn) string {
	t.Helper()
	_ = conn.SetDeadline(time.Now().Add(time.Minute))
	text, err := io.ReadAll(conn)
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.Close()
	return string(text)
}

func line(err error) string { return fault.Line(err) }

// connectProxy is a real HTTP proxy for CONNECT that wants auth if it is not empty, and knows where names are.
func connectProxy(t *testing.T, config *tls.Config, auth string, names map[string]string) (addr string, asked func() []string) {
	t.Helper()
	var mu sync.Mutex
	var targets []string
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if config != nil {
		l = tls.NewListener(l, config)
	}
	var wg sync.WaitGroup
	srv := &http.Server{ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		targets = append(targets, r.Method+" "+r.Host)
		mu.Unlock()
		to, known := names[r.Host]
		switch {
		case auth != "" && r.Header.Get("Proxy-Authorization") != auth:
			w.WriteHeader(http.StatusProxyAuthRequired)
			return
		case !known:
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		up, err := (&net.Dialer{}).DialContext(r.Context(), "tcp", to)
		if err != nil {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		down, buffered, err := http.NewResponseController(w).Hijack()
		if err != nil {
			_ = up.Close()
			return
		}
		// What the server says first goes out in one piece with the answer, as it may.
		first := make([]byte, 64)
		n := 0
		if config == nil {
			_ = up.SetReadDeadline(time.Now().Add(50 * time.Millisecond)) // a server of TLS waits for the client
			n, _ = up.Read(first)
			_ = up.SetReadDeadline(time.Time{})
		}
		_, _ = down.Write(append([]byte("HTTP/1.1 200 Connection established\r\nVia: 1.1 test\r\n\r\n"), first[:n]...))
		wg.Go(func() { _, _ = io.Copy(up, buffered); _ = up.Close() })
		wg.Go(func() { _, _ = io.Copy(down, up); _ = down.Close() })
	})}
	wg.Go(func() { _ = srv.Serve(l) })
	t.Cleanup(func() { _ = srv.Close(); wg.Wait() })
	return l.Addr().String(), func() []string {
		mu.Lock()
		defer mu.Unlock()
		return append([]string(nil), targets...)
	}
}
