// Package login signs in to MCP servers behind a URL on behalf of the owner: OAuth 2.1 with PKCE, as MCP has it. The owner agrees in a
// browser, which comes back to a listener on the loopback. What the server and its authorization server say is not believed further than
// that: it is they who may be hostile.
package login

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/modelcontextprotocol/go-sdk/auth"
	"github.com/modelcontextprotocol/go-sdk/oauthex"
	"golang.org/x/oauth2"

	"capsem/core/buildinfo"
	"capsem/core/fault"
)

const (
	// waitTime is how long the owner may take, stepTime each request of ours.
	waitTime, stepTime = 10 * time.Minute, 30 * time.Second
	// maxHeader bounds the head of an answer.
	maxHeader = 64 << 10
)

// Config is a sign-in.
type Config struct {
	// URL is the MCP server's.
	URL string
	// ClientID and ClientSecret are those of a client that the owner has registered; without one capsem registers itself.
	ClientID, ClientSecret string
	// Port is that of the loopback to come back to; 0 is any.
	Port uint16
	// Show shows the owner where to agree. It does not wait for that.
	Show func(ctx context.Context, address string) error
	// Transport makes requests; nil is the usual one.
	Transport http.RoundTripper
}

// Grant is what a sign-in has got.
type Grant struct {
	// Access is the token for requests, until Expires if that is known. Refresh, if there is one, gets the next at TokenURL.
	Access, Refresh string
	Expires         time.Time
	TokenURL        string
	// ClientID and ClientSecret are who signed in; Basic says that they go into a header at TokenURL.
	ClientID, ClientSecret string
	Basic                  bool
	// Resource is what the tokens are for, as the server calls itself.
	Resource string
}

// Do signs in.
func Do(ctx context.Context, cfg *Config) (*Grant, error) {
	server, err := url.Parse(cfg.URL)
	if err != nil || server.Host == "" || server.User != nil || server.Scheme != "https" && (server.Scheme != "http" || !loopback(server.Hostname())) {
		return nil, fault.New(fault.Invalid, "one signs in to servers whose url is https")
	}
	ctx, cancel := context.WithTimeout(ctx, waitTime)
	defer cancel()
	back, err := newReturn(ctx, cfg.Port)
	if err != nil {
		return nil, err
	}
	defer back.close()
	g, client := &Grant{}, client(server, cfg.Transport)
	handler, err := auth.NewAuthorizationCodeHandler(cfg.handler(g, back, client))
	if err != nil {
		return nil, fault.Wrap(err, fault.Invalid, "this sign-in cannot be: %s", fault.Line(err))
	}
	req, resp, err := knock(ctx, client, cfg.URL)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if err := handler.Authorize(ctx, req, resp); err != nil {
		return nil, explain(ctx, err)
	}
	if g.Access == "" {
		return nil, fault.New(fault.Unavailable, "the authorization server has given no token")
	}
	return g, nil
}

// handler is the SDK's part of it: it finds out who authorizes, registers, and exchanges the code.
func (cfg *Config) handler(g *Grant, back *comeBack, client *http.Client) *auth.AuthorizationCodeHandlerConfig {
	h := &auth.AuthorizationCodeHandlerConfig{
		RedirectURL: back.address(), RequestRefreshToken: true, AcceptUnadvertisedIss: true, Client: client,
		AuthorizationCodeFetcher: func(ctx context.Context, args *auth.AuthorizationArgs) (*auth.AuthorizationResult, error) {
			at, err := url.Parse(args.URL)
			if err != nil || at.Query().Get("state") == "" || at.Query().Get("code_challenge_method") != "S256" || !allowed(at, loopback(hostOf(cfg.URL))) {
				return nil, fault.New(fault.Unavailable, "the authorization server has no place to agree")
			}
			g.Resource = at.Query().Get("resource")
			back.expect(at.Query().Get("state"))
			if err := cfg.Show(ctx, args.URL); err != nil {
				return nil, err
			}
			return back.wait(ctx)
		},
		NewTokenSource: func(_ context.Context, c *oauth2.Config, t *oauth2.Token) (oauth2.TokenSource, error) {
			if !strings.EqualFold(t.Type(), "bearer") {
				return nil, fault.New(fault.Unavailable, "the authorization server gives tokens of type %.40q, which MCP does not have", t.Type())
			}
			g.Access, g.Refresh, g.Expires, g.TokenURL = t.AccessToken, t.RefreshToken, t.Expiry, c.Endpoint.TokenURL
			g.ClientID, g.ClientSecret, g.Basic = c.ClientID, c.ClientSecret, c.Endpoint.AuthStyle == oauth2.AuthStyleInHeader && c.ClientSecret != ""
			return oauth2.StaticTokenSource(t), nil
		},
	}
	if cfg.ClientID != "" {
		h.PreregisteredClient = &oauthex.ClientCredentials{ClientID: cfg.ClientID}
		if cfg.ClientSecret != "" {
			h.PreregisteredClient.ClientSecretAuth = &oauthex.ClientSecretAuth{ClientSecret: cfg.ClientSecret}
		}
		return h
	}
	h.DynamicClientRegistrationConfig = &auth.DynamicClientRegistrationConfig{Metadata: &oauthex.ClientRegistrationMetadata{
		RedirectURIs: []string{back.address()}, TokenEndpointAuthMethod: "none", GrantTypes: []string{"authorization_code", "refresh_token"},
		ResponseTypes: []string{"code"}, ClientName: "capsem", SoftwareVersion: buildinfo.Version,
	}}
	return h
}

// knock asks the server for something without a token; it is to say who authorizes.
func knock(ctx context.Context, client *http.Client, address string) (*http.Request, *http.Response, error) {
	const hello = `{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-06-18","capabilities":{},"clientInfo":{"name":"capsem","version":"1"}}}`
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, address, strings.NewReader(hello))
	if err != nil {
		return nil, nil, fault.Wrap(err, fault.Invalid, "that is no url of a server")
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Accept", "application/json, text/event-stream")
	resp, err := client.Do(req)
	if err != nil {
		return nil, nil, fault.Wrap(err, fault.Unavailable, "%.200s does not answer", req.URL.Host)
	}
	if resp.StatusCode != http.StatusUnauthorized {
		_ = resp.Body.Close() // nothing of it is wanted
		if resp.StatusCode < http.StatusMultipleChoices {
			return nil, nil, fault.New(fault.Conflict, "%.200s wants no sign-in", req.URL.Host)
		}
		return nil, nil, fault.New(fault.Unavailable, "%.200s answers %d, and does not ask for a sign-in", req.URL.Host, resp.StatusCode)
	}
	return req, resp, nil
}

// explain makes an error of the SDK one for the owner. It may quote what a server says, but no token: the SDK has none before it succeeds.
func explain(ctx context.Context, err error) error {
	if f, ok := errors.AsType[*fault.Error](err); ok {
		return f
	}
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return fault.New(fault.Timeout, "nobody has agreed within %s", waitTime)
	}
	if ctx.Err() != nil {
		return context.Cause(ctx) //nolint:wrapcheck // the caller's own
	}
	if e, ok := errors.AsType[*oauth2.RetrieveError](err); ok { // its text has all of the answer
		return fault.New(fault.Unavailable, "the authorization server gives no token: %.100q", e.ErrorCode)
	}
	f := fault.Wrap(err, fault.Unavailable, "the sign-in failed: %.500s", fault.Plain(err.Error()))
	if strings.Contains(err.Error(), "regist") {
		return f.WithHint("if the server takes only clients that are registered: capsem mcp login --client-id ID")
	}
	return f
}

// client makes requests to the server and to who authorizes for it. It follows no redirect, speaks plain HTTP on the loopback only, and
// does not go to the loopback because of what a server elsewhere says.
func client(server *url.URL, transport http.RoundTripper) *http.Client {
	if transport == nil {
		transport = &http.Transport{
			Proxy: http.ProxyFromEnvironment, DialContext: (&net.Dialer{Timeout: 10 * time.Second}).DialContext, TLSHandshakeTimeout: 10 * time.Second,
			MaxResponseHeaderBytes: maxHeader, ForceAttemptHTTP2: true, DisableKeepAlives: true,
		}
	}
	return &http.Client{
		Transport: careful{transport, loopback(server.Hostname())}, Timeout: stepTime,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// careful refuses requests that a server may not lead to.
type careful struct {
	next  http.RoundTripper
	local bool
}

// RoundTrip makes a request.
func (c careful) RoundTrip(req *http.Request) (*http.Response, error) {
	if !allowed(req.URL, c.local) {
		return nil, fault.New(fault.Forbidden, "the server wants a request to %.200s, which is not made", req.URL.Redacted())
	}
	return c.next.RoundTrip(req) //nolint:wrapcheck // a RoundTripper hands errors through
}

// allowed reports whether a server may lead to a URL; local says that it is on the loopback itself.
func allowed(u *url.URL, local bool) bool {
	if u.User != nil || u.Host == "" {
		return false
	}
	if loopback(u.Hostname()) {
		return local && (u.Scheme == "http" || u.Scheme == "https")
	}
	return u.Scheme == "https"
}

func hostOf(address string) string {
	u, err := url.Parse(address)
	if err != nil {
		return ""
	}
	return u.Hostname()
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return strings.EqualFold(host, "localhost") || strings.HasSuffix(strings.ToLower(host), ".localhost") || ip != nil && (ip.IsLoopback() || ip.IsUnspecified())
}
