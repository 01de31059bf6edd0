package main

import (
	"crypto/tls"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"capsem/core/mitm/authority"
)

// TestMitmproxyIsMeasured shows that the comparison works; .ci/deps test installs mitmproxy.
func TestMitmproxyIsMeasured(t *testing.T) {
	ca, err := authority.LoadOrCreate(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := ca.Leaf("127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	roots := filepath.Join(t.TempDir(), "roots.pem")
	if err := os.WriteFile(roots, ca.CertPEM(), 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{*leaf}, MinVersion: tls.VersionTLS12})
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(strings.Repeat("x", 200))) })}
	go func() { _ = srv.Serve(l) }()
	defer srv.Close()
	b := &bench{tmp: t.TempDir()}
	rates, err := b.mitmproxyRates(t.Context(), l.Addr().String(), roots, 50)
	if err != nil || len(rates) != rounds || rates[0] <= 0 {
		t.Fatalf("%v, %v", rates, err)
	}
	t.Logf("mitmproxy: %.0f requests/s", median(rates))
}
