package host

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/zeebo/blake3"

	"capsem/core/mcp"
	"capsem/core/mcp/aggregator"
)

// server is a definition as the aggregator gets it: without its secrets, and without anything of its program. Secrets that cannot be had
// are an error already here.
func (h *Host) server(ctx context.Context, d *mcp.Definition) (*aggregator.Server, error) {
	if err := mcp.ValidServer(d.Name); err != nil {
		return nil, err //nolint:wrapcheck // a fault
	}
	if (d.URL == "") == (d.Command == "") {
		return nil, fmt.Errorf("MCP server %s has to have either a command or a url", d.Name)
	}
	s := &aggregator.Server{
		Name: d.Name, URL: d.URL, SSE: d.SSE, Limits: d.Limits.Or(mcp.DefaultLimits()), Sampling: d.Sampling, Elicitation: d.Elicitation,
	}
	if d.URL == "" {
		version, err := h.version(ctx, d)
		s.Version = version
		return s, err
	}
	u, err := url.Parse(d.URL)
	if err != nil || u.Host == "" || u.User != nil || u.Scheme != "https" && u.Scheme != "http" {
		return nil, fmt.Errorf("the url of MCP server %s is no http or https URL without a user name", d.Name)
	}
	s.Proxy = h.cfg.Proxy
	headers, _, err := h.headers(ctx, d)
	if err != nil {
		return nil, err
	}
	s.Dressed = len(headers) > 0
	if u.Scheme == "http" && s.Dressed && !local(u.Hostname()) {
		return nil, fmt.Errorf("MCP server %s has headers, and its url is not https: they would be readable on the way", d.Name)
	}
	for name := range headers {
		if name != http.CanonicalHeaderKey(name) && !plainHeader(name) || strings.EqualFold(name, "host") || strings.HasPrefix(strings.ToLower(name), "mcp-") {
			return nil, fmt.Errorf("MCP server %s cannot have the header %.60q", d.Name, name)
		}
	}
	return s, nil
}

func plainHeader(name string) bool {
	for i := range len(name) {
		if c := name[i]; c != '-' && (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') {
			return false
		}
	}
	return name != ""
}

func local(host string) bool {
	return strings.EqualFold(host, "localhost") || host == "127.0.0.1" || host == "::1"
}

// version is a hash of all that a program is started with, so that it begins anew when that changes. It tells nothing of secrets.
func (h *Host) version(ctx context.Context, d *mcp.Definition) (string, error) {
	env, err := h.resolved(ctx, d.Env)
	if err != nil {
		return "", err
	}
	text, err := json.Marshal([]any{d, env})
	if err != nil {
		return "", fmt.Errorf("encode definition: %w", err)
	}
	hash, err := blake3.NewKeyed(h.key[:])
	if err != nil {
		return "", fmt.Errorf("hash definition: %w", err)
	}
	_, _ = hash.Write(text) // never fails
	return hex.EncodeToString(hash.Sum(nil)[:8]), nil
}

// headers are those of requests to a server behind a URL. What a sign-in has got is among them, unless the owner has written another; the
// mark is that of its token.
func (h *Host) headers(ctx context.Context, d *mcp.Definition) (out map[string]string, mark string, err error) {
	out, err = h.resolved(ctx, d.Headers)
	if err != nil || h.cfg.Secrets == nil || d.URL == "" {
		return out, "", err
	}
	for name := range out {
		if strings.EqualFold(name, "authorization") {
			return out, "", nil
		}
	}
	token, err := h.cfg.Secrets.Resolve(ctx, mcp.LoginSecret(d.Name))
	if err == nil {
		out["Authorization"], mark = "Bearer "+token, mcp.Mark(token)
	}
	return out, mark, nil // most servers want no sign-in
}

// resolved puts secrets in the place of references. "Bearer secret:NAME" is one too.
func (h *Host) resolved(ctx context.Context, values map[string]string) (map[string]string, error) {
	out := map[string]string{}
	for key, value := range values {
		before, ref, found := mcp.SecretRef(value)
		if !found {
			out[key] = value
			continue
		}
		if mcp.IsLogin(ref) {
			return nil, fmt.Errorf("%.60q is what a sign-in has got, to which nothing refers", ref)
		}
		if h.cfg.Secrets == nil {
			return nil, fmt.Errorf("the secret %.60q cannot be had: there is no store of secrets", ref)
		}
		secret, err := h.cfg.Secrets.Resolve(ctx, ref)
		if err != nil {
			return nil, fmt.Errorf("the secret %.60q cannot be had: %w", ref, err)
		}
		if strings.ContainsAny(secret, "\r\n\x00") {
			return nil, fmt.Errorf("the secret %.60q has a line break in it", ref)
		}
		out[key] = before + secret
	}
	return out, nil
}
