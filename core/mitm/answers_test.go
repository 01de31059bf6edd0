package mitm

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"strings"
	"testing"

	"capsem/core/ledger"
)

// hider takes a field out of answers, as the modifier that takes credentials out does.
type hider struct{}

func (hider) ModifyResponse(res *http.Response) error {
	res.Header.Del("X-Secret")
	return nil
}

func TestWhatNoModifierSawIsNotPassedOn(t *testing.T) {
	g := newRig(t, rules, func(c *Config) { c.Modifiers = []any{hider{}} })
	for _, h2 := range []bool{false, true} {
		port := g.upstream(h2, func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("X-Secret", "early")
			w.WriteHeader(http.StatusEarlyHints)
			w.Header().Set("X-Secret", "late")
			_, _ = io.WriteString(w, "done")
		})
		client := g.client()
		if h2 {
			client = g.client(both)
		}
		early := ""
		ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
			early += fmt.Sprint(code, h)
			return nil
		}})
		ctx, cancel := context.WithTimeout(ctx, patience)
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://a.open.test:"+port, nil)
		if err != nil {
			t.Fatal(err)
		}
		res, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		text, err := io.ReadAll(res.Body)
		_ = res.Body.Close()
		cancel()
		if strings.Contains(early, "early") || res.Header.Get("X-Secret") != "" || string(text) != "done" || err != nil {
			t.Errorf("h2=%v: %q %v %q %v", h2, early, res.Header, text, err)
		}
	}
}

func TestAClientIsStillToldToGoOn(t *testing.T) {
	g := newRig(t, rules)
	port := g.plain(func(w http.ResponseWriter, r *http.Request) {
		text, _ := io.ReadAll(r.Body)
		_, _ = w.Write(text)
	})
	c, err := g.connect(g.ctx, "a.open.test:"+port)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	fmt.Fprintf(c, "POST / HTTP/1.1\r\nHost: a.open.test:%s\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n", port)
	r := bufio.NewReader(c)
	res, err := http.ReadResponse(r, nil)
	if err != nil || res.StatusCode != http.StatusContinue || len(res.Header) != 0 {
		t.Fatalf("%+v %v", res, err)
	}
	_, _ = io.WriteString(c, "yes")
	if res, err = http.ReadResponse(r, nil); err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if text, err := io.ReadAll(res.Body); string(text) != "yes" || err != nil {
		t.Errorf("%q %v", text, err)
	}
}

// TestWhatTheServerItselfRefusesIsRecorded has requests that Go's server answers without a handler.
func TestWhatTheServerItselfRefusesIsRecorded(t *testing.T) {
	for name, text := range map[string]string{
		"no such escape": "GET /%zz HTTP/1.1\r\nHost: a.open.test\r\n\r\n",
		"no host":        "GET / HTTP/1.1\r\n\r\n",
		"bad host":       "GET / HTTP/1.1\r\nHost: a b\r\n\r\n",
		"bad expect":     "GET / HTTP/1.1\r\nHost: a.open.test\r\nExpect: something\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			g := newRig(t, rules)
			port := g.plain(func(http.ResponseWriter, *http.Request) { t.Error("reached") })
			good := "GET /good HTTP/1.1\r\nHost: shut.test\r\n\r\n"
			got := g.exchangeRaw("a.open.test:"+port, good+text)
			row := g.rows.one(t, name, func(e ledger.NetEvent) bool { return e.Path == "" })
			if row.Decision != "denied" || row.Rule != "capsem:malformed" || row.Domain != "a.open.test" || !strings.Contains(got, " 400 ") && !strings.Contains(got, " 417 ") {
				t.Errorf("%+v %q", row, got)
			}
		})
	}
}
