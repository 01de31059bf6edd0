package aggregator

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	sdk "github.com/modelcontextprotocol/go-sdk/mcp"

	"capsem/core/mcp/lines"
)

const (
	// maxMessage bounds one message of a server, serverDepth the nesting of its JSON.
	maxMessage, serverDepth = 12 << 20, 100
)

// numbers are those of programs.
var numbers atomic.Uint64

// transport connects to the server. hangUp ends what was begun; it may be called twice.
func (s *session) transport(ctx context.Context) (t sdk.Transport, hangUp func(), err error) {
	if s.server.URL == "" {
		return s.program(ctx)
	}
	client, err := s.httpClient()
	if err != nil {
		return nil, nil, err
	}
	hangUp = client.CloseIdleConnections
	if s.server.SSE {
		return &sdk.SSEClientTransport{Endpoint: s.server.URL, HTTPClient: client}, hangUp, nil
	}
	return &sdk.StreamableClientTransport{Endpoint: s.server.URL, HTTPClient: client, MaxEventSize: maxMessage}, hangUp, nil
}

// program has the worker start the server's program.
func (s *session) program(ctx context.Context) (sdk.Transport, func(), error) {
	target := Target{Server: s.server.Name, Number: numbers.Add(1)}
	if err := s.a.ask(ctx, Open, target, nil); err != nil {
		return nil, nil, err
	}
	e, err := s.a.pipes.take(ctx, target.Number)
	if err != nil {
		return nil, nil, fmt.Errorf("its pipes have not come: %w", err)
	}
	var once sync.Once
	hangUp := func() {
		once.Do(func() {
			e.close()
			s.a.tell(Close, target)
		})
	}
	return &lines.Transport{In: e.from, Out: e.to, MaxLine: maxMessage, MaxDepth: serverDepth}, hangUp, nil
}

// httpClient speaks to the server and nobody else: redirects to other hosts are refused, since headers with secrets would follow them.
func (s *session) httpClient() (*http.Client, error) {
	t := &http.Transport{
		DialContext: s.dial, TLSClientConfig: &tls.Config{RootCAs: s.a.cfg.Roots, MinVersion: tls.VersionTLS12},
		TLSHandshakeTimeout: 10 * time.Second, MaxResponseHeaderBytes: 256 << 10, IdleConnTimeout: time.Minute,
		ForceAttemptHTTP2: true, MaxConnsPerHost: 4 + s.server.Limits.Concurrency,
	}
	if s.server.Proxy != "" {
		proxy, err := url.Parse(s.server.Proxy)
		if err != nil {
			return nil, errors.New("the proxy in the settings is no URL")
		}
		t.Proxy = http.ProxyURL(proxy)
	}
	return &http.Client{
		Transport: &dressed{next: t, s: s},
		CheckRedirect: func(req *http.Request, via []*http.Request) error {
			if len(via) > 5 || req.URL.Host != via[0].URL.Host || req.URL.Scheme != via[0].URL.Scheme {
				return errors.New("the server redirects to somewhere else")
			}
			return nil
		},
	}, nil
}

// dial connects to a name, at the addresses that the worker gives.
func (s *session) dial(ctx context.Context, network, address string) (net.Conn, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, fmt.Errorf("dial %s: %w", address, err)
	}
	var found Name
	if err := s.a.ask(ctx, Resolve, Name{Server: s.server.Name, Host: host}, &found); err != nil {
		return nil, err
	}
	dialer := net.Dialer{Timeout: 10 * time.Second}
	dialer.SetMultipathTCP(false)
	failed := fmt.Errorf("%s has no address", host)
	for _, addr := range found.Addrs {
		if _, err := netip.ParseAddr(addr); err != nil {
			continue
		}
		conn, err := dialer.DialContext(ctx, network, net.JoinHostPort(addr, port))
		if err == nil {
			return conn, nil
		}
		failed = err
	}
	return nil, failed
}

// bounded is a body that ends with an error when it is too long.
type bounded struct {
	io.ReadCloser

	left int
}

// Read reads on.
func (b *bounded) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, errors.New("an answer longer than allowed")
	}
	n, err := b.ReadCloser.Read(p[:min(len(p), b.left)])
	b.left -= n
	return n, err //nolint:wrapcheck // a reader hands errors through
}
