package host_test

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	sdk "github.com/modelcontextprotocol/go-sdk/mcp"

	"capsem/core/mcp"
)

func TestAnAnswerNestedWithoutEndCostsOneCall(t *testing.T) {
	s := sdk.NewServer(&sdk.Implementation{Name: "web", Version: "1"}, nil)
	sdk.AddTool(s, &sdk.Tool{Name: "act"}, func(context.Context, *sdk.CallToolRequest, args) (*sdk.CallToolResult, any, error) {
		return &sdk.CallToolResult{Content: []sdk.Content{&sdk.TextContent{Text: "done"}}}, nil, nil
	})
	handler := sdk.NewStreamableHTTPHandler(func(*http.Request) *sdk.Server { return s }, nil)
	for _, kind := range []string{"application/json", "text/event-stream"} {
		t.Run(kind, func(t *testing.T) {
			web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				body, err := io.ReadAll(r.Body)
				if err != nil || !strings.Contains(string(body), `"deep"`) {
					r.Body = io.NopCloser(strings.NewReader(string(body)))
					handler.ServeHTTP(w, r)
					return
				}
				_, id, _ := strings.Cut(string(body), `"id":`)
				id = id[:strings.IndexAny(id, ",}")]
				text := `{"jsonrpc":"2.0","id":` + id + `,"result":{"content":[],"structuredContent":{"a":` + strings.Repeat("[", 5<<20) + strings.Repeat("]", 5<<20) + `}}}`
				w.Header().Set("Content-Type", kind)
				if kind != "application/json" {
					text = "event: message\ndata: " + text + "\n\n"
				}
				_, _ = io.WriteString(w, text)
			}))
			defer web.CloseClientConnections()
			r := newRig(t, "", mcp.Definition{Name: "web", URL: web.URL})
			r.up("web", true)
			if _, err := r.pins.Approve("web", ""); err != nil {
				t.Fatal(err)
			}
			c := r.client(nil)
			eventually(t, func() bool { return slices.Contains(names(t, c), "web__act") })
			before := r.pidOf(t, "capsem-mcp-aggregator")
			if _, err := call(t, c, "web__act", args{"what": "deep"}); err == nil {
				t.Error("an answer nested without end was handed on")
			}
			eventually(t, func() bool { got, err := call(t, c, "web__act", nil); return err == nil && got == "done" })
			if now := r.pidOf(t, "capsem-mcp-aggregator"); now != before {
				t.Error("the aggregator did not survive it")
			}
		})
	}
}
