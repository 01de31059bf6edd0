package swap

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"capsem/core/mitm/flow"
	"capsem/core/proto"
)

func TestAnswersAreScrubbed(t *testing.T) {
	r := newRig(t, credentials(proto.GrantPlace{In: "header"}))
	quoted, _ := json.Marshal(map[string]string{"you sent": value, "b64": base64.StdEncoding.EncodeToString([]byte("u:" + value))})
	text := string(quoted) + "\n" + escaped(value) + "\n" + strings.ReplaceAll(value, "R", `\u0052`) + "\n" + value
	for _, e := range []string{"", "gzip", "br", "zstd"} {
		r.answer = func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			w.Header().Set("X-Echo", "got "+value)
			w.Header().Set("Set-Cookie", "k="+escaped(value))
			w.Header().Set("Trailer", "X-Last")
			body := []byte(text)
			if e != "" {
				w.Header().Set("Content-Encoding", e)
				body = squeezed(t, e, text)
			}
			_, _ = w.Write(body)
			w.Header().Set("X-Last", value)
		}
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, r.front.URL, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("X-Key", placeholder)
		req.Header.Set("Accept-Encoding", "gzip, br, zstd, nosuch")
		resp, err := (&http.Client{Transport: &http.Transport{DisableCompression: true}}).Do(req)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		all := string(got) + fmt.Sprint(resp.Header, resp.Trailer)
		inner := base64.RawStdEncoding.EncodeToString([]byte("xx" + value))[4:40]
		if strings.Contains(all, value) || strings.Contains(all, escaped(value)) || strings.Contains(all, inner) || !strings.Contains(all, placeholder) {
			t.Errorf("%q: the guest got %s", e, all)
		}
		if resp.Header.Get("Content-Encoding") != "" || !r.has(Scrubbed, "body") || !r.has(Scrubbed, "header x-echo") {
			t.Errorf("%q: %v, %v", e, resp.Header, r.events)
		}
		if want := "gzip, br, zstd"; r.got.Header.Get("Accept-Encoding") != want {
			t.Errorf("the server was told %q", r.got.Header.Get("Accept-Encoding"))
		}
	}
	r.host = "other.test"
	if _, got := r.do("GET", "/", nil); !strings.Contains(got, "you sent") {
		t.Errorf("another host's answer: %q", got)
	}
}

func TestTrailersOfAnyAnswerAreScrubbed(t *testing.T) {
	r := newRig(t, credentials(proto.GrantPlace{In: "header"}))
	r.answer = func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "image/png")
		w.Header().Set("Trailer", "X-Last")
		_, _ = io.WriteString(w, "picture")
		w.Header().Set("X-Last", value)
	}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, r.front.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("X-Key", placeholder)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if got := resp.Trailer.Get("X-Last"); err != nil || string(text) != "picture" || got != placeholder {
		t.Errorf("%q %v, trailer %q", text, err, got)
	}
}

func TestEventsOfAnAnswerAreNotDelayed(t *testing.T) {
	r := newRig(t, credentials(proto.GrantPlace{In: "header"}))
	next := make(chan string)
	r.answer = func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		_ = http.NewResponseController(w).Flush()
		for text := range next {
			_, _ = io.WriteString(w, text)
			_ = http.NewResponseController(w).Flush()
		}
	}
	resp, err := http.Get(r.front.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	// Each event must arrive whole before the next is sent; a value that is cut over two arrives with the second.
	for _, c := range [][2]string{
		{"data: {\"text\":\"hello s\"}\n\n", "data: {\"text\":\"hello s\"}\n\n"},
		{"data: plain text\n\n", "data: plain text\n\n"},
		{"data: " + value[:20], "data: "},
		{value[20:] + "\n\n", placeholder + "\n\n"},
	} {
		next <- c[0]
		got := make([]byte, len(c[1]))
		if _, err := io.ReadFull(resp.Body, got); err != nil || string(got) != c[1] {
			t.Errorf("%q arrived as %q, %v", c[0], got, err)
		}
	}
	close(next)
}

func TestMessagesOfAWebSocket(t *testing.T) {
	v := NewVault()
	if err := v.Set(credentials(proto.GrantPlace{In: "header"})); err != nil {
		t.Fatal(err)
	}
	m := NewModifiers(Config{Vault: v})
	open := func(host string) *flow.Flow {
		f := &flow.Flow{Host: host, Scheme: "wss"}
		req := httptest.NewRequest(http.MethodGet, "https://"+host+"/", nil)
		if err := m.Requests().ModifyRequest(req.WithContext(flow.With(t.Context(), f))); err != nil {
			t.Fatal(err)
		}
		return f
	}
	up := m.Socket(open("other.test"), true)
	if out, err := up.Push([]byte("hi "+placeholder[:20]), true); err != nil || len(out) != 23 {
		t.Errorf("the first message: %q, %v", out, err)
	}
	if _, err := up.Push([]byte(placeholder[20:]), true); err == nil {
		t.Error("a placeholder over two messages went out")
	}
	if _, err := up.Push([]byte("and on"), true); err == nil {
		t.Error("it went on after a refusal")
	}
	down := m.Socket(open("api.good.test"), false)
	a, _ := down.Push([]byte("x "+value[:9]), false)
	first := string(a)
	b, err := down.Push([]byte(value[9:]+" y"), true)
	if err != nil || first+string(b) != "x "+placeholder+" y" {
		t.Errorf("%q %q, %v", first, b, err)
	}
	if m.Socket(open("other.test"), false) != nil {
		t.Error("answers of other hosts are looked through")
	}
}

func TestWithoutAFlowNothingGoesOn(t *testing.T) {
	m := NewModifiers(Config{Vault: NewVault()})
	if m.Requests().ModifyRequest(httptest.NewRequest(http.MethodGet, "/", nil)) == nil || m.Answers().ModifyResponse(&http.Response{}) == nil {
		t.Error("a request without a flow was let through")
	}
}
