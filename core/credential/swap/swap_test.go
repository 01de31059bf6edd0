package swap

import (
	"bytes"
	"compress/gzip"
	"compress/zlib"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/andybalholm/brotli"
	"github.com/klauspost/compress/zstd"

	"capsem/core/mitm/flow"
	"capsem/core/proto"
)

// A credential and what stands for it, of equal length; neither is anybody's.
var (
	value       = "sk-tst-" + strings.Repeat("Rv9", 12)
	placeholder = "sk-tst-" + strings.Repeat("pQ3", 12)
	refresh     = "sk-ref-" + strings.Repeat("zT8", 12)
)

func credentials(places ...proto.GrantPlace) *proto.Credentials {
	return &proto.Credentials{Grants: []proto.Grant{{
		Name: "mine", Kind: "generic", Hosts: []string{"api.good.test", "*.sub.test"}, Places: places,
		Secrets: []proto.GrantSecret{{Placeholder: placeholder, Value: proto.Secret(value)}, {Placeholder: refresh}},
	}}}
}

// rig is a proxy with the modifiers before a server.
type rig struct {
	*testing.T
	front  *httptest.Server
	m      *Modifiers
	host   string
	scheme string

	mu     sync.Mutex
	events []Event
	got    *http.Request
	sent   []byte
	last   *flow.Flow
	answer http.HandlerFunc
}

func newRig(t *testing.T, c *proto.Credentials) *rig {
	t.Helper()
	v := NewVault()
	if err := v.Set(c); err != nil {
		t.Fatal(err)
	}
	r := &rig{T: t, host: "api.good.test", scheme: "https"}
	r.m = NewModifiers(Config{Vault: v, Record: func(_ *flow.Flow, e Event) {
		r.mu.Lock()
		defer r.mu.Unlock()
		e.Time = time.Time{}
		r.events = append(r.events, e)
	}})
	back := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		body, _ := io.ReadAll(req.Body)
		r.mu.Lock()
		r.got, r.sent = req, body
		answer := r.answer
		r.mu.Unlock()
		if answer != nil {
			answer(w, req)
		}
	}))
	t.Cleanup(back.Close)
	to, err := url.Parse(back.URL)
	if err != nil {
		t.Fatal(err)
	}
	proxy := &httputil.ReverseProxy{
		FlushInterval: -1,
		Rewrite: func(p *httputil.ProxyRequest) {
			p.Out.URL.Scheme, p.Out.URL.Host = to.Scheme, to.Host
			p.Out.URL.RawQuery = p.In.URL.RawQuery
		},
		ModifyResponse: r.m.Answers().ModifyResponse,
		ErrorHandler:   func(w http.ResponseWriter, _ *http.Request, err error) { refuse(w, err) },
	}
	r.front = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		f := &flow.Flow{Host: r.host, Scheme: r.scheme, Port: 443, Began: time.Now()}
		r.mu.Lock()
		r.last = f
		r.mu.Unlock()
		req = req.WithContext(flow.With(req.Context(), f))
		if err := r.m.Requests().ModifyRequest(req); err != nil {
			refuse(w, err)
			return
		}
		proxy.ServeHTTP(w, req)
	}))
	t.Cleanup(r.front.Close)
	return r
}

func refuse(w http.ResponseWriter, err error) {
	if no, ok := errors.AsType[*flow.Refusal](err); ok {
		w.WriteHeader(no.Status)
		_, _ = w.Write(no.Body)
		return
	}
	w.WriteHeader(http.StatusBadGateway)
	_, _ = io.WriteString(w, err.Error())
}

// do sends a request and gives status and body of the answer.
func (r *rig) do(method, path string, body io.Reader, headers ...string) (int, string) {
	r.Helper()
	r.mu.Lock()
	r.got, r.sent, r.events = nil, nil, nil
	r.mu.Unlock()
	req, err := http.NewRequestWithContext(context.Background(), method, r.front.URL+path, body)
	if err != nil {
		r.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Add(headers[i], headers[i+1])
	}
	resp, err := (&http.Client{Transport: &http.Transport{DisableCompression: true, DisableKeepAlives: true}}).Do(req)
	if err != nil {
		r.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		r.Fatal(err)
	}
	return resp.StatusCode, string(text)
}

// arrived is what the server has got last; it may still be at it.
func (r *rig) arrived() (*http.Request, []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.got, r.sent
}

func (r *rig) has(action, where string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range r.events {
		if e.Action == action && strings.HasPrefix(e.Where, where) && e.Credential == "mine" {
			return true
		}
	}
	return false
}

func TestTheValueIsPutIntoItsPlaces(t *testing.T) {
	r := newRig(t, credentials(proto.GrantPlace{In: "header", Name: "x-key"}, proto.GrantPlace{In: "basic"}, proto.GrantPlace{In: "query", Name: "key"}, proto.GrantPlace{In: "json", Name: "token"}))
	basic := func(s string) string { return "Basic " + base64.StdEncoding.EncodeToString([]byte(s)) }
	for _, c := range []struct{ name, path, header, in, out, body, want string }{
		{name: "header", header: "X-Key", in: placeholder, out: value},
		{name: "basic password", header: "Authorization", in: basic("me:" + placeholder), out: basic("me:" + value)},
		{name: "basic user", header: "Authorization", in: basic(placeholder + ":"), out: basic(value + ":")},
		{name: "query", path: "/x?a=1&key=" + placeholder + "&b=%20"},
		{name: "json", body: `{"a":"b","token" : "` + placeholder + `"}`, want: `{"a":"b","token" : "` + value + `"}`},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := c.path
			if path == "" {
				path = "/"
			}
			headers := []string{"Content-Type", "application/json"}
			if c.header != "" {
				headers = append(headers, c.header, c.in)
			}
			status, _ := r.do("POST", path, strings.NewReader(c.body), headers...)
			switch {
			case status != 200 || r.got == nil:
				t.Fatalf("status %d", status)
			case c.header != "" && r.got.Header.Get(c.header) != c.out:
				t.Errorf("header is %q", r.got.Header.Get(c.header))
			case c.path != "" && r.got.URL.RawQuery != "a=1&key="+value+"&b=%20":
				t.Errorf("query is %q", r.got.URL.RawQuery)
			case string(r.sent) != c.want:
				t.Errorf("body is %q", r.sent)
			case !r.has(Injected, "") || r.last.Credential() != "mine":
				t.Errorf("recorded %v, credential %q", r.events, r.last.Credential())
			case c.want != "" && r.got.ContentLength != int64(len(c.want)):
				t.Errorf("length %d", r.got.ContentLength)
			}
		})
	}
}

func TestOtherPlacesOfItsHostGetThePlaceholder(t *testing.T) {
	r := newRig(t, credentials(proto.GrantPlace{In: "header", Name: "x-key"}, proto.GrantPlace{In: "json", Name: "token"}))
	told := `{"messages":[{"content":"the key is ` + placeholder + `"}]}`
	for where, send := range map[string]func() (int, string){
		"header": func() (int, string) { return r.do("GET", "/", nil, "X-Other", placeholder) },
		"query":  func() (int, string) { return r.do("GET", "/?key="+placeholder, nil) },
		"body": func() (int, string) {
			return r.do("POST", "/", strings.NewReader(told), "Content-Type", "application/json")
		},
	} {
		if status, _ := send(); status != 200 || !r.has(Misplaced, where) || r.has(Injected, "") {
			t.Errorf("%s: status %d, %v", where, status, r.events)
		}
		got, sent := r.arrived()
		if text := fmt.Sprint(got.Header, got.URL, string(sent)); strings.Contains(text, value) {
			t.Errorf("%s: the value went out", where)
		}
	}
}

func TestNothingIsPutInWithoutTLSOrForOtherHosts(t *testing.T) {
	r := newRig(t, credentials(proto.GrantPlace{In: "header"}))
	for _, c := range []struct {
		host, scheme string
		status       int
	}{
		{"api.good.test", "https", 200},
		{"a.sub.test", "wss", 200},
		{"api.good.test", "http", 403},
		{"good.test", "https", 403},
		{"a.b.sub.test", "https", 403},
		{"api.good.test.evil.test", "https", 403},
	} {
		r.host, r.scheme = c.host, c.scheme
		status, body := r.do("GET", "/", nil, "X-Key", placeholder)
		got, _ := r.arrived()
		if status != c.status || (status == 403) != strings.Contains(body, RefusalRule) || (status == 403) != (got == nil) {
			t.Errorf("%s://%s: status %d, %q", c.scheme, c.host, status, body)
		}
	}
}

func squeezed(t *testing.T, encoding, text string) []byte {
	t.Helper()
	var b bytes.Buffer
	var w io.WriteCloser
	switch encoding {
	case "gzip":
		w = gzip.NewWriter(&b)
	case "deflate":
		w = zlib.NewWriter(&b)
	case "br":
		w = brotli.NewWriter(&b)
	default:
		var err error
		if w, err = zstd.NewWriter(&b); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := io.WriteString(w, text); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func escaped(s string) string {
	var b strings.Builder
	for i := range len(s) {
		fmt.Fprintf(&b, "%%%02X", s[i])
	}
	return b.String()
}

func TestAPlaceholderElsewhereIsRefused(t *testing.T) {
	r := newRig(t, credentials(proto.GrantPlace{In: "header"}))
	b64 := base64.StdEncoding.EncodeToString([]byte("user:" + placeholder + "\n"))
	var form bytes.Buffer
	w := multipart.NewWriter(&form)
	part, err := w.CreateFormFile("f", "a.txt")
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.WriteString(part, "hello "+placeholder)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	long := strings.Repeat("some text that goes before it. ", 20000)
	post := func(body string, headers ...string) func() (int, string) {
		return func() (int, string) { return r.do("POST", "/", strings.NewReader(body), headers...) }
	}
	sends := map[string]func() (int, string){
		"header":        func() (int, string) { return r.do("GET", "/", nil, "Authorization", "Bearer "+placeholder) },
		"basic":         func() (int, string) { return r.do("GET", "/", nil, "Authorization", "Basic "+b64) },
		"header base64": func() (int, string) { return r.do("GET", "/", nil, "X-Data", "x"+b64) },
		"path":          func() (int, string) { return r.do("GET", "/a/"+placeholder, nil) },
		"path escaped":  func() (int, string) { return r.do("GET", "/a/"+escaped(placeholder), nil) },
		"query":         func() (int, string) { return r.do("GET", "/?a=b&c="+placeholder, nil) },
		"query base64":  func() (int, string) { return r.do("GET", "/?a="+url.QueryEscape(b64), nil) },
		"body":          post("a " + placeholder + " b"),
		"body far":      post(long + placeholder),
		"body json":     post(`{"a":"` + strings.ReplaceAll(placeholder, "p", `\u0070`) + `"}`),
		"body base64":   post(long + b64),
		"form":          post("a=" + escaped(placeholder)),
		"multipart":     post(form.String(), "Content-Type", w.FormDataContentType()),
		"only the host": post("x=" + refresh),
	}
	for _, e := range []string{"gzip", "deflate", "br", "zstd"} {
		sends[e] = post(string(squeezed(t, e, long+placeholder+long)), "Content-Encoding", e)
		sends[e+" behind"] = post(string(squeezed(t, e, "x"))+placeholder, "Content-Encoding", e)
	}
	for name, send := range sends {
		r.host = "other.test"
		if name == "only the host" {
			r.host = "elsewhere.test"
		}
		status, body := send()
		got, sent := r.arrived()
		if status/100 != 4 || !strings.Contains(body, "refused") || got != nil && bytes.Contains(sent, []byte(placeholder)) {
			t.Errorf("%s: status %d, %q, arrived: %v", name, status, body, got != nil)
		}
		if !strings.HasSuffix(name, "behind") && !r.has(Refused, "") {
			t.Errorf("%s: recorded %v", name, r.events)
		}
	}
	r.host = strings.ToLower(placeholder) + ".evil.test"
	if status, _ := r.do("GET", "/", nil); status != 403 {
		t.Errorf("in the name of a host: status %d", status)
	}
}

// pieces gives a few bytes at a time.
type pieces struct {
	s string
	n int
}

func (p *pieces) Read(b []byte) (int, error) {
	if p.s == "" {
		return 0, io.EOF
	}
	n := copy(b[:min(p.n, len(b))], p.s)
	p.s = p.s[n:]
	return n, nil
}

func TestAPlaceholderIsFoundOverTheBordersOfChunks(t *testing.T) {
	r := newRig(t, credentials(proto.GrantPlace{In: "json"}))
	text := `{"x":1,"token":"` + placeholder + `","y":"` + strings.Repeat("z", 100) + `"}`
	for n := 1; n < 50; n += 3 {
		r.host = "api.good.test"
		if status, _ := r.do("POST", "/", &pieces{text, n}, "Content-Type", "application/json"); status != 200 || string(r.sent) != strings.ReplaceAll(text, placeholder, value) {
			t.Fatalf("in pieces of %d: status %d, sent %q", n, status, r.sent)
		}
		r.host = "other.test"
		if status, _ := r.do("POST", "/", &pieces{text, n}); status != 403 {
			t.Fatalf("in pieces of %d elsewhere: status %d", n, status)
		}
	}
}

func TestCompressedJSONIsSentPlainWithTheValue(t *testing.T) {
	r := newRig(t, credentials(proto.GrantPlace{In: "json", Name: "token"}))
	text := `{"token":"` + placeholder + `"}`
	for _, e := range []string{"gzip", "deflate", "br", "zstd"} {
		status, _ := r.do("POST", "/", bytes.NewReader(squeezed(t, e, text)), "Content-Type", "application/json", "Content-Encoding", e)
		if status != 200 || string(r.sent) != strings.ReplaceAll(text, placeholder, value) || r.got.Header.Get("Content-Encoding") != "" {
			t.Errorf("%s: status %d, %q as %q", e, status, r.sent, r.got.Header.Get("Content-Encoding"))
		}
	}
}

func TestCompressedBodiesGoOnAsTheyAreAndBrokenOnesDoNot(t *testing.T) {
	r := newRig(t, credentials(proto.GrantPlace{In: "header"}))
	r.host = "other.test"
	text := strings.Repeat("nothing of interest, but much of it. ", 40000)
	for _, e := range []string{"gzip", "deflate", "br", "zstd"} {
		whole := squeezed(t, e, text)
		if status, body := r.do("POST", "/", bytes.NewReader(whole), "Content-Encoding", e); status != 200 || !bytes.Equal(r.sent, whole) {
			t.Errorf("%s: status %d %q, %d of %d bytes", e, status, body, len(r.sent), len(whole))
		}
		for name, broken := range map[string][]byte{"truncated": whole[:len(whole)/2], "plain": []byte(text[:3000]), "empty": {}} {
			if name == "empty" && e != "gzip" {
				continue
			}
			if status, _ := r.do("POST", "/", bytes.NewReader(broken), "Content-Encoding", e); status != 400 && len(broken) > 0 {
				t.Errorf("%s %s: status %d", e, name, status)
			}
		}
	}
}
