package modeltap

import (
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
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"capsem/core/budget"
	"capsem/core/inspect/price"
	"capsem/core/ledger"
	"capsem/core/mitm"
	"capsem/core/mitm/authority"
	"capsem/core/mitm/egress"
	"capsem/core/policy"
	"capsem/core/proto"
)

// open is a policy that allows everything.
type open struct{}

var allowed = policy.Verdict{Effect: policy.Allow, RuleID: "open"}

func (open) Judge(context.Context, *policy.Request) policy.Verdict { return allowed }
func (open) Continue(context.Context, *policy.Request, policy.Verdict) policy.Verdict {
	return allowed
}
func (open) Possible(*policy.Request) policy.Verdict { return allowed }
func (open) Refusal(policy.Verdict, *policy.Request) policy.Refusal {
	return policy.Refusal{Status: 403}
}
func (open) Name(netip.Addr) (string, bool) { return anthropicHost, true }
func (open) RecordNet(ledger.NetEvent)      {}
func (o open) dial(ctx context.Context, to string) (net.Conn, error) {
	return (&net.Dialer{}).DialContext(ctx, "tcp", to)
}

// dialer connects to one upstream, whatever the name.
type dialer struct {
	open
	to    string
	roots *x509.CertPool
}

func (d dialer) Dial(ctx context.Context, _ string, _ uint16, _ egress.Permit) (net.Conn, error) {
	return d.dial(ctx, d.to)
}

func (d dialer) DialTLS(ctx context.Context, host string, _ uint16, _ egress.Permit, alpn []string) (*tls.Conn, error) {
	c, err := d.dial(ctx, d.to)
	if err != nil {
		return nil, err
	}
	t := tls.Client(c, &tls.Config{ServerName: host, RootCAs: d.roots, NextProtos: alpn, MinVersion: tls.VersionTLS12})
	if err := t.HandshakeContext(ctx); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return t, nil
}

// proxied is a guest behind the proxy itself, with a Tap among its modifiers, and a provider over HTTP/2 or HTTP/1.
func proxied(t *testing.T, h2 bool, handler http.Handler) (*http.Client, *rig) {
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
	log := slog.New(slog.DiscardHandler)
	r.tap = New(Config{Recorder: r.rows, Account: r.book.Account("dev", ""), Prices: prices, Log: log})
	ca, err := authority.LoadOrCreate(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	upstream := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if _, err := io.Copy(io.Discard, req.Body); err != nil {
			return
		}
		r.asked.Add(1)
		handler.ServeHTTP(w, req)
	}))
	upstream.TLS = &tls.Config{GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return ca.Leaf(anthropicHost) }}
	upstream.EnableHTTP2 = h2
	upstream.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	upstream.StartTLS()
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca.CertPEM())
	server, err := mitm.New(t.Context(), mitm.Config{
		VM: "dev", Policy: open{}, Names: open{}, Authority: ca, Dialer: dialer{to: upstream.Listener.Addr().String(), roots: roots}, Recorder: open{}, Log: log,
		Modifiers: []any{r.tap},
	})
	if err != nil {
		t.Fatal(err)
	}
	in, wait := listen(t, server)
	transport := &http.Transport{
		DialContext:     func(ctx context.Context, _, _ string) (net.Conn, error) { return open{}.dial(ctx, in.Addr().String()) },
		TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}, ForceAttemptHTTP2: h2,
	}
	t.Cleanup(func() {
		transport.CloseIdleConnections()
		_ = in.Close()
		upstream.CloseClientConnections()
		upstream.Close()
		server.Close()
		wait()
		if err := r.book.Close(); err != nil {
			t.Error(err)
		}
	})
	return &http.Client{Transport: transport}, r
}

// listen gives the proxy connections of a guest.
func listen(t *testing.T, server *mitm.Server) (in net.Listener, wait func()) {
	t.Helper()
	in, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
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
	return in, serving.Wait
}

func TestThroughTheProxyItself(t *testing.T) {
	for _, h2 := range []bool{false, true} {
		t.Run(fmt.Sprintf("HTTP/2 %v", h2), func(t *testing.T) {
			text := anthropicAnswer(3, "")
			client, r := proxied(t, h2, provider{contentType: "text/event-stream", body: text, encoding: "gzip", piece: 9})
			post := func(body string) (int, string) {
				t.Helper()
				req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://"+anthropicHost+"/v1/messages", strings.NewReader(body))
				if err != nil {
					t.Fatal(err)
				}
				res, err := client.Do(req)
				if err != nil {
					t.Fatal(err)
				}
				defer res.Body.Close()
				got, err := io.ReadAll(res.Body)
				if err != nil {
					t.Fatal(err)
				}
				return res.StatusCode, string(got)
			}
			if status, got := post(question); status != 200 || got != text {
				t.Fatal(status, got)
			}
			eventually(t, "a record", func() bool { return len(r.rows.all()) == 1 })
			if row := r.rows.all()[0]; row.OutputTokens != 30 || row.CostUSD != 0.00405 {
				t.Errorf("%+v", row)
			}
			long := `{"model":"claude-sonnet-4-5","messages":[{"role":"user","content":"` + strings.Repeat("x", 3<<20) + `"}],"max_tokens":10}`
			if status, got := post(long); status != 200 || got != text {
				t.Fatal("a long request:", status)
			}
			r.limit(t, budget.Session, budget.Money, 100_000_000)
			for name, body := range map[string]string{
				"short": strings.Replace(question, `"max_tokens":100`, `"max_tokens":10000`, 1),
				"long":  long,
			} {
				if status, got := post(body); status != 403 || !strings.Contains(got, "permission_error") || !strings.Contains(got, "budget") {
					t.Errorf("%s: %d %s", name, status, got)
				}
			}
			if n := r.asked.Load(); n != 2 {
				t.Errorf("%d requests reached the provider whole", n)
			}
		})
	}
}
