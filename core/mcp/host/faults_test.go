package host_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/modelcontextprotocol/go-sdk/jsonrpc"
	sdk "github.com/modelcontextprotocol/go-sdk/mcp"

	"capsem/core/mcp"
	"capsem/core/mcp/peer"
	"capsem/core/mcp/sandbox"
)

// withServer is a rig with one program, whose tools are approved, and a client.
func withServer(t *testing.T, rules string, change func(*mcp.Definition)) (*rig, *sdk.ClientSession) {
	t.Helper()
	if err := sandbox.Supported(); err != nil {
		t.Fatal(err)
	}
	d := program(t, "test", "all")
	if change != nil {
		change(&d)
	}
	r := newRig(t, rules, d)
	r.up("test", true)
	if _, err := r.pins.Approve("test", ""); err != nil {
		t.Fatal(err)
	}
	s := r.client(nil)
	eventually(t, func() bool { return slices.Contains(names(t, s), "test__echo") })
	return r, s
}

func call(t *testing.T, s *sdk.ClientSession, tool string, in args) (string, error) {
	t.Helper()
	res, err := s.CallTool(t.Context(), &sdk.CallToolParams{Name: tool, Arguments: in})
	if err != nil {
		return "", err
	}
	text := textOf(t, res)
	if res.IsError {
		return "", errors.New(text)
	}
	return text, nil
}

func codeOf(err error) int64 {
	if e, ok := errors.AsType[*jsonrpc.Error](err); ok {
		return e.Code
	}
	return 0
}

func TestFaultsOfAServerCostOneCall(t *testing.T) {
	for _, c := range []struct {
		tool string
		code int64
	}{
		{"hang", peer.CodeTimeout},
		{"exit", peer.CodeLost},
		{"large", peer.CodeTooLarge},
		{"huge", peer.CodeLost},
		{"garbage", peer.CodeLost},
		{"wrongid", 0},
		{"flood", 0},
	} {
		t.Run(c.tool, func(t *testing.T) {
			r, s := withServer(t, "", func(d *mcp.Definition) {
				if d.Limits.Timeout = 2 * time.Minute; c.tool == "hang" {
					d.Limits.Timeout = 2 * time.Second
				}
			})
			other := r.client(nil)
			_, err := call(t, s, "test__"+c.tool, nil)
			if codeOf(err) != c.code || (err == nil) != (c.code == 0) {
				t.Errorf("the call ends with %v, not with code %d", err, c.code)
			}
			// The same server answers again, a moment later if it has to be started anew; others never stopped.
			if got, err := call(t, other, "local__echo", args{"text": "still here"}); err != nil || got != "still here" {
				t.Errorf("another server says %q, %v", got, err)
			}
			eventually(t, func() bool {
				got, err := call(t, s, "test__echo", args{"a": 1})
				return err == nil && got == `{"a":1}`
			})
		})
	}
}

func TestSlowToolBlocksNobody(t *testing.T) {
	_, s := withServer(t, "", nil)
	slow := make(chan error, 1)
	go func() {
		_, err := s.CallTool(t.Context(), &sdk.CallToolParams{Name: "test__sleep"})
		slow <- err
	}()
	for range 20 {
		if _, err := call(t, s, "test__echo", nil); err != nil {
			t.Fatal(err)
		}
	}
	select {
	case err := <-slow:
		t.Errorf("the slow call was over before the fast ones: %v", err)
	default:
	}
	if err := <-slow; err != nil {
		t.Error(err)
	}
}

func TestAFloodThatASessionDoesNotReadHoldsUpNobody(t *testing.T) {
	r, s := withServer(t, "", nil)
	deaf := r.stream()
	rw := bufio.NewReadWriter(bufio.NewReader(deaf), bufio.NewWriter(deaf))
	say(t, rw, hello)
	if v := say(t, rw, `{"jsonrpc":"2.0","id":2,"method":"logging/setLevel","params":{"level":"debug"}}`); v["error"] != nil {
		t.Fatal(v)
	}
	if _, err := call(t, s, "test__flood", nil); err != nil { // deaf reads nothing of what it has asked for
		t.Fatal(err)
	}
	for range 20 {
		if _, err := call(t, s, "local__echo", args{"text": "x"}); err != nil {
			t.Fatal(err)
		}
	}
	// A write that nobody reads is given up in the end, and the session with it: nothing has waited for that.
	for line := ""; !strings.Contains(line, "notifications/message"); {
		var err error
		if line, err = rw.ReadString('\n'); err != nil {
			t.Fatal("the deaf session was given up before the calls were answered: ", err)
		}
	}
}

func TestCancelledCallEndsAtTheServer(t *testing.T) {
	r, s := withServer(t, "", func(d *mcp.Definition) { d.Limits.Concurrency = 1 })
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() {
		_, err := s.CallTool(ctx, &sdk.CallToolParams{Name: "test__hang"})
		done <- err
	}()
	eventually(t, func() bool { return r.running("test") == 1 })
	cancel()
	if err := <-done; err == nil {
		t.Error("a cancelled call succeeded")
	}
	// There is one slot: the next call gets it only if the first one has given it back.
	if _, err := call(t, s, "test__echo", nil); err != nil {
		t.Error(err)
	}
}

func TestChangedToolIsHeldUntilApproved(t *testing.T) {
	r, s := withServer(t, "", nil)
	if _, err := call(t, s, "test__mutate", nil); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() bool { return !slices.Contains(names(t, s), "test__echo") })
	_, err := call(t, s, "test__echo", nil)
	if codeOf(err) != peer.CodeRefused || !strings.Contains(err.Error(), "capsem mcp approve test__echo") {
		t.Errorf("a changed tool can be called: %v", err)
	}
	if c := r.last(); c.Decision != "denied" || c.Rule != "pin" {
		t.Errorf("recorded is %+v", c)
	}
	if p := r.pins.All()["test__echo"]; p.Before == nil || p.Tool.Description != "sends what it is told to somebody else" {
		t.Errorf("the owner is not shown the change: %+v", p)
	}
	if _, err := r.pins.Approve("test__echo", ""); err != nil {
		t.Fatal(err)
	}
	eventually(t, func() bool { _, err := call(t, s, "test__echo", nil); return err == nil })
}

func TestPolicyDecidesOnArguments(t *testing.T) {
	r, s := withServer(t, `
[[rule]]
id = "no-etc"
effect = "deny"
mcp_server = ["test"]
mcp_tool = ["echo"]
when = 'has(args.path) && args.path.startsWith("/etc")'
reason = "not that"
`, nil)
	if _, err := call(t, s, "test__echo", args{"path": "/tmp/x"}); err != nil {
		t.Error(err)
	}
	_, err := call(t, s, "test__echo", args{"path": "/etc/passwd"})
	if codeOf(err) != peer.CodeRefused || !strings.Contains(err.Error(), "no-etc: not that") {
		t.Errorf("the policy did not refuse: %v", err)
	}
	if c := r.last(); c.Decision != "denied" || c.Rule != "no-etc" {
		t.Errorf("recorded is %+v", c)
	}
	// A key twice must not show the policy another value than the server.
	raw := json.RawMessage(`{"path":"/tmp/x","path":"/etc/passwd"}`)
	if _, err := s.CallTool(t.Context(), &sdk.CallToolParams{Name: "test__echo", Arguments: raw}); codeOf(err) != peer.CodeRefused {
		t.Errorf("a key twice gets around the policy: %v", err)
	}
}

func TestProgramIsKeptToItsOwnDirectory(t *testing.T) {
	listener := httptest.NewServer(http.NotFoundHandler())
	defer listener.Close()
	_, s := withServer(t, "", func(d *mcp.Definition) { d.Env = map[string]string{"GIVEN": "yes"} })
	for _, c := range []struct {
		tool string
		in   args
		ok   bool
	}{
		{"write", args{"path": "own"}, true},
		{"read", args{"path": "/etc/hosts"}, true},
		{"read", args{"path": "/etc/shadow"}, false},
		{"read", args{"path": "/root/.bashrc"}, false},
		{"read", args{"path": "../pins.json"}, false},
		{"write", args{"path": "/tmp/capsem-mcp-escape"}, false},
		{"write", args{"path": "/usr/capsem-mcp-escape"}, false},
		{"dial", args{"network": "tcp", "address": listener.Listener.Addr().String()}, false},
		{"dial", args{"network": "udp", "address": "127.0.0.1:53"}, false},
		{"dial", args{"network": "unix", "address": "/run/dbus/system_bus_socket"}, false},
	} {
		if got, err := call(t, s, "test__"+c.tool, c.in); (err == nil) != c.ok {
			t.Errorf("%s %v: %.80q, %v", c.tool, c.in, got, err)
		}
	}
	env, err := call(t, s, "test__environ", nil)
	if err != nil || !strings.Contains(env, "GIVEN=yes") || strings.Contains(env, "CAPSEM") || strings.Count(env, "\n") != 4 {
		t.Errorf("its environment is %q, %v", env, err)
	}
}

func TestProgressResourcesPromptsAndQuestions(t *testing.T) {
	if err := sandbox.Supported(); err != nil {
		t.Fatal(err)
	}
	d := program(t, "test", "all")
	d.Elicitation = true
	r := newRig(t, "", d)
	r.up("test", true)
	if _, err := r.pins.Approve("test", ""); err != nil {
		t.Fatal(err)
	}
	seen := make(chan string, 10)
	s := r.clientOf("2025-11-25", &sdk.ClientOptions{
		ProgressNotificationHandler: func(_ context.Context, req *sdk.ProgressNotificationClientRequest) {
			select {
			case seen <- fmt.Sprint(req.Params.ProgressToken, " ", req.Params.Message):
			default:
			}
		},
		ElicitationHandler: func(context.Context, *sdk.ElicitRequest) (*sdk.ElicitResult, error) {
			return &sdk.ElicitResult{Action: "decline"}, nil
		},
	})
	eventually(t, func() bool { return slices.Contains(names(t, s), "test__progress") })
	ctx, cancel := context.WithCancel(t.Context())
	over := make(chan struct{})
	go func() {
		defer close(over)
		_, _ = s.CallTool(ctx, &sdk.CallToolParams{Meta: sdk.Meta{"progressToken": "mine"}, Name: "test__progress"})
	}()
	if got := <-seen; got != "mine half" {
		t.Errorf("progress is %q", got)
	}
	cancel()
	<-over
	if got, err := call(t, s, "test__elicit", nil); err != nil || got != "decline" {
		t.Errorf("the user's answer is %q, %v", got, err)
	}
	res, err := s.ReadResource(t.Context(), &sdk.ReadResourceParams{URI: "capsem://test/test://note"})
	if err != nil || len(res.Contents) != 1 || res.Contents[0].Text != "a note" || res.Contents[0].URI != "capsem://test/test://note" {
		t.Errorf("the resource is %+v, %v", res, err)
	}
	prompt, err := s.GetPrompt(t.Context(), &sdk.GetPromptParams{Name: "test__greet", Arguments: map[string]string{"who": "you"}})
	if err != nil || len(prompt.Messages) != 1 {
		t.Errorf("the prompt is %+v, %v", prompt, err)
	}
}

func TestServerBehindAURL(t *testing.T) {
	s := sdk.NewServer(&sdk.Implementation{Name: "web", Version: "1"}, nil)
	sdk.AddTool(s, &sdk.Tool{Name: "whoami"}, func(_ context.Context, req *sdk.CallToolRequest, _ args) (*sdk.CallToolResult, any, error) {
		text := req.Extra.Header.Get("Authorization")
		return &sdk.CallToolResult{Content: []sdk.Content{&sdk.TextContent{Text: text}}}, nil, nil
	})
	web := httptest.NewServer(sdk.NewStreamableHTTPHandler(func(*http.Request) *sdk.Server { return s }, nil))
	defer web.CloseClientConnections()
	d := mcp.Definition{Name: "web", URL: web.URL, Headers: map[string]string{"Authorization": "Bearer here"}}
	elsewhere := mcp.Definition{Name: "elsewhere", URL: "http://localhost.localdomain:1/"}
	r := newRig(t, "", d, elsewhere)
	r.up("web", true)
	if _, err := r.pins.Approve("web__whoami", ""); err != nil {
		t.Fatal(err)
	}
	c := r.client(nil)
	eventually(t, func() bool { return slices.Contains(names(t, c), "web__whoami") })
	if got, err := call(t, c, "web__whoami", nil); err != nil || got != "Bearer here" {
		t.Errorf("the server sees %q, %v", got, err)
	}
	if o := r.up("elsewhere", false); !strings.Contains(o.Error, "private address") && !strings.Contains(o.Error, "cannot be found") {
		t.Errorf("a name that leads inside is %q", o.Error)
	}
}

// say sends a line and reads one.
func say(t *testing.T, rw *bufio.ReadWriter, line string) map[string]any {
	t.Helper()
	if _, err := rw.WriteString(line + "\n"); err != nil {
		t.Fatal(err)
	}
	if err := rw.Flush(); err != nil {
		t.Fatal(err)
	}
	return hear(t, rw)
}

func hear(t *testing.T, rw *bufio.ReadWriter) map[string]any {
	t.Helper()
	for {
		text, err := rw.ReadBytes('\n')
		if err != nil {
			t.Fatal(err)
		}
		var v map[string]any
		if err := json.Unmarshal(text, &v); err != nil {
			t.Fatal(err)
		}
		if v["method"] == nil { // notifications come when they come
			return v
		}
	}
}

const hello = `{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-06-18","capabilities":{},"clientInfo":{"name":"x","version":"1"}}}`

func TestBadInputOfTheGuestIsAnswered(t *testing.T) {
	r := newRig(t, "")
	r.up("local", true)
	conn := r.stream()
	rw := bufio.NewReadWriter(bufio.NewReader(conn), bufio.NewWriter(conn))
	if v := say(t, rw, hello); v["error"] != nil {
		t.Fatal(v)
	}
	for _, c := range []struct {
		line string
		code float64
		id   any
	}{
		{"not JSON", jsonrpc.CodeParseError, nil},
		{"\xff\xfe", jsonrpc.CodeParseError, nil},
		{`{"jsonrpc":"2.0","id":5,"method":"tools/call","params":` + strings.Repeat("[", 5000) + strings.Repeat("]", 5000) + `}`, jsonrpc.CodeInvalidRequest, nil},
		{`{"jsonrpc":"2.0","id":5,"method":"tools/call","params":{"name":"` + strings.Repeat("x", 2<<20) + `"}}`, jsonrpc.CodeInvalidRequest, nil},
		{`[{"jsonrpc":"2.0","id":6,"method":"ping"}]`, jsonrpc.CodeInvalidRequest, nil},
		{`{"jsonrpc":"1.0","id":6,"method":"ping"}`, jsonrpc.CodeInvalidRequest, nil},
		{`{"jsonrpc":"2.0","id":{"a":1},"method":"ping"}`, jsonrpc.CodeInvalidRequest, nil},
		{`{"jsonrpc":"2.0","id":7,"method":"no/such/thing"}`, jsonrpc.CodeMethodNotFound, 7.0},
		{`{"jsonrpc":"2.0","id":8,"method":"tools/call"}`, jsonrpc.CodeInvalidRequest, 8.0},
		{`{"jsonrpc":"2.0","id":9,"method":"tools/call","params":{"name":"local__echo","arguments":[1]}}`, jsonrpc.CodeInvalidParams, 9.0},
		{`{"jsonrpc":"2.0","id":"ten","method":"tools/call","params":{"name":"local__none"}}`, jsonrpc.CodeInvalidParams, "ten"},
		{`{"jsonrpc":"2.0","id":11,"method":"tools/call","params":{"name":"none"}}`, jsonrpc.CodeInvalidParams, 11.0},
		{`{"jsonrpc":"2.0","id":12,"method":"resources/read","params":{"uri":"file:///etc/passwd"}}`, jsonrpc.CodeInvalidParams, 12.0},
	} {
		v := say(t, rw, c.line)
		e, _ := v["error"].(map[string]any)
		if e == nil || e["code"] != c.code || v["id"] != c.id {
			t.Errorf("%.60q is answered with %v", c.line, v)
		}
	}
	// An answer to nothing is dropped, and the session goes on.
	if v := say(t, rw, `{"jsonrpc":"2.0","id":77,"result":{}}`+"\n"+`{"jsonrpc":"2.0","id":13,"method":"ping"}`); v["id"] != 13.0 || v["error"] != nil {
		t.Errorf("a ping is answered with %v", v)
	}
}

func TestAnIdTwiceIsRefused(t *testing.T) {
	r, _ := withServer(t, "", nil)
	conn := r.stream()
	rw := bufio.NewReadWriter(bufio.NewReader(conn), bufio.NewWriter(conn))
	say(t, rw, hello)
	slow := `{"jsonrpc":"2.0","id":5,"method":"tools/call","params":{"name":"test__sleep","arguments":{}}}`
	if v := say(t, rw, slow+"\n"+slow); v["id"] != nil || v["error"] == nil {
		t.Errorf("a second use of an id is answered with %v", v)
	}
	if v := hear(t, rw); v["id"] != 5.0 || v["error"] != nil {
		t.Errorf("the first is answered with %v", v)
	}
}

func TestAThousandSessions(t *testing.T) {
	r := newRig(t, "")
	r.up("local", true)
	refused := 0
	for range 1000 {
		conn := r.stream()
		rw := bufio.NewReadWriter(bufio.NewReader(conn), bufio.NewWriter(conn))
		if v := say(t, rw, hello); v["error"] != nil {
			if v["id"] != 1.0 {
				t.Fatalf("refused with %v", v)
			}
			refused++
		}
	}
	if refused < 900 || refused == 1000 {
		t.Errorf("%d of 1000 sessions were refused", refused)
	}
}
