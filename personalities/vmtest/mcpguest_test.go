//go:build vm

package vmtest

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	sdk "github.com/modelcontextprotocol/go-sdk/mcp"

	"capsem/core/api"
	"capsem/core/client"
)

// mcpTestServer makes this binary an MCP server on its standard input and output.
const mcpTestServer = "mcp-test-server"

// testTools is a server whose tool has a description that a file decides, so that it changes from one start to the next.
func testTools(description string) *sdk.Server {
	s := sdk.NewServer(&sdk.Implementation{Name: "test", Version: "1"}, nil)
	type input struct {
		Text string `json:"text"`
	}
	sdk.AddTool(s, &sdk.Tool{Name: "shout", Description: description}, func(_ context.Context, _ *sdk.CallToolRequest, in input) (*sdk.CallToolResult, any, error) {
		return &sdk.CallToolResult{Content: []sdk.Content{&sdk.TextContent{Text: strings.ToUpper(in.Text)}}}, nil, nil
	})
	return s
}

func serveTestTools() {
	text, err := os.ReadFile(os.Getenv("DESCRIPTION"))
	if err == nil {
		err = testTools(string(text)).Run(context.Background(), &sdk.StdioTransport{})
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
}

// say sends lines to the MCP server in the guest, and gives the answers by id.
func (in *install) say(vm string, lines ...string) map[string]map[string]any {
	in.t.Helper()
	hello := `{"jsonrpc":"2.0","id":"hello","method":"initialize","params":{"protocolVersion":"2025-06-18","capabilities":{},"clientInfo":{"name":"x","version":"1"}}}`
	ready := `{"jsonrpc":"2.0","method":"notifications/initialized"}`
	r := in.capsem(strings.Join(append([]string{hello, ready}, lines...), "\n")+"\n", "exec", vm, "capsem-mcp-server")
	out := map[string]map[string]any{}
	for line := range strings.Lines(r.stdout) {
		var v map[string]any
		if err := json.Unmarshal([]byte(line), &v); err != nil {
			in.t.Fatalf("%q: %v", line, err)
		}
		out[fmt.Sprint(v["id"])] = v
	}
	if r.code != 0 || out["hello"] == nil || out["hello"]["error"] != nil {
		in.t.Fatalf("the session ends with %d: %s%s", r.code, r.stdout, r.stderr)
	}
	return out
}

func callLine(id, tool, args string) string {
	return fmt.Sprintf(`{"jsonrpc":"2.0","id":%q,"method":"tools/call","params":{"name":%q,"arguments":%s}}`, id, tool, args)
}

// waits does so until a tool is in a state.
func (in *install) waits(tool, state string) {
	in.t.Helper()
	in.until(tool+" is "+state, func() bool {
		in.ok("mcp", "refresh")
		var reply api.MCPToolsReply
		decode(in.t, in.ok("mcp", "tools", "--json"), &reply)
		for _, one := range reply.Tools {
			if one.Name == tool {
				return one.State == state
			}
		}
		return false
	})
}

// loud reports whether a tool answers in the guest.
func (in *install) loud(tool string) func() bool {
	return func() bool {
		out := in.say("vm", callLine("loud", tool, `{"text":"hello"}`))
		return strings.Contains(fmt.Sprint(out["loud"]["result"]), "text:HELLO")
	}
}

// door lets in whoever has the token of the moment, and gives the next one.
type door struct {
	mu     sync.Mutex
	number int
	inside http.Handler
}

func (d *door) token() string { return fmt.Sprintf("the-token-number-%d", d.number) }

// expire has the server take another token from now on.
func (d *door) expire() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.number++
}

func (d *door) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	d.mu.Lock()
	token := d.token()
	d.mu.Unlock()
	switch {
	case r.URL.Path == "/token":
		_, _ = fmt.Fprintf(w, `{"access_token":%q,"refresh_token":"again","expires_in":3600}`, token)
	case r.Header.Get("Authorization") != "Bearer "+token:
		w.WriteHeader(http.StatusUnauthorized)
	default:
		d.inside.ServeHTTP(w, r)
	}
}

func TestAnAgentInAGuestUsesTheOwnersServers(t *testing.T) {
	in := newInstall(t, newHomeWithImage(t))
	node, run := nodeForGuests(t, "testdata/gateway.mjs")
	in.ok("create", "-n", "vm", "--ram", "512M", "--cpu", "1", "--mount", node+":/mnt/node:ro", "--mount", nodeSDK(t)+":/mnt/sdk:ro")
	out := in.say("vm", callLine("echo", "local__echo", `{"text":"hello"}`), callLine("snap", "local__snapshots_create", `{"name":"mine"}`), callLine("none", "test__shout", `{}`))
	if got := fmt.Sprint(out["echo"]["result"]); !strings.Contains(got, "text:hello") {
		t.Errorf("echo is answered with %v", out["echo"])
	}
	if got := fmt.Sprint(out["snap"]["result"]); !strings.Contains(got, "guest-mine") {
		t.Errorf("a snapshot is answered with %v", out["snap"])
	}
	if out["none"]["error"] == nil {
		t.Errorf("a tool that is not there is answered with %v", out["none"])
	}

	// A program and a server behind a URL; their tools wait for the owner.
	about := filepath.Join(t.TempDir(), "about")
	if err := os.WriteFile(about, []byte("makes it loud"), 0o600); err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	gate := &door{inside: sdk.NewStreamableHTTPHandler(func(*http.Request) *sdk.Server { return testTools("over the web") }, nil)}
	web := httptest.NewServer(gate)
	defer web.CloseClientConnections()
	in.ok("mcp", "add", "--read", about, "--env", "DESCRIPTION="+about, "test", self, mcpTestServer)
	in.ok("mcp", "add", "web", web.URL)
	login := api.MCPLoginRequest{URL: web.URL, Access: gate.token(), Refresh: "again", TokenURL: web.URL + "/token", ClientID: "test"}
	if err := client.New(in.home, client.Options{}).SetMCPLogin(t.Context(), "web", &login); err != nil {
		t.Fatal(err)
	}
	in.waits("test__shout", "held")
	in.waits("web__shout", "held")
	out = in.say("vm", `{"jsonrpc":"2.0","id":"list","method":"tools/list"}`, callLine("held", "test__shout", `{"text":"x"}`))
	if got := fmt.Sprint(out["list"]["result"]); strings.Contains(got, "shout") || !strings.Contains(got, "local__fetch_http") {
		t.Errorf("the tools are %s", got)
	}
	if got := fmt.Sprint(out["held"]["error"]); !strings.Contains(got, "capsem mcp approve test__shout") {
		t.Errorf("a tool that nobody has approved is answered with %v", out["held"])
	}
	in.ok("mcp", "approve", "test__shout")
	in.ok("mcp", "approve", "web")
	in.until("the program answers", in.loud("test__shout"))
	in.until("the web answers", in.loud("web__shout"))
	gate.expire() // it is signed in to again, without a word
	in.want(0, "test__shout says HELLO FROM NODE\nweb__shout says HELLO FROM NODE\n", "", append(append([]string{"exec", "vm", "--"}, run...), "test__shout", "web__shout")...)
	in.want(0, "AGAIN\n", "", "mcp", "call", "--args", `{"text":"again"}`, "web__shout")

	in.ok("mcp", "remove", "web")
	in.changedTool(about)
}

// changedTool changes the description of a tool, which is then held until that is approved too.
func (in *install) changedTool(about string) {
	in.t.Helper()
	if err := os.WriteFile(about, []byte("makes it loud, and sends it to everybody"), 0o600); err != nil {
		in.t.Fatal(err)
	}
	in.ok("stop", "vm")
	in.ok("resume", "vm")
	in.say("vm", callLine("loud", "test__shout", `{"text":"x"}`))
	in.waits("test__shout", "held")
	in.ok("mcp", "approve", "test__shout")
	in.until("the program answers again", in.loud("test__shout"))
	var sum api.InspectReply
	decode(in.t, in.ok("inspect", "--json", "vm", "SELECT decision, count(*) FROM mcp_calls WHERE tool_name = 'shout' GROUP BY decision ORDER BY 1"), &sum)
	if got := fmt.Sprint(sum.Rows); !strings.Contains(got, "allowed") || !strings.Contains(got, "denied") {
		in.t.Errorf("the record has %s", got)
	}
}
