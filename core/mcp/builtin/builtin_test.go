package builtin_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	sdk "github.com/modelcontextprotocol/go-sdk/mcp"

	"capsem/core/mcp/builtin"
	"capsem/core/mcp/peer"
	"capsem/core/proto"
)

// worker answers for a few pages, and notes what it was asked.
type worker struct {
	fetched   []string
	snapshots []proto.SnapshotRequest
}

func (w *worker) Call(_ context.Context, method string, params []byte) ([]byte, error) {
	if method == builtin.MethodSnapshot {
		var req proto.SnapshotRequest
		if err := peer.Unmarshal(params, &req); err != nil {
			return nil, err
		}
		w.snapshots = append(w.snapshots, req)
		return []byte(`{"snapshots":[]}`), nil
	}
	var req builtin.FetchRequest
	if err := peer.Unmarshal(params, &req); err != nil {
		return nil, err
	}
	w.fetched = append(w.fetched, req.Method+" "+req.URL)
	page := func(kind, body string) ([]byte, error) {
		return peer.Marshal(builtin.FetchResponse{Status: 200, Header: map[string][]string{"Content-Type": {kind}}, Body: []byte(body)})
	}
	to := func(url string) ([]byte, error) {
		return peer.Marshal(builtin.FetchResponse{Status: 302, Header: map[string][]string{"Location": {url}}})
	}
	switch req.URL {
	case "https://a.test/":
		return page("text/html; charset=utf-8", `<html><head><title>t</title></head><body><h1>Head</h1><p>some <b>bold</b> <a href="/x">link</a></p><script>bad()</script></body></html>`)
	case "https://a.test/text":
		return page("text/plain", strings.Repeat("line é\n", 2000))
	case "https://a.test/deep":
		return page("text/html", strings.Repeat("<div>", 450))
	case "https://a.test/image":
		return page("image/png", "\x89PNG\x00")
	case "https://a.test/inside":
		return to("http://169.254.169.254/latest")
	case "https://a.test/loop":
		return to("/loop")
	case "https://a.test/file":
		return to("file:///etc/passwd")
	}
	return nil, errors.New("refused by the owner's policy")
}

func client(t *testing.T, w *worker, sessionDir string) *sdk.ClientSession {
	t.Helper()
	here, there := sdk.NewInMemoryTransports()
	s, err := builtin.New(w, sessionDir).Connect(t.Context(), there, nil)
	if err != nil {
		t.Fatal(err)
	}
	c, err := sdk.NewClient(&sdk.Implementation{Name: "test", Version: "1"}, nil).Connect(t.Context(), here, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close(); _ = s.Wait() })
	return c
}

func call(t *testing.T, c *sdk.ClientSession, name string, in map[string]any) (string, bool) {
	t.Helper()
	res, err := c.CallTool(t.Context(), &sdk.CallToolParams{Name: name, Arguments: in})
	if err != nil {
		t.Fatal(err)
	}
	text, ok := res.Content[0].(*sdk.TextContent)
	if !ok {
		t.Fatalf("content is %T", res.Content[0])
	}
	return text.Text, !res.IsError
}

func TestPagesAreMadeReadable(t *testing.T) {
	c := client(t, &worker{}, "")
	for _, one := range []struct {
		in   map[string]any
		want []string
		not  string
	}{
		{map[string]any{"url": "https://a.test/"}, []string{"URL: https://a.test/\nDomain: a.test\n", "# Head", "**bold**", "[link](https://a.test/x)"}, "bad()"},
		{map[string]any{"url": "https://a.test/", "format": "content"}, []string{"Head\n", "bold\n"}, "bad()"},
		{map[string]any{"url": "https://a.test/", "format": "raw"}, []string{"<h1>Head</h1>", "bad()"}, "# Head"},
		{map[string]any{"url": "https://a.test/text"}, []string{"Showing: 0-5000\n", "go on with start_index 5000"}, "\ufffd"},
		{map[string]any{"url": "https://a.test/text", "start_index": 6, "max_length": 3}, []string{"Showing: 7-9\n"}, "\ufffd"},
		{map[string]any{"url": "https://a.test/text", "start_index": 1 << 40}, []string{"Remaining: 0\n"}, "line"},
		{map[string]any{"url": "https://a.test/image", "format": "raw"}, []string{"PNG"}, "image/png"},
	} {
		got, ok := call(t, c, "fetch_http", one.in)
		for _, want := range one.want {
			if !ok || !strings.Contains(got, want) {
				t.Errorf("%v: no %q in %.300q", one.in, want, got)
			}
		}
		if strings.Contains(got, one.not) {
			t.Errorf("%v: %q in %.300q", one.in, one.not, got)
		}
	}
}

func TestWhatCannotBeFetchedIsAnErrorOfTheTool(t *testing.T) {
	w := &worker{}
	c := client(t, w, "")
	for url, want := range map[string]string{
		"https://a.test/image": "image/png", "https://a.test/deep": "too intricate", "https://a.test/loop": "redirects", "https://a.test/file": "no http or https URL",
		"https://a.test/inside": "refused", "file:///etc/passwd": "no http or https URL", "https://user:pw@a.test/": "user name", "nonsense": "no http or https URL",
	} {
		if got, ok := call(t, c, "fetch_http", map[string]any{"url": url}); ok || !strings.Contains(got, want) {
			t.Errorf("%s: %v, %.200q", url, ok, got)
		}
	}
	// A redirect is judged as what it leads to.
	if !slices.Contains(w.fetched, "GET http://169.254.169.254/latest") {
		t.Errorf("the worker was asked for %q", w.fetched)
	}
}

func TestGrepAndHeaders(t *testing.T) {
	c := client(t, &worker{}, "")
	got, ok := call(t, c, "grep_http", map[string]any{"url": "https://a.test/", "pattern": "^(Head|bold)$", "context_lines": 0})
	if !ok || !strings.Contains(got, "Matches: 2\n") || !strings.Contains(got, ">1: Head") || strings.Contains(got, "link") {
		t.Errorf("%q", got)
	}
	if got, ok := call(t, c, "grep_http", map[string]any{"url": "https://a.test/", "pattern": "("}); ok {
		t.Errorf("a pattern that is none: %q", got)
	}
	if got, ok := call(t, c, "grep_http", map[string]any{"url": "https://a.test/text", "pattern": "line", "max_matches": 5}); !ok || !strings.Contains(got, "Matches: 5\n") {
		t.Errorf("%.200q", got)
	}
	if got, ok := call(t, c, "http_headers", map[string]any{"url": "https://a.test/"}); !ok || !strings.Contains(got, "Status: 200 OK") || !strings.Contains(got, "Content-Type: text/html") {
		t.Errorf("%q", got)
	}
}

func TestSnapshotsOnlyWhereThereIsAWorkspace(t *testing.T) {
	names := func(c *sdk.ClientSession) (out []string) {
		for tool, err := range c.Tools(t.Context(), nil) {
			if err != nil {
				t.Fatal(err)
			}
			if tool.Annotations == nil {
				t.Errorf("%s has no annotations", tool.Name)
			}
			out = append(out, tool.Name)
		}
		return out
	}
	if got := fmt.Sprint(names(client(t, &worker{}, ""))); got != "[echo fetch_http grep_http http_headers]" {
		t.Error(got)
	}
	w := &worker{}
	c := client(t, w, "/somewhere")
	if got := names(c); len(got) != 11 || !slices.Contains(got, "snapshots_compact") {
		t.Error(got)
	}
	call(t, c, "snapshots_revert", map[string]any{"path": "a", "checkpoint": "cp-3"})
	call(t, c, "snapshots_compact", map[string]any{"checkpoints": []string{"cp-1", "cp-2"}})
	if len(w.snapshots) != 2 || string(w.snapshots[0].Path) != "a" || w.snapshots[0].Checkpoint != "cp-3" || !strings.HasPrefix(w.snapshots[1].Name, "compacted_") {
		t.Errorf("%+v", w.snapshots)
	}
	if got, ok := call(t, c, "snapshots_list", map[string]any{"format": "json"}); !ok || got != `{"snapshots":[]}` {
		t.Errorf("%q", got)
	}
}
