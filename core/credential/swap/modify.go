package swap

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"capsem/core/detect/match"
	"capsem/core/detect/pipe"
	"capsem/core/mitm/flow"
)

// What happened to a credential, for the record.
const (
	// Injected is a value that was put in for a placeholder, Scrubbed one that was taken out of an answer.
	Injected, Scrubbed = "injected", "scrubbed"
	// Refused is a placeholder that was on its way to a host it is not for; Misplaced one in a part of a request to its own host that
	// it is not put into: it went on as it was.
	Refused, Misplaced = "refused", "misplaced"
)

// Event is one thing that happened to a credential. It never has the value.
type Event struct {
	Time time.Time
	// Credential is its name, Kind its kind, Action what happened.
	Credential, Kind, Action string
	// Where is the part of the request or answer, Form how it was written there, Host who it was for.
	Where, Form, Host string
}

// Config is what the modifiers need.
type Config struct {
	Vault *Vault
	// Record takes what happens; it must not block.
	Record func(f *flow.Flow, e Event)
	// Elsewhere decides about a placeholder on its way to a host it is not for: nil lets it go on, as it is. Without it such requests
	// are refused. It may wait for the owner.
	Elsewhere func(ctx context.Context, f *flow.Flow, e Event, r *flow.Refusal) error
}

// Modifiers are the modifiers of requests and answers. They keep nothing between requests.
type Modifiers struct{ cfg Config }

// NewModifiers makes them.
func NewModifiers(cfg Config) *Modifiers { return &Modifiers{cfg} }

// RefusalRule names the rule of a refused placeholder in records.
const RefusalRule = "credential/elsewhere"

// pass is one request on its way.
type pass struct {
	ctx   context.Context //nolint:containedctx // of the request
	m     *Modifiers
	f     *flow.Flow
	t     *table
	bound []bool // by text
	// any says that some credential is bound to the host, over TLS.
	any bool

	mu   sync.Mutex
	seen map[Event]bool
}

type passKey struct{}

// Requests is the modifier of requests.
type Requests struct{ m *Modifiers }

// Requests gives the modifier of requests, to come behind all others: they then see placeholders, and no value.
func (m *Modifiers) Requests() Requests { return Requests{m} }

// ModifyRequest puts credentials in and refuses placeholders that go elsewhere. It wraps the body; what is in that shows when it is read.
func (r Requests) ModifyRequest(req *http.Request) error {
	m := r.m
	f := flow.From(req.Context())
	if f == nil {
		return errors.New("swap credentials: the request has no flow")
	}
	t := m.cfg.Vault.now.Load()
	if len(t.texts) == 0 {
		return nil
	}
	p := m.pass(req.Context(), f, t)
	f.Set(passKey{}, p)
	if err := p.host(f.Host, req.Host); err != nil {
		return err
	}
	if err := p.url(req.URL); err != nil {
		return err
	}
	if err := p.headers(req.Header); err != nil {
		return err
	}
	if p.any {
		pipe.OnlyKnown(req.Header)
	}
	return p.requestBody(req)
}

func (m *Modifiers) pass(ctx context.Context, f *flow.Flow, t *table) *pass {
	p := &pass{ctx: ctx, m: m, f: f, t: t, bound: make([]bool, len(t.texts)), seen: map[Event]bool{}}
	if f.Scheme == "https" || f.Scheme == "wss" {
		for i := range t.texts {
			p.bound[i] = t.texts[i].grant.boundTo(f.Host)
			p.any = p.any || p.bound[i]
		}
	}
	return p
}

// event records something, once in a request.
func (p *pass) event(action, where string, secret int, form match.Form) Event {
	g := p.t.texts[secret].grant
	e := Event{Credential: g.name, Kind: g.kind, Action: action, Where: where, Form: form.String(), Host: p.f.Host}
	p.mu.Lock()
	known := p.seen[e]
	p.seen[e] = true
	p.mu.Unlock()
	if !known && p.m.cfg.Record != nil {
		now := e
		now.Time = time.Now()
		p.m.cfg.Record(p.f, now)
	}
	return e
}

// injected notes a value that was put in.
func (p *pass) injected(where string, secret int, form match.Form) string {
	p.event(Injected, where, secret, form)
	name := p.t.texts[secret].grant.name
	if had := p.f.Credential(); had == "" {
		p.f.SetCredential(name)
	} else if !slices.Contains(strings.Split(had, ","), name) {
		p.f.SetCredential(had + "," + name)
	}
	return p.t.texts[secret].value
}

// stray deals with a placeholder that nothing is put in for.
func (p *pass) stray(where string, secret int, form match.Form) error {
	if p.bound[secret] {
		p.event(Misplaced, where, secret, form)
		return nil
	}
	e := p.event(Refused, where, secret, form)
	r := p.refusal(secret, where)
	if p.m.cfg.Elsewhere != nil {
		return p.m.cfg.Elsewhere(p.ctx, p.f, e, r)
	}
	return r
}

// refusal is what the guest is told.
func (p *pass) refusal(secret int, where string) *flow.Refusal {
	g := p.t.texts[secret].grant
	hosts := make([]string, len(g.hosts))
	for i, h := range g.hosts {
		hosts[i] = string(h)
	}
	reason := fmt.Sprintf("the credential %s must not go to %s (found in the %s)", g.name, p.f.Host, where)
	may := "it goes nowhere: the host uses it itself"
	if len(hosts) > 0 && p.t.texts[secret].value != "" {
		may = "it goes to " + strings.Join(hosts, ", ") + " only, over TLS"
	}
	body, err := json.MarshalIndent(map[string]any{
		"error": "refused: a credential on its way elsewhere", "rule": RefusalRule, "reason": reason, "allowed": may,
		"ask": "Trying again will not help. Leave the credential out of what you send, or ask the owner of this machine.",
	}, "", "  ")
	if err != nil { // only strings are in it
		body = []byte(`{"error":"refused: a credential on its way elsewhere"}`)
	}
	h := http.Header{}
	for k, v := range map[string]string{
		"Content-Type": "application/json", "Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", "X-Capsem-Rule": RefusalRule,
		"X-Should-Retry": "false",
	} {
		h.Set(k, v)
	}
	return &flow.Refusal{Status: http.StatusForbidden, Header: h, Body: body, Rule: RefusalRule, Reason: reason}
}

// scan looks through a text that nothing is put into.
func (p *pass) scan(where, s string) error {
	if len(s) < p.t.placeholders.Shortest() {
		return nil
	}
	stream := match.NewStream(p.t.placeholders, func(h *match.Hit) ([]byte, error) { return nil, p.stray(where, h.Secret, h.Form) })
	defer stream.Free()
	_, err := stream.Push([]byte(s), true)
	return err //nolint:wrapcheck // a refusal is the answer
}

// replace puts values in where a place allows it.
func (p *pass) replace(in, name, where, s string, encode func(string) string) (string, error) {
	if len(s) < p.t.placeholders.Shortest() {
		return s, nil
	}
	stream := match.NewStream(p.t.placeholders, func(h *match.Hit) ([]byte, error) {
		x := &p.t.texts[h.Secret]
		if p.bound[h.Secret] && x.value != "" && h.Form != match.Base64 && x.grant.goesInto(in, name) {
			return []byte(encode(p.injected(where, h.Secret, h.Form))), nil
		}
		return nil, p.stray(where, h.Secret, h.Form)
	})
	defer stream.Free()
	out, err := stream.Push([]byte(s), true)
	return string(out), err //nolint:wrapcheck // a refusal is the answer
}

func asIs(s string) string { return s }

// host looks at the name that a request is for: a text can be carried away in one.
func (p *pass) host(names ...string) error {
	for _, n := range names {
		n = strings.ToLower(n)
		for i, folded := range p.t.folded {
			if strings.Contains(n, folded) {
				return p.stray("host name", i, match.Plain)
			}
		}
	}
	return nil
}

func (p *pass) url(u *url.URL) error {
	for _, part := range []string{u.EscapedPath(), u.Path, u.Fragment, u.User.String()} {
		if err := p.scan("path", part); err != nil {
			return err
		}
	}
	if u.RawQuery == "" {
		return nil
	}
	parts := strings.Split(u.RawQuery, "&")
	for i, part := range parts {
		key, value, has := strings.Cut(part, "=")
		if err := p.scan("query", key); err != nil {
			return err
		}
		if !has {
			continue
		}
		name, err := url.QueryUnescape(key)
		if err != nil {
			name = key
		}
		if value, err = p.replace("query", name, "query "+shown(name), value, url.QueryEscape); err != nil {
			return err
		}
		parts[i] = key + "=" + value
	}
	u.RawQuery = strings.Join(parts, "&")
	return p.scanRest("query", u.RawQuery)
}

// scanRest looks for placeholders that go over what stands between parts.
func (p *pass) scanRest(where, s string) error {
	for _, x := range p.t.texts {
		if strings.Contains(x.placeholder, "&") || strings.Contains(x.placeholder, "=") {
			return p.scan(where, s)
		}
	}
	return nil
}

// shown bounds a name of the guest's for the record.
func shown(name string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, name[:min(len(name), 64)])
}

func (p *pass) headers(h http.Header) error {
	for name, values := range h {
		if err := p.scan("name of a header", name); err != nil {
			return err
		}
		where := "header " + shown(strings.ToLower(name))
		for i, v := range values {
			var err error
			if name == "Authorization" || name == "Proxy-Authorization" {
				if user, ok := basic(v); ok {
					if values[i], err = p.basic(where, v, user); err != nil {
						return err
					}
					continue
				}
			}
			if values[i], err = p.replace("header", name, where, v, asIs); err != nil {
				return err
			}
		}
	}
	return nil
}

// basic decodes the value of basic authentication.
func basic(v string) (userinfo string, ok bool) {
	scheme, text, _ := strings.Cut(v, " ")
	if !strings.EqualFold(scheme, "basic") {
		return "", false
	}
	text = strings.TrimRight(strings.TrimSpace(text), "=")
	for _, enc := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
		if plain, err := enc.DecodeString(text); err == nil {
			return string(plain), true
		}
	}
	return "", false
}

// basic puts a value in for the user or the password, if all of it is a placeholder.
func (p *pass) basic(where, value, userinfo string) (string, error) {
	user, password, pair := strings.Cut(userinfo, ":")
	changed := false
	for i := range p.t.texts {
		x := &p.t.texts[i]
		if !p.bound[i] || x.value == "" || !x.grant.goesInto("basic", "") {
			continue
		}
		for _, part := range []*string{&user, &password} {
			if *part == x.placeholder {
				*part, changed = p.injected(where, i, match.Base64), true
			}
		}
	}
	if !changed {
		return value, errors.Join(p.scan(where, userinfo), p.scan(where, value))
	}
	// Whatever else is in it must not be a placeholder.
	if pair {
		user += ":" + password
	}
	if err := p.scan(where, user); err != nil {
		return value, err
	}
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(user)), nil
}

// jsonBody says whether a body is JSON.
func jsonBody(h http.Header) bool {
	kind, _, err := mime.ParseMediaType(h.Get("Content-Type"))
	return err == nil && (kind == "application/json" || strings.HasSuffix(kind, "+json"))
}
