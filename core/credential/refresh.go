package credential

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"capsem/core/fault"
)

const (
	// renewBefore is how long before its end a token is replaced.
	renewBefore = 10 * time.Minute
	// askTime bounds one request to a provider, maxAnswer its answer in bytes.
	askTime   = 30 * time.Second
	maxAnswer = 256 << 10
)

// endpoint is where a command line gets its next token, and how it asks.
type endpoint struct {
	url, clientID string
	form          bool
}

// endpoints are those of the command lines. Google's wants the client's own secret too, which only the file can say.
var endpoints = map[string]endpoint{
	clientClaude: {url: "https://platform.claude.com/v1/oauth/token", clientID: "9d1c250a-e61b-44d9-88ed-5944d1962f5e"},
	clientCodex:  {url: "https://auth.openai.com/oauth/token", clientID: "app_EMoamEEZ73f0CkXaXp7hrann"},
	clientGemini: {url: "https://oauth2.googleapis.com/token", form: true},
}

// endpoint is where the next token is got.
func (t *Token) endpoint() endpoint {
	if t.Client == ClientServer {
		return endpoint{url: t.URL, clientID: t.ClientID, form: true}
	}
	return endpoints[t.Client]
}

// Renewable says why a sign-in cannot be renewed; "" when it can.
func (e *Entry) Renewable() string {
	switch {
	case e.Form != OAuth || e.Token == nil:
		return "it is no sign-in"
	case e.Token.Refresh == "":
		return "its file has no token to get the next one with"
	case e.clientID() == "":
		return "its file does not say which client signed in (client_id and client_secret)"
	}
	return ""
}

func (e *Entry) clientID() string {
	if e.Token.ClientID != "" {
		return e.Token.ClientID
	}
	return e.Token.endpoint().clientID
}

// due says whether a token is to be replaced now.
func (e *Entry) due(now time.Time) bool {
	return e.Renewable() == "" && !e.Token.Expires.IsZero() && now.Add(renewBefore).After(e.Token.Expires)
}

// Renew replaces the tokens that end soon, and says whether any was. What goes wrong is in the errors, by name: the others go on.
func (s *Store) Renew(ctx context.Context, client *http.Client, now time.Time) (renewed bool, failed map[string]error) {
	all, err := s.All()
	if err != nil {
		return false, map[string]error{"": err}
	}
	failed = map[string]error{}
	for _, e := range all {
		if !e.due(now) {
			continue
		}
		did, err := s.renewOne(ctx, client, now, e.Name, func(e *Entry) bool { return e.due(now) })
		if err != nil {
			failed[e.Name] = err
		}
		renewed = renewed || did
	}
	return renewed, failed
}

// RenewRefused replaces the token of a sign-in that its server has refused before its time, unless there is another already.
func (s *Store) RenewRefused(ctx context.Context, client *http.Client, now time.Time, name string, refused func(value string) bool) error {
	_, err := s.renewOne(ctx, client, now, name, func(e *Entry) bool { return refused(e.Value) })
	return err
}

// renewOne replaces one token if it is still to be. A token to get the next with is used once, and by nobody else meanwhile: who uses one
// twice loses all of them at many a provider.
func (s *Store) renewOne(ctx context.Context, client *http.Client, now time.Time, name string, wanted func(*Entry) bool) (bool, error) {
	one, _ := s.renewing.LoadOrStore(name, make(chan struct{}, 1))
	turn, _ := one.(chan struct{})
	select {
	case turn <- struct{}{}:
		defer func() { <-turn }()
	case <-ctx.Done():
		return false, context.Cause(ctx) //nolint:wrapcheck // the caller's own
	}
	e, err := s.Get(name)
	if err != nil || !wanted(&e) {
		return false, err
	}
	if why := e.Renewable(); why != "" {
		return false, fault.New(fault.Conflict, "secret %s cannot be renewed: %s", name, why)
	}
	next, err := e.renew(ctx, client, now)
	if err == nil {
		err = s.renew(name, e, next)
	}
	return err == nil, err
}

// renew asks for the next token.
func (e Entry) renew(ctx context.Context, client *http.Client, now time.Time) (Entry, error) {
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	req, err := e.renewal(ctx)
	if err != nil {
		return e, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return e, fault.Wrap(err, fault.Unavailable, "secret %s cannot be renewed: %s does not answer", e.Name, req.URL.Host)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return e, fmt.Errorf("renew secret: %w", err)
	}
	if resp.StatusCode != http.StatusOK { // the answer may quote what was sent
		return e, fault.New(fault.Conflict, "secret %s cannot be renewed: %s answers %d", e.Name, req.URL.Host, resp.StatusCode).
			WithHint("sign in again and store the file anew")
	}
	var got struct {
		Access   string  `json:"access_token"`
		Refresh  string  `json:"refresh_token"`
		Identity string  `json:"id_token"`
		Seconds  float64 `json:"expires_in"`
	}
	if json.Unmarshal(text, &got) != nil || got.Access == "" {
		return e, fault.New(fault.Unavailable, "secret %s cannot be renewed: the answer of %s has no token", e.Name, req.URL.Host)
	}
	t := *e.Token
	e.Value, e.Token = got.Access, &t
	if got.Refresh != "" {
		t.Refresh = got.Refresh
	}
	if got.Identity != "" {
		t.Identity = got.Identity
	}
	t.Expires = jwtExpiry(got.Access)
	if got.Seconds > 0 && got.Seconds < 1e9 {
		t.Expires = now.Add(time.Duration(got.Seconds) * time.Second).UTC()
	}
	err = e.checkValue()
	return e, err
}

// renewal is the request for the next token.
func (e *Entry) renewal(ctx context.Context) (*http.Request, error) {
	at := e.Token.endpoint()
	fields := map[string]string{"grant_type": "refresh_token", "refresh_token": e.Token.Refresh, "client_id": e.clientID()}
	if e.Token.Resource != "" {
		fields["resource"] = e.Token.Resource
	}
	if e.Token.Basic {
		delete(fields, "client_id")
	} else if e.Token.ClientSecret != "" {
		fields["client_secret"] = e.Token.ClientSecret
	}
	var kind string
	var body []byte
	if at.form {
		values := url.Values{}
		for k, v := range fields {
			values.Set(k, v)
		}
		kind, body = "application/x-www-form-urlencoded", []byte(values.Encode())
	} else {
		kind = "application/json"
		var err error
		if body, err = json.Marshal(fields); err != nil {
			return nil, fmt.Errorf("renew secret: %w", err)
		}
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, at.url, bytes.NewReader(body))
	if err != nil {
		return nil, fmt.Errorf("renew secret: %w", err)
	}
	req.Header.Set("Content-Type", kind)
	req.Header.Set("Accept", "application/json")
	if e.Token.Basic {
		req.SetBasicAuth(url.QueryEscape(e.clientID()), url.QueryEscape(e.Token.ClientSecret))
	}
	return req, nil
}

// Tested is what a provider says to a credential.
type Tested struct {
	// Good says that it was accepted. Status is the answer's, 0 where nothing was asked.
	Good   bool
	Status int
	Detail string
}

// Test asks the provider whether a credential is good.
func (e *Entry) Test(ctx context.Context, client *http.Client) (Tested, error) {
	p := kinds[e.Kind].probe
	if e.Form == OAuth {
		p = kinds[e.Kind].probeOAuth
	}
	if p.url == "" || e.Form == Basic {
		return Tested{Good: true, Detail: "it can be read; capsem knows no request to try it with"}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, p.url, nil)
	if err != nil {
		return Tested{}, fmt.Errorf("test secret: %w", err)
	}
	for k, v := range p.more {
		req.Header.Set(k, v)
	}
	req.Header.Set("User-Agent", "capsem")
	req.Header.Set(p.header, p.before+e.Value)
	resp, err := client.Do(req)
	if err != nil {
		return Tested{}, fault.New(fault.Unavailable, "%s does not answer: %s", req.URL.Host, strings.ReplaceAll(err.Error(), e.Value, "[secret]"))
	}
	defer resp.Body.Close()
	_, _ = io.CopyN(io.Discard, resp.Body, maxAnswer) // only so that the connection ends well
	t := Tested{Status: resp.StatusCode, Good: resp.StatusCode < 300, Detail: fmt.Sprintf("%s answers %d", req.URL.Host, resp.StatusCode)}
	if resp.StatusCode == http.StatusUnauthorized || resp.StatusCode == http.StatusForbidden {
		t.Detail += ": it does not accept this secret"
	}
	return t, nil
}

// Client is an HTTP client for Renew and Test: it follows no redirect, which would carry the secret elsewhere.
func Client(transport http.RoundTripper) *http.Client {
	return &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}
