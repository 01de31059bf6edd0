// Package fetch makes HTTP requests for the built-in tools by the way that the VM's own connections take: through the same proxy, and so
// under the same policy, with the same guard of private addresses, and into the same record.
package fetch

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"time"

	"github.com/miekg/dns"

	"capsem/core/fault"
	"capsem/core/mcp/builtin"
	"capsem/core/proto"
)

const (
	// maxTime bounds a request, maxHeader the head of its answer, maxBody what of its body is given.
	maxTime, maxHeader, maxBody = 60 * time.Second, 64 << 10, 8 << 20
)

// Network is the VM's way out.
type Network interface {
	// ServeDNS answers the lookups on a stream, as frames of proto.DNSQuery and proto.DNSReply, and closes it.
	ServeDNS(ctx context.Context, rw io.ReadWriteCloser) error
	// ServeConn serves one connection as if the guest had opened it, to its end.
	ServeConn(ctx context.Context, conn net.Conn, open proto.NetworkOpen)
}

// Fetcher makes requests. Make it with New.
type Fetcher struct {
	network Network
	client  *http.Client
}

// New returns a Fetcher that trusts the proxy's certificates.
func New(network Network, roots *x509.CertPool) *Fetcher {
	f := &Fetcher{network: network}
	f.client = &http.Client{
		Transport: &http.Transport{
			DialContext: f.dial, TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}, DisableKeepAlives: true,
			MaxResponseHeaderBytes: maxHeader, TLSHandshakeTimeout: 10 * time.Second, ForceAttemptHTTP2: true,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return f
}

// Fetch makes one request.
func (f *Fetcher) Fetch(ctx context.Context, req *builtin.FetchRequest) (*builtin.FetchResponse, error) {
	u, err := url.Parse(req.URL)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil {
		return nil, fault.New(fault.Invalid, "that is no http or https URL")
	}
	if req.Method != http.MethodGet && req.Method != http.MethodHead {
		return nil, fault.New(fault.Invalid, "method is %.20q, not GET or HEAD", req.Method)
	}
	ctx, cancel := context.WithTimeout(ctx, maxTime)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, req.Method, u.String(), nil)
	if err != nil {
		return nil, fault.Wrap(err, fault.Invalid, "that is no URL to make a request of")
	}
	r.Header.Set("User-Agent", "capsem")
	r.Header.Set("Accept", "text/html,text/markdown,text/plain,application/json;q=0.9,*/*;q=0.5")
	resp, err := f.client.Do(r)
	if err != nil {
		return nil, explain(err, u)
	}
	defer resp.Body.Close()
	out := &builtin.FetchResponse{Status: resp.StatusCode, Header: resp.Header}
	most := min(max(req.MaxBody, 0), maxBody)
	if out.Body, err = io.ReadAll(io.LimitReader(resp.Body, int64(most)+1)); err != nil && len(out.Body) <= most {
		return nil, explain(err, u)
	}
	if len(out.Body) > most {
		out.Body, out.Cut = out.Body[:most], true
	}
	if rule := resp.Header.Get("X-Capsem-Rule"); rule != "" && resp.StatusCode == http.StatusForbidden {
		return nil, fault.New(fault.Forbidden, "refused by the owner's policy, rule %.100s: %.1000s", rule, out.Body)
	}
	return out, nil
}

// errNoName is a name that the VM's network does not resolve.
var errNoName = errors.New("no such name, or one that the owner's policy refuses")

func explain(err error, u *url.URL) error {
	switch {
	case errors.Is(err, errNoName):
		return fault.Wrap(err, fault.Forbidden, "%.200s: %s", u.Hostname(), errNoName)
	case errors.Is(err, context.DeadlineExceeded):
		return fault.Wrap(err, fault.Timeout, "%.200s has not answered within %s", u.Hostname(), maxTime)
	}
	return fault.Wrap(err, fault.Unavailable, "the request to %.200s failed", u.Hostname())
}

// claim is who the requests are from.
func claim() proto.ProcessClaim { return proto.ProcessClaim{Name: builtin.ProcessName} }

// dial opens a connection to a name, as a process in the guest does: it asks for its address, and connects to that.
func (f *Fetcher) dial(ctx context.Context, _, address string) (net.Conn, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, fmt.Errorf("dial: %w", err)
	}
	addr, err := netip.ParseAddr(host)
	if err != nil {
		if addr, err = f.lookup(ctx, host); err != nil {
			return nil, err
		}
	}
	ours, theirs := net.Pipe()
	open := proto.NetworkOpen{Dest: net.JoinHostPort(addr.String(), port), Process: claim()}
	if err := open.Validate(); err != nil {
		return nil, errors.Join(err, ours.Close(), theirs.Close())
	}
	go f.network.ServeConn(context.WithoutCancel(ctx), theirs, open) // it ends with the connection, which the transport closes
	return ours, nil
}

// lookup is the address that the VM gets for a name.
func (f *Fetcher) lookup(ctx context.Context, host string) (netip.Addr, error) {
	question := new(dns.Msg)
	question.SetQuestion(dns.Fqdn(host), dns.TypeA)
	message, err := question.Pack()
	if err != nil {
		return netip.Addr{}, errNoName
	}
	ours, theirs := net.Pipe()
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = f.network.ServeDNS(ctx, theirs) // the reply says what went wrong
	}()
	defer func() { _ = ours.Close(); <-served }()
	stop := context.AfterFunc(ctx, func() { _ = ours.Close() })
	defer stop()
	var reply proto.DNSReply
	err = proto.WriteFrame(ours, proto.DNSQuery{ID: 1, TCP: true, Process: claim(), Message: message})
	if err == nil {
		err = proto.ReadFrame(ours, proto.MaxFrame, &reply)
	}
	if err != nil {
		return netip.Addr{}, fmt.Errorf("look up %s: %w", host, err)
	}
	answer := new(dns.Msg)
	if err := answer.Unpack(reply.Message); err != nil {
		return netip.Addr{}, errNoName
	}
	for _, rr := range answer.Answer {
		if a, ok := rr.(*dns.A); ok {
			if addr, ok := netip.AddrFromSlice(a.A.To4()); ok {
				return addr, nil
			}
		}
	}
	return netip.Addr{}, errNoName
}
