package mitm

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"strings"
	"testing"
	"time"

	"capsem/core/ledger"
)

func TestEventsArriveWhenTheyAreSentAndAnEndReachesBothSides(t *testing.T) {
	for _, h2 := range []bool{false, true} {
		t.Run(fmt.Sprintf("h2=%v", h2), func(t *testing.T) {
			g := newRig(t, rules)
			next, gone := make(chan struct{}), make(chan struct{})
			port := g.upstream(h2, func(w http.ResponseWriter, r *http.Request) {
				defer close(gone)
				w.Header().Set("Content-Type", "text/event-stream")
				for i := 0; ; i++ {
					fmt.Fprintf(w, "data: %d\n\n", i)
					_ = http.NewResponseController(w).Flush()
					select {
					case <-next:
					case <-r.Context().Done():
						return
					}
				}
			})
			client := g.client(both)
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			req, _ := http.NewRequestWithContext(ctx, http.MethodGet, "https://a.open.test:"+port+"/events", nil)
			res, err := client.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			lines := bufio.NewReader(res.Body)
			for i := range 5 { // each is read before the next is sent: whatever is held back would never come
				line, err := lines.ReadString('\n')
				if err != nil || line != fmt.Sprintf("data: %d\n", i) {
					t.Fatalf("%q %v", line, err)
				}
				_, _ = lines.ReadString('\n')
				next <- struct{}{}
			}
			cancel()
			_ = res.Body.Close()
			select {
			case <-gone:
			case <-time.After(patience):
				t.Error("the host is not told that the client left")
			}
			row := g.rows.one(t, "events", func(e ledger.NetEvent) bool { return e.Path == "/events" })
			if row.Decision != "error" || row.Error == "" || row.Received == 0 {
				t.Errorf("%+v", row)
			}
		})
	}
}

func TestACutAnswerIsSeenToBeCut(t *testing.T) {
	g := newRig(t, rules)
	cut := func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/length" {
			w.Header().Set("Content-Length", "1000")
		}
		_, _ = io.WriteString(w, "half")
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	}
	h1, h2 := g.upstream(false, cut), g.upstream(true, cut)
	for _, url := range []string{"https://a.open.test:" + h1, "https://a.open.test:" + h2} {
		for _, path := range []string{"/length", "/chunked"} {
			res, err := g.client(both).Get(url + path)
			if err != nil {
				t.Fatal(err)
			}
			text, err := io.ReadAll(res.Body)
			_ = res.Body.Close()
			if err == nil || string(text) != "half" {
				t.Errorf("%s%s: %q, %v", url, path, text, err)
			}
			row := g.rows.one(t, "cut", func(e ledger.NetEvent) bool { return e.Path == path && e.Port == portOf(url) })
			if row.Decision != "error" || !strings.Contains(row.Error, "cut short") || row.Received != 4 {
				t.Errorf("%+v", row)
			}
		}
	}
}

func portOf(url string) (n int) {
	_, _ = fmt.Sscanf(url[strings.LastIndexByte(url, ':'):], ":%d", &n)
	return n
}

func TestBothSidesTalkAtOnceAndTrailersPass(t *testing.T) {
	g := newRig(t, rules)
	port := g.upstream(true, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Trailer", "Grpc-Status")
		w.WriteHeader(http.StatusOK)
		_ = http.NewResponseController(w).Flush()
		lines := bufio.NewScanner(r.Body)
		for lines.Scan() {
			fmt.Fprintf(w, "re: %s\n", lines.Text())
			_ = http.NewResponseController(w).Flush()
		}
		w.Header().Set("Grpc-Status", "0")
		w.Header().Set(http.TrailerPrefix+"Late", r.Trailer.Get("Mine")+r.Header.Get("Te"))
	})
	body, say := io.Pipe()
	req, _ := http.NewRequestWithContext(t.Context(), http.MethodPost, "https://a.open.test:"+port, body)
	req.Header.Set("Te", "trailers")
	req.Trailer = http.Header{"Mine": nil}
	go func() { _, _ = io.WriteString(say, "0\n") }()
	res, err := g.client(both).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	lines := bufio.NewReader(res.Body)
	for i := range 4 {
		line, err := lines.ReadString('\n')
		if err != nil || line != fmt.Sprintf("re: %d\n", i) {
			t.Fatalf("%q %v", line, err)
		}
		if i < 3 {
			fmt.Fprintf(say, "%d\n", i+1)
		}
	}
	req.Trailer.Set("Mine", "x")
	_ = say.Close()
	if _, err := io.Copy(io.Discard, lines); err != nil {
		t.Fatal(err)
	}
	if res.Trailer.Get("Grpc-Status") != "0" || res.Trailer.Get("Late") != "xtrailers" || res.ProtoMajor != 2 {
		t.Errorf("%s %v", res.Proto, res.Trailer)
	}
}

func TestHeadsPassAsTheyAre(t *testing.T) {
	g := newRig(t, rules)
	var seen http.Header
	handler := func(w http.ResponseWriter, r *http.Request) {
		seen = r.Header.Clone()
		switch r.URL.Path {
		case "/hints":
			w.Header().Set("Link", "</a>")
			w.WriteHeader(http.StatusEarlyHints)
			w.Header().Del("Link")
		case "/continue":
			if text, _ := io.ReadAll(r.Body); string(text) != "body" {
				w.WriteHeader(http.StatusInternalServerError)
			}
			return
		case "/refused":
			w.WriteHeader(http.StatusExpectationFailed)
			return
		}
		w.Header()["Content-Type"], w.Header()["Date"] = nil, nil
		w.Header().Set("Content-Length", "5")
		w.Header().Set("X-Own", "1")
		_, _ = io.WriteString(w, "<html")
	}
	for _, h2 := range []bool{false, true} {
		url := "https://a.open.test:" + g.upstream(h2, handler)
		client := g.client(both, func(tr *http.Transport) { tr.ExpectContinueTimeout = patience })

		req, _ := http.NewRequestWithContext(t.Context(), http.MethodHead, url+"/", nil)
		req.Header.Set("X-Forwarded-For", "1.2.3.4")
		req.Header.Set("User-Agent", "")
		res, err := client.Do(req)
		if err != nil || res.ContentLength != 5 || res.Header.Get("X-Own") != "1" {
			t.Fatalf("h2=%v: HEAD: %+v %v", h2, res, err)
		}
		_ = res.Body.Close()
		for _, name := range []string{"Content-Type", "Date"} {
			if _, ok := res.Header[name]; ok {
				t.Errorf("h2=%v: %s was added", h2, name)
			}
		}
		want := http.Header{"X-Forwarded-For": {"1.2.3.4"}}
		if fmt.Sprint(seen) != fmt.Sprint(want) {
			t.Errorf("h2=%v: the host saw %v, not %v", h2, seen, want)
		}
		informed(t, client, url)
	}
}

// informed checks the answers that come before the answer: hints are not passed on, since no modifier has seen them.
func informed(t *testing.T, client *http.Client, url string) {
	t.Helper()
	hinted := ""
	trace := &httptrace.ClientTrace{Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
		hinted = fmt.Sprint(code, h.Get("Link"))
		return nil
	}}
	req, _ := http.NewRequestWithContext(httptrace.WithClientTrace(t.Context(), trace), http.MethodGet, url+"/hints", nil)
	res, err := client.Do(req)
	if err != nil || hinted != "" || res.Header.Get("Link") != "" {
		t.Errorf("%s: hints: %q %+v %v", url, hinted, res, err)
	}
	_ = res.Body.Close()

	for path, status := range map[string]int{"/continue": 200, "/refused": 417} {
		req, _ = http.NewRequestWithContext(t.Context(), http.MethodPost, url+path, strings.NewReader("body"))
		req.Header.Set("Expect", "100-continue")
		if res, err = client.Do(req); err != nil || res.StatusCode != status {
			t.Fatalf("%s: %s: %+v %v", url, path, res, err)
		}
		_ = res.Body.Close()
	}
}

func TestBodiesPassBothWaysWhole(t *testing.T) {
	g := newRig(t, rules)
	echo := func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(w, r.Body) }
	data := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	for _, h2 := range []bool{false, true} {
		url := "https://a.open.test:" + g.upstream(h2, func(w http.ResponseWriter, r *http.Request) {
			_ = http.NewResponseController(w).EnableFullDuplex()
			echo(w, r)
		})
		for _, length := range []int64{-1, int64(len(data))} {
			req, _ := http.NewRequestWithContext(t.Context(), http.MethodPut, fmt.Sprintf("%s/%d", url, length), io.NopCloser(bytes.NewReader(data)))
			req.ContentLength = length
			res, err := g.client(both).Do(req)
			if err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(res.Body)
			_ = res.Body.Close()
			if err != nil || !bytes.Equal(got, data) {
				t.Fatalf("h2=%v %d: %d bytes, %v", h2, length, len(got), err)
			}
			row := g.rows.one(t, "counted", func(e ledger.NetEvent) bool { return e.Path == fmt.Sprintf("/%d", length) && e.Port == portOf(url) })
			if row.Sent != int64(len(data)) || row.Received != int64(len(data)) || row.Decision != "allowed" {
				t.Errorf("%+v", row)
			}
		}
	}
}

func TestWhatMayHaveHadAnEffectIsNotSentTwice(t *testing.T) {
	g := newRig(t, rules)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	got := make(chan string, 10)
	go func() {
		for { // answers one request on each connection, and ends it at the next
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				r := bufio.NewReader(c)
				for i := 0; ; i++ {
					req, err := http.ReadRequest(r)
					if err != nil {
						return
					}
					got <- req.Method
					if i > 0 {
						return
					}
					_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
				}
			}()
		}
	}()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	url, client := "http://a.open.test:"+port, g.client()
	for _, c := range []struct {
		method string
		status int
		seen   int
	}{{"GET", 200, 1}, {"GET", 200, 2}, {"POST", 502, 1}} {
		req, _ := http.NewRequestWithContext(t.Context(), c.method, url, nil)
		res, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		text, _ := io.ReadAll(res.Body)
		_ = res.Body.Close()
		if res.StatusCode != c.status {
			t.Errorf("%s: %s %s", c.method, res.Status, text)
		}
		for range c.seen {
			if m := <-got; m != c.method {
				t.Errorf("the host got %s, not %s", m, c.method)
			}
		}
	}
	if len(got) > 0 {
		t.Errorf("the host also got %s", <-got)
	}
}

func TestAHostThatCannotBeReachedIsSaidInALine(t *testing.T) {
	g := newRig(t, rules)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(l.Addr().String())
	_ = l.Close()
	open := g.plain(func(http.ResponseWriter, *http.Request) {})
	for _, c := range []struct{ url, says string }{
		{"http://a.open.test:" + port, "cannot connect to a.open.test:" + port},
		{"https://a.open.test:" + open, "no TLS with a.open.test:" + open},
		{"http://nowhere.open.test:" + port, "nowhere.open.test"},
	} {
		res, text := get(t, g.client(both), c.url+"/gone")
		if res.StatusCode != http.StatusBadGateway || res.Header.Get("Content-Type") != "application/json" {
			t.Errorf("%s: %s %v", c.url, res.Status, res.Header)
		}
		contains(t, text, c.says, `"source":"capsem"`)
		row := g.rows.one(t, "error", func(e ledger.NetEvent) bool { return strings.Contains(e.Error, c.says) })
		if row.Decision != "error" || row.Rule != "open" || row.Status != 502 {
			t.Errorf("%+v", row)
		}
	}
}

var errModifier = errors.New("modifier: secret detail")

type failing struct{ request, response bool }

func (f failing) ModifyRequest(*http.Request) error {
	if f.request {
		return errModifier
	}
	return nil
}

func (f failing) ModifyResponse(*http.Response) error {
	if f.response {
		return errModifier
	}
	return nil
}

func TestAModifierThatFailsEndsTheRequest(t *testing.T) {
	for _, m := range []failing{{request: true}, {response: true}} {
		g := newRig(t, rules, func(c *Config) { c.Modifiers = []any{m} })
		asked := false
		port := g.upstream(false, func(w http.ResponseWriter, _ *http.Request) { asked = true; _, _ = io.WriteString(w, "answer") })
		res, text := get(t, g.client(), "https://a.open.test:"+port)
		if res.StatusCode != http.StatusBadGateway || strings.Contains(text, "secret") || strings.Contains(text, "answer") || asked && m.request {
			t.Errorf("%+v: %s %q, asked %v", m, res.Status, text, asked)
		}
		if row := g.rows.one(t, "error", func(ledger.NetEvent) bool { return true }); row.Decision != "error" {
			t.Errorf("%+v", row)
		}
	}
	if _, err := New(t.Context(), Config{}); err == nil {
		t.Error("a proxy of nothing")
	}
}
