package authority

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/martian/v3/mitm"

	"capsem/core/fault"
)

func newTest(t testing.TB) *Authority {
	t.Helper()
	a, err := LoadOrCreate(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func (a *Authority) pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	return pool
}

func TestClientsAcceptLeavesForTheirNames(t *testing.T) {
	t.Parallel()
	a := newTest(t)
	long := strings.Repeat("a", 63) + "." + strings.Repeat("b", 63) + ".test"
	for name, want := range map[string]string{
		"example.com": "example.com", "EXAMPLE.com.": "example.com", "*.x": "", "a_b.example.com": "a_b.example.com", long: long,
		"127.0.0.1": "127.0.0.1", "::1": "::1", "[::1]": "::1", "::ffff:10.0.0.1": "10.0.0.1", "bücher.example": "xn--bcher-kva.example",
		"": "", "a b": "", "x\x00y.test": "", "1.2": "", "fe80::1%eth0": "", "a..b": "", strings.Repeat("a.", 200): "", "example.com:443": "",
	} {
		leaf, err := a.Leaf(name)
		if want == "" {
			if !fault.Is(err, fault.Invalid) {
				t.Errorf("%q: %v", name, err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%q: %v", name, err)
			continue
		}
		for _, drift := range []time.Duration{0, -29 * 24 * time.Hour, 300 * 24 * time.Hour} {
			_, err := leaf.Leaf.Verify(x509.VerifyOptions{DNSName: want, Roots: a.pool(), CurrentTime: time.Now().Add(drift)})
			if err != nil {
				t.Errorf("%q at %v: %v", name, drift, err)
			}
		}
		if life := leaf.Leaf.NotAfter.Sub(leaf.Leaf.NotBefore); life > 397*24*time.Hour || leaf.Leaf.NotBefore.Before(a.cert.NotBefore) {
			t.Errorf("%q lives %v from %v", name, life, leaf.Leaf.NotBefore)
		}
		if len(leaf.Leaf.Subject.CommonName) > maxCommonName || len(leaf.Leaf.AuthorityKeyId) == 0 || leaf.Leaf.SerialNumber.Sign() <= 0 {
			t.Errorf("%q: %+v", name, leaf.Leaf.Subject)
		}
	}
}

func TestALeafServesARealHandshake(t *testing.T) {
	t.Parallel()
	a := newTest(t)
	for _, name := range []string{"example.com", "127.0.0.1"} {
		server, client := net.Pipe()
		var wg sync.WaitGroup
		wg.Go(func() {
			defer server.Close()
			leaf, err := a.Leaf(name)
			if err != nil {
				t.Error(err)
				return
			}
			if err := tls.Server(server, &tls.Config{Certificates: []tls.Certificate{*leaf}, MinVersion: tls.VersionTLS12}).HandshakeContext(t.Context()); err != nil {
				t.Error(err)
			}
		})
		if err := tls.Client(client, &tls.Config{RootCAs: a.pool(), ServerName: name, MinVersion: tls.VersionTLS12}).HandshakeContext(t.Context()); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		_ = client.Close()
		wg.Wait()
	}
}

func TestALeafIsMadeOnceHoweverManyWantIt(t *testing.T) {
	t.Parallel()
	a := newTest(t)
	got := make([]*tls.Certificate, 32)
	var wg sync.WaitGroup
	for i := range got {
		wg.Go(func() {
			var err error
			if got[i], err = a.Leaf([]string{"one.test", "ONE.test."}[i%2]); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for _, leaf := range got {
		if leaf == nil || leaf != got[0] {
			t.Fatal("it was made more than once")
		}
	}
}

func TestOldLeavesAreMadeAnewAndFewAreKept(t *testing.T) {
	t.Parallel()
	a := newTest(t)
	now := time.Now()
	a.now = func() time.Time { return now }
	leaf := func(name string) *tls.Certificate {
		t.Helper()
		l, err := a.Leaf(name)
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	first := leaf("old.test")
	if now = now.Add(leafFresh + 1); leaf("old.test") == first {
		t.Error("an old leaf is handed out")
	}
	second := leaf("old.test")
	if now = now.Add(-2 * leafFresh); leaf("old.test") == second {
		t.Error("a leaf from the future is handed out")
	}
	used := leaf("used.test")
	for i := range maxLeaves + 50 {
		leaf(fmt.Sprintf("n%d.test", i))
		if leaf("used.test") != used {
			t.Fatal("a leaf that is in use was dropped")
		}
	}
	if n, m := a.leaves.order.Len(), len(a.leaves.byName); n != maxLeaves || m != maxLeaves {
		t.Errorf("%d and %d are kept", n, m)
	}
}

// The CA ends its leaves: none is valid longer than it.
func TestLeavesEndWithTheCA(t *testing.T) {
	t.Parallel()
	a := newTest(t)
	a.now = func() time.Time { return a.cert.NotAfter.Add(-time.Hour) }
	leaf, err := a.Leaf("late.test")
	if err != nil || leaf.Leaf.NotAfter.After(a.cert.NotAfter) {
		t.Errorf("%v", err)
	}
}

func FuzzLeaf(f *testing.F) {
	for _, name := range []string{"a.test", "127.0.0.1", "::1", "xn--a.test", "é.test", "a\x00.test", "*.test", "-a.test", "a_.test", "0x7f.1"} {
		f.Add(name)
	}
	a := newTest(f)
	f.Fuzz(func(t *testing.T, name string) {
		leaf, err := a.Leaf(name)
		if err != nil {
			return
		}
		host, _, err := normal(name)
		if err != nil {
			t.Fatalf("%q has a leaf and is no name: %v", name, err)
		}
		if _, err := leaf.Leaf.Verify(x509.VerifyOptions{DNSName: host, Roots: a.pool()}); err != nil {
			t.Errorf("%q: %v", name, err)
		}
		if n := len(leaf.Leaf.DNSNames) + len(leaf.Leaf.IPAddresses); n != 1 {
			t.Errorf("%q: %d names", name, n)
		}
	})
}

func BenchmarkLeaf(b *testing.B) {
	a := newTest(b)
	b.Run("new", func(b *testing.B) {
		b.ReportAllocs()
		n := 0
		for b.Loop() {
			n++
			if _, err := a.Leaf(fmt.Sprintf("n%d.example.com", n)); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("kept", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := a.Leaf("kept.example.com"); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkHandshake is a whole handshake, both sides, with a leaf of ours and with one of martian's.
func BenchmarkHandshake(b *testing.B) {
	a := newTest(b)
	martian, err := mitm.NewConfig(a.cert, a.key)
	if err != nil {
		b.Fatal(err)
	}
	ours := &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: func(h *tls.ClientHelloInfo) (*tls.Certificate, error) { return a.Leaf(h.ServerName) }}
	for name, config := range map[string]*tls.Config{"ours": ours, "martian": martian.TLS()} {
		b.Run(name, func(b *testing.B) {
			config.SessionTicketsDisabled = true
			for b.Loop() {
				server, client := net.Pipe()
				done := make(chan error, 1)
				go func() {
					secure := tls.Server(server, config)
					done <- secure.HandshakeContext(b.Context())
				}()
				secure := tls.Client(client, &tls.Config{RootCAs: a.pool(), ServerName: "example.com", MinVersion: tls.VersionTLS12})
				if err := secure.HandshakeContext(b.Context()); err != nil {
					b.Fatal(err)
				}
				if err := <-done; err != nil {
					b.Fatal(err)
				}
				_, _ = client.Close(), server.Close()
			}
		})
	}
}
