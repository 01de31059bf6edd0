package mitm

import (
	"fmt"
	"net/http"
	"testing"

	"capsem/core/ledger"
)

func TestRequestsOfAnyHTTPReachTheirHost(t *testing.T) {
	g := newRig(t, rules)
	hello := func(w http.ResponseWriter, r *http.Request) { fmt.Fprintf(w, "%s %s %s", r.Proto, r.Host, r.URL) }
	h1, h2, open := g.upstream(false, hello), g.upstream(true, hello), g.plain(hello)
	for _, c := range []struct {
		name, url, proto, kind string
		client                 *http.Client
	}{
		{"HTTP/1.1 over TLS", "https://a.open.test:" + h1, "HTTP/1.1", "https", g.client()},
		{"HTTP/1.1 to a host that speaks HTTP/2 too", "https://a.open.test:" + h2, "HTTP/1.1", "https", g.client()},
		{"HTTP/2", "https://a.open.test:" + h2, "HTTP/2.0", "h2", g.client(both)},
		{"HTTP/1.1 because the host speaks no other", "https://b.open.test:" + h1, "HTTP/1.1", "https", g.client(both)},
		{"HTTP/1.1 in the open", "http://b.open.test:" + open, "HTTP/1.1", "http", g.client()},
		{"HTTP/2 in the open", "http://b.open.test:" + open, "HTTP/2.0", "h2", g.client(prior)},
	} {
		t.Run(c.name, func(t *testing.T) {
			for i := range 3 {
				url := fmt.Sprintf("%s/x%%2fy?q=%d&;=%%", c.url, i)
				res, text := get(t, c.client, url)
				want := c.proto + " " + res.Request.URL.Host + " " + res.Request.URL.RequestURI()
				if res.StatusCode != http.StatusOK || text != want || res.Proto != c.proto {
					t.Errorf("%s: %s %q, not %q", res.Proto, res.Status, text, want)
				}
			}
			row := g.rows.one(t, "allowed", func(e ledger.NetEvent) bool { return e.Type == c.kind && e.Path == "/x%2fy" })
			if row.Decision != "allowed" || row.Rule != "open" || row.Status != 200 || row.Received == 0 || row.Remote == "" || row.Process.PID != 7 {
				t.Errorf("%+v", row)
			}
		})
	}
}

func TestARefusedHostAnswersSoThatAnAgentUnderstands(t *testing.T) {
	g := newRig(t, rules)
	for _, client := range []*http.Client{g.client(), g.client(both)} {
		res, text := get(t, client, "https://shut.test/secret")
		if res.StatusCode != http.StatusForbidden || res.Header.Get("X-Capsem-Rule") != "capsem:default" {
			t.Errorf("%s %v", res.Status, res.Header)
		}
		contains(t, text, `"rule": "capsem:default"`, "GET https://shut.test/secret", "capsem policy suggest")
	}
	row := g.rows.one(t, "denied", func(e ledger.NetEvent) bool { return e.Domain == "shut.test" })
	if row.Decision != "denied" || row.Status != 403 || row.Path != "/secret" || row.Remote != "" {
		t.Errorf("%+v", row)
	}
}
