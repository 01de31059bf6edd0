package mitm

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"capsem/core/ledger"
)

// goesOn is a host whose answers end only with their connection: /silent has none at all.
func goesOn(w http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body)
	if r.URL.Path == "/silent" {
		<-r.Context().Done()
		return
	}
	w.Header().Set("Content-Type", "text/event-stream")
	for n := 0; r.Context().Err() == nil; n++ {
		if _, err := fmt.Fprintf(w, "data: %d\n\n", n); err != nil {
			return
		}
		_ = http.NewResponseController(w).Flush()
		select {
		case <-r.Context().Done():
		case <-time.After(2 * time.Millisecond):
		}
	}
}

func TestARunningAnswerIsCutWhenThePolicyNoLongerAllowsIt(t *testing.T) {
	elsewhere := strings.Replace(rules, "127.0.0.0/8", "10.0.0.0/8", 1)
	for name, c := range map[string]struct {
		h2     bool
		reload string
		rule   string
	}{
		"HTTP/1, denied":             {false, "", "capsem:default"},
		"HTTP/2, denied":             {true, "", "capsem:default"},
		"HTTP/1, address shut again": {false, elsewhere, "capsem:private-address"},
	} {
		t.Run(name, func(t *testing.T) {
			g := newRig(t, rules)
			port := g.upstream(c.h2, goesOn)
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://a.open.test:"+port+"/events", nil)
			if err != nil {
				t.Fatal(err)
			}
			client := g.client()
			if c.h2 {
				client = g.client(both)
			}
			res, err := client.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer res.Body.Close()
			some := make([]byte, 1<<10)
			for n := 0; n < 40; { // it goes on under a policy that stays
				more, err := res.Body.Read(some)
				if n += more; err != nil {
					t.Fatal(err)
				}
			}
			g.reload(c.reload)
			if n, err := io.Copy(io.Discard, res.Body); err == nil || ctx.Err() != nil {
				t.Errorf("after the reload: %d bytes more, %v", n, err)
			}
			row := g.rows.one(t, "events", func(e ledger.NetEvent) bool { return e.Path == "/events" })
			if row.Decision != "denied" || row.Rule != c.rule || row.Status != 200 || row.Received == 0 || row.Error != errCut.Error() {
				t.Errorf("%+v", row)
			}
		})
	}
}

func TestARequestWithoutAnAnswerIsRefusedWhenThePolicyNoLongerAllowsIt(t *testing.T) {
	for _, h2 := range []bool{false, true} {
		g := newRig(t, rules)
		reached := make(chan struct{})
		port := g.upstream(h2, func(w http.ResponseWriter, r *http.Request) { close(reached); goesOn(w, r) })
		go func() {
			<-reached
			g.judge.Reload(compiled(t, ""))
		}()
		client := g.client()
		if h2 {
			client = g.client(both)
		}
		res, text := get(t, client, "https://a.open.test:"+port+"/silent")
		if res.StatusCode != http.StatusForbidden || !strings.Contains(text, "capsem:default") {
			t.Errorf("h2=%v: %s %q", h2, res.Status, text)
		}
		row := g.rows.one(t, "silent", func(e ledger.NetEvent) bool { return e.Path == "/silent" })
		if row.Decision != "denied" || row.Status != http.StatusForbidden || row.Error != errCut.Error() {
			t.Errorf("%+v", row)
		}
	}
}

func TestASlowClientIsCutToo(t *testing.T) {
	for _, h2 := range []bool{false, true} {
		g := newRig(t, rules)
		port := g.upstream(h2, func(w http.ResponseWriter, r *http.Request) {
			for r.Context().Err() == nil {
				if _, err := w.Write(make([]byte, 64<<10)); err != nil {
					return
				}
			}
		})
		client := g.client()
		if h2 {
			client = g.client(both)
		}
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://a.open.test:"+port+"/much", nil)
		if err != nil {
			t.Fatal(err)
		}
		res, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = res.Body.Close() }) // nothing of it is read
		g.reload("")
		row := g.rows.one(t, "much", func(e ledger.NetEvent) bool { return e.Path == "/much" })
		if row.Decision != "denied" || row.Error != errCut.Error() {
			t.Errorf("h2=%v: %+v", h2, row)
		}
	}
}

func TestAHeldRequestEndsWithTheProxy(t *testing.T) {
	g := newRig(t, ask)
	port := g.plain(func(http.ResponseWriter, *http.Request) { t.Error("reached") })
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	states, err := g.board.Watch(ctx)
	if err != nil {
		t.Fatal(err)
	}
	c, err := g.connect(ctx, "ask.test:"+port)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	fmt.Fprintf(c, "POST /held HTTP/1.1\r\nHost: ask.test:%s\r\nContent-Length: 5\r\n\r\nhe", port)
	for st := range states {
		if len(st.Pending) > 0 {
			break
		}
	}
	began := time.Now()
	g.s.Close()
	if took := time.Since(began); took > patience/2 {
		t.Errorf("closing took %s", took)
	}
	if rows := g.rows.snapshot(); len(rows) != 1 || rows[0].Path != "/held" || rows[0].AskID == "" {
		t.Errorf("%+v", rows)
	}
}

// TestNoRowComesAfterTheEnd: what is under way when the proxy is closed is recorded before Close returns, since the record is closed next.
func TestNoRowComesAfterTheEnd(t *testing.T) {
	for _, h2 := range []bool{false, true} {
		for range 5 {
			g := newRig(t, rules)
			port := g.upstream(h2, goesOn)
			client := g.client()
			if h2 {
				client = g.client(both)
			}
			const requests = 8
			for range requests {
				req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://a.open.test:"+port+"/events", nil)
				if err != nil {
					t.Fatal(err)
				}
				res, err := client.Do(req)
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { _ = res.Body.Close() })
			}
			g.s.Close()
			if n := len(g.rows.snapshot()); n != requests {
				t.Errorf("h2=%v: %d rows of %d requests when it was closed", h2, n, requests)
			}
		}
	}
}
