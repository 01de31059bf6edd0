package dns

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/netip"
	"time"

	"github.com/miekg/dns"
)

const dohType = "application/dns-message"

// doh is a server asked over HTTPS (RFC 8484).
type doh struct {
	url    string
	client *http.Client
}

// newClient makes the HTTP client of DoH. It follows no redirects: the owner named one server.
func newClient(via http.RoundTripper) *http.Client {
	if via == nil {
		via = &http.Transport{ForceAttemptHTTP2: true, MaxConnsPerHost: 4, IdleConnTimeout: time.Minute, TLSHandshakeTimeout: 5 * time.Second}
	}
	return &http.Client{Transport: via, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

func (d doh) exchange(ctx context.Context, question dns.Question, edns bool) (*dns.Msg, error) {
	wire, err := newQuestion(question, 0, edns)
	if err != nil {
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, d.url, bytes.NewReader(wire))
	if err != nil {
		return nil, fmt.Errorf("make DoH request: %w", err)
	}
	req.Header.Set("Content-Type", dohType)
	req.Header.Set("Accept", dohType)
	res, err := d.client.Do(req)
	if err != nil {
		return nil, fmt.Errorf("ask DoH server: %w", err)
	}
	defer res.Body.Close()
	kind, _, _ := mime.ParseMediaType(res.Header.Get("Content-Type"))
	if res.StatusCode != http.StatusOK || kind != dohType {
		return nil, fmt.Errorf("ask DoH server: status %d, %q", res.StatusCode, kind)
	}
	body, err := io.ReadAll(io.LimitReader(res.Body, dns.MaxMsgSize+1))
	if err != nil {
		return nil, fmt.Errorf("read DoH answer: %w", err)
	}
	if len(body) > dns.MaxMsgSize {
		return nil, fmt.Errorf("read DoH answer: %w", errNotAnswer)
	}
	return readAnswer(body, 0, question)
}

// serverAddress completes an address by the port 53.
func serverAddress(server string) (string, error) {
	if addr, err := netip.ParseAddr(server); err == nil {
		return net.JoinHostPort(addr.String(), "53"), nil
	}
	addr, err := netip.ParseAddrPort(server)
	if err != nil || addr.Port() == 0 {
		return "", fmt.Errorf("nameserver %q: not an address, address:port or https URL", server)
	}
	return addr.String(), nil
}
