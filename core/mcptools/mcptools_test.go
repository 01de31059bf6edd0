package mcptools

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/modelcontextprotocol/go-sdk/mcp"

	"capsem/core/client"
	"capsem/core/fault"
	"capsem/core/paths"
	"capsem/core/safesocket"
)

func TestASpoolKeepsTheBeginningAndCountsAll(t *testing.T) {
	var s spool
	chunk := bytes.Repeat([]byte("0123456789abcdef"), 4<<10) // 64 KiB
	for range (maxKept + 1<<20) / len(chunk) {
		if n, err := s.Write(chunk); n != len(chunk) || err != nil {
			t.Fatal(n, err)
		}
	}
	kept, total := s.sizes()
	if kept != maxKept || total != maxKept+1<<20 {
		t.Errorf("kept %d of %d", kept, total)
	}
	for _, offset := range []int64{0, 1, inMemory - 5, inMemory, inMemory + 7, maxKept - 10} {
		got, err := s.part(offset, 32)
		want := bytes.Repeat([]byte("0123456789abcdef"), 4)[offset%16:][:min(32, maxKept-offset)]
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("at %d: %q, %v; want %q", offset, got, err, want)
		}
	}
	if got, err := s.part(maxKept, 10); got != nil || err != nil {
		t.Errorf("at the end: %q, %v", got, err)
	}
	text, cut, err := s.preview(100, "look there")
	if err != nil || !cut || !strings.HasPrefix(text, "0123") || !strings.HasSuffix(text, "abcdef") || !strings.Contains(text, "1048576 more were not kept; look there") {
		t.Errorf("%v %v %q", cut, err, text)
	}
	s.close()
	if got, err := s.part(inMemory+5, 10); len(got) != 0 || err != nil {
		t.Errorf("after its end: %q, %v", got, err)
	}
}

func TestAShortOutputIsShownWhole(t *testing.T) {
	var s spool
	_, _ = s.Write([]byte("ab\xffc"))
	if text, cut, err := s.preview(4, ""); text != "ab\uFFFDc" || cut || err != nil {
		t.Errorf("%q %v %v", text, cut, err)
	}
	if text, cut, err := s.preview(2, "p"); !strings.HasPrefix(text, "a\n") || !cut || err != nil || !strings.HasSuffix(text, "c") {
		t.Errorf("%q %v %v", text, cut, err)
	}
}

func TestPartsJoinToTheWhole(t *testing.T) {
	for _, whole := range []string{"", "plain", strings.Repeat("é€😀", 50), "a\x00b", "\xff\xfe", strings.Repeat("x", 100) + "\xf0\x9f"} {
		for limit := 4; limit < 9; limit++ {
			var got strings.Builder
			for offset := int64(0); ; {
				data := whole[offset:min(int(offset)+limit, len(whole))]
				p := partOf([]byte(data), offset, int64(len(whole)), "")
				text := p.Content
				if p.Encoding == "base64" {
					raw, err := base64.StdEncoding.DecodeString(text)
					if err != nil {
						t.Fatal(err)
					}
					text = string(raw)
				} else if !utf8.ValidString(text) {
					t.Fatalf("%q is no text", text)
				}
				got.WriteString(text)
				if p.Next == 0 {
					break
				}
				if p.Next <= offset {
					t.Fatalf("%q in %d: no way on from %d", whole, limit, offset)
				}
				offset = p.Next
			}
			if got.String() != whole {
				t.Errorf("%q in parts of %d: %q", whole, limit, got.String())
			}
		}
	}
}

func TestLinesOfALogArePicked(t *testing.T) {
	text := strings.Repeat("info: fine\n", 10_000) + "ERROR: one\nerror: two\n"
	for _, c := range []struct {
		p       logParams
		matched int
		lines   int
		cut     bool
	}{
		{logParams{Grep: "(?i)error"}, 2, 2, false},
		{logParams{Grep: "^error"}, 1, 1, false},
		{logParams{Tail: 3}, 10_002, 3, false},
		{logParams{}, 10_002, 5957, true},
		{logParams{Grep: "none"}, 0, 0, false},
	} {
		got, err := c.p.pick(text)
		if err != nil || got.Matched != c.matched || got.Lines != c.lines || got.Truncated != c.cut || len(got.Logs) > maxLog {
			t.Errorf("%+v: %d matched, %d lines, %v, %v", c.p, got.Matched, got.Lines, got.Truncated, err)
		}
	}
	if got, err := (logParams{}).pick(strings.Repeat("x", 2*maxLog)); err != nil || len(got.Logs) != maxLog || !got.Truncated {
		t.Errorf("one long line: %d, %v", len(got.Logs), err)
	}
	for _, p := range []logParams{{Grep: "("}, {Tail: -1}, {Grep: strings.Repeat("a", maxPattern+1)}} {
		if _, err := p.pick(text); err == nil {
			t.Errorf("%.20s was taken", p.Grep)
		}
	}
}

func TestTheEndOfAnOutputIsItsLastLine(t *testing.T) {
	for text, want := range map[string]string{
		"a\nb\n": "b", "a": "a", "": "", "\n\n": "", "10%\r20%\r": "20%", strings.Repeat("y", 5000): strings.Repeat("y", 200), "é\xff": "é\uFFFD",
	} {
		if got := lastLine([]byte(text)); got != want {
			t.Errorf("%.20q: %.30q", text, got)
		}
	}
}

func TestFilesHaveURIsThatNameThem(t *testing.T) {
	for name, want := range map[string]string{
		"a/b c.txt": "a/b c.txt", "/root/x": "x", "/etc/passwd": "/etc/passwd", "//etc//x": "/etc//x", "50%": "50%", "ü?#": "ü?#",
	} {
		uri := fileURI("dev", name)
		p, err := parseURI(uri)
		if err != nil || p.path != want || p.id != "dev" {
			t.Errorf("%s is %s: %+v, %v", name, uri, p, err)
		}
	}
}

// FuzzURI parses anything; what is taken names one thing without a slash or NUL in its id.
func FuzzURI(f *testing.F) {
	for _, uri := range []string{"capsem://vms", "capsem://vm/a/file/b%20c", "capsem://vm/%2F/info", "capsem://output/o1/stdout", "capsem://service/log", "x"} {
		f.Add(uri)
	}
	f.Fuzz(func(t *testing.T, uri string) {
		p, err := parseURI(uri)
		if err == nil && (strings.ContainsAny(p.id, "/\x00") || (p.kind == "vm" && p.id == "")) {
			t.Fatalf("%q is %+v", uri, p)
		}
		if err != nil && !fault.Is(err, fault.NotFound) {
			t.Fatal(err)
		}
	})
}

// inProcess is a server and its client on a pipe; the service only says its version.
func inProcess(t *testing.T, gateway Gateway, more func(*Server)) *mcp.ClientSession {
	t.Helper()
	dir, err := os.MkdirTemp("", "mt") // sockets need a short path
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	home := paths.Home(dir)
	if err := os.MkdirAll(home.Run(), 0o700); err != nil {
		t.Fatal(err)
	}
	l, err := safesocket.Listen(t.Context(), home.ServiceSocket())
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "{}") })}
	go func() { _ = server.Serve(l) }()
	t.Cleanup(func() { _ = server.Close() })
	s, err := New(Options{Home: home, Client: client.New(home, client.Options{}), Gateway: gateway, UserHome: dir, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	if more != nil {
		more(s)
	}
	ours, theirs := mcp.NewInMemoryTransports()
	over := make(chan error, 1)
	go func() { over <- s.Run(context.Background(), ours) }()
	session, err := mcp.NewClient(&mcp.Implementation{Name: "t", Version: "1"}, nil).Connect(t.Context(), theirs, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = session.Close()
		if err := <-over; err != nil {
			t.Error(err)
		}
	})
	if err := os.MkdirAll(filepath.Join(dir, ".cursor"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, ".cursor", "mcp.json"), []byte(`{"mcpServers": {"mine": {"command": "x"}, "known": {"command": "x"}}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	return session
}

func TestAnAnswerThatIsTooLargeIsKeptAndPointedTo(t *testing.T) {
	type big struct {
		Text string `json:"text"`
	}
	session := inProcess(t, nil, func(s *Server) {
		add(s, tool{name: "big", about: "big"}, func(context.Context, *call, nothing) (big, error) { return big{strings.Repeat("x", maxAnswer)}, nil })
	})
	res, err := session.CallTool(t.Context(), &mcp.CallToolParams{Name: "big"})
	if err != nil || !res.IsError || !strings.Contains(res.Content[0].(*mcp.TextContent).Text, `capsem_read_output with output "o1"`) {
		t.Fatalf("%v %v", res, err)
	}
	res, err = session.CallTool(t.Context(), &mcp.CallToolParams{Name: "capsem_read_output", Arguments: map[string]any{"output": "o1", "limit": 100}})
	if err != nil || res.IsError || !strings.HasPrefix(res.StructuredContent.(map[string]any)["content"].(string), `{"text":"xxx`) {
		t.Errorf("%v %v", res, err)
	}
}

// gateway is two servers and a tool that echoes.
type gateway struct{}

func (gateway) Servers(context.Context) ([]MCPServer, error) {
	return []MCPServer{{Name: "known", Source: "user", Transport: "stdio", State: "connected", Tools: 1}}, nil
}

func (gateway) Tools(_ context.Context, server string) ([]MCPTool, error) {
	return []MCPTool{{Name: "known__echo", Server: "known" + server, InputSchema: map[string]any{"type": "object"}, Approved: true}}, nil
}

func (gateway) Call(_ context.Context, _, name string, raw json.RawMessage) (*mcp.CallToolResult, error) {
	var args map[string]json.RawMessage
	if len(raw) > 0 && json.Unmarshal(raw, &args) != nil {
		return nil, fault.New(fault.Invalid, "the arguments are no object")
	}
	if name != "known__echo" {
		return nil, fault.New(fault.Forbidden, "the policy says no to %s", name)
	}
	return &mcp.CallToolResult{Content: []mcp.Content{&mcp.TextContent{Text: string(args["x"])}}, StructuredContent: args}, nil
}

func TestTheOwnersServersAreListedAndCalled(t *testing.T) {
	session := inProcess(t, gateway{}, nil)
	call := func(name string, args map[string]any) (string, bool) {
		res, err := session.CallTool(t.Context(), &mcp.CallToolParams{Name: name, Arguments: args})
		if err != nil {
			t.Fatal(err)
		}
		return res.Content[0].(*mcp.TextContent).Text, res.IsError
	}
	if got, _ := call("capsem_mcp_servers", nil); strings.Count(got, `"known"`) != 1 || !strings.Contains(got, `"connected"`) || !strings.Contains(got, `"mine"`) || !strings.Contains(got, `"found"`) {
		t.Errorf("servers: %s", got)
	}
	if got, _ := call("capsem_mcp_tools", nil); !strings.Contains(got, "known__echo") {
		t.Errorf("tools: %s", got)
	}
	if got, failed := call("capsem_mcp_call", map[string]any{"name": "known__echo", "arguments": map[string]any{"x": int64(9007199254740993)}}); failed || !strings.Contains(got, `"text":"9007199254740993"`) {
		t.Errorf("call: %s", got)
	}
	if got, failed := call("capsem_mcp_call", map[string]any{"name": "other"}); !failed || !strings.Contains(got, "says no") {
		t.Errorf("refused: %s", got)
	}
}
