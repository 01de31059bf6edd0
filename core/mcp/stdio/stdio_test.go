package stdio

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/modelcontextprotocol/go-sdk/jsonrpc"
	"github.com/modelcontextprotocol/go-sdk/mcp"
)

// peer is the other end of a server that has the tool "wait", which answers when released is closed, and "now".
type peer struct {
	t        *testing.T
	in       *io.PipeWriter
	out      *bufio.Scanner
	released chan struct{}
}

func newPeer(t *testing.T) *peer {
	t.Helper()
	inR, inW := io.Pipe()
	outR, outW := io.Pipe()
	p := &peer{t: t, in: inW, out: bufio.NewScanner(outR), released: make(chan struct{})}
	p.out.Buffer(nil, 64<<20)
	server := mcp.NewServer(&mcp.Implementation{Name: "test", Version: "1"}, nil)
	mcp.AddTool(server, &mcp.Tool{Name: "wait"}, func(ctx context.Context, _ *mcp.CallToolRequest, _ struct{}) (*mcp.CallToolResult, any, error) {
		select {
		case <-p.released:
		case <-ctx.Done():
		}
		return &mcp.CallToolResult{}, nil, nil
	})
	mcp.AddTool(server, &mcp.Tool{Name: "now"}, func(context.Context, *mcp.CallToolRequest, map[string]any) (*mcp.CallToolResult, any, error) {
		return &mcp.CallToolResult{}, nil, nil
	})
	ended := make(chan struct{})
	done := make(chan error, 1)
	go func() {
		done <- server.Run(context.Background(), &Transport{Reader: inR, Writer: outW, Ended: func() { close(ended) }, MaxLine: 1 << 20})
		_ = outW.Close()
	}()
	t.Cleanup(func() {
		_ = inW.Close()
		go func() { _, _ = io.Copy(io.Discard, outR) }()
		<-ended
		if err := <-done; err != nil {
			t.Errorf("the server ended with %v", err)
		}
	})
	p.send(`{"jsonrpc":"2.0","id":"init","method":"initialize","params":{"protocolVersion":"2025-03-26","capabilities":{},"clientInfo":{"name":"t","version":"1"}}}`)
	p.want(`"id":"init"`)
	p.send(`{"jsonrpc":"2.0","method":"notifications/initialized"}`)
	return p
}

func (p *peer) send(line string) {
	p.t.Helper()
	if _, err := io.WriteString(p.in, line+"\n"); err != nil {
		p.t.Fatal(err)
	}
}

// want reads one line, which must hold all words and be JSON.
func (p *peer) want(words ...string) string {
	p.t.Helper()
	if !p.out.Scan() {
		p.t.Fatalf("no answer: %v", p.out.Err())
	}
	for _, w := range words {
		if !strings.Contains(p.out.Text(), w) || !json.Valid(p.out.Bytes()) {
			p.t.Fatalf("got %.300s, want %v", p.out.Text(), words)
		}
	}
	return p.out.Text()
}

func TestBadLinesAreAnsweredAndDisturbNothing(t *testing.T) {
	deep := strings.Repeat("[", 100) + strings.Repeat("]", 100)
	for _, c := range []struct{ name, line, id, code string }{
		{"no JSON", `{"jsonrpc":`, `"id":null`, "-32700"},
		{"binary", "\x00\xff\xfe", `"id":null`, "-32700"},
		{"too long", `{"jsonrpc":"2.0","id":7,"method":"` + strings.Repeat("x", 2<<20) + `"}`, `"id":null`, "-32600"},
		{"too deep", `{"jsonrpc":"2.0","id":7,"method":"ping","params":{"x":` + deep + `}}`, `"id":null`, "-32600"},
		{"deeper than any stack", strings.Repeat("[", 500_000), `"id":null`, "-32700"},
		{"no object", `"ping"`, `"id":null`, "-32600"},
		{"no version", `{"id":7,"method":"ping"}`, `"id":7`, "-32600"},
		{"method of another type", `{"jsonrpc":"2.0","id":7,"method":5}`, `"id":7`, "-32600"},
		{"no method", `{"jsonrpc":"2.0","id":7,"method":""}`, `"id":7`, "-32600"},
		{"id that is an object", `{"jsonrpc":"2.0","id":{"a":1},"method":"ping"}`, `"id":null`, "-32600"},
		{"id with a fraction", `{"jsonrpc":"2.0","id":1.5,"method":"ping"}`, `"id":1.5`, "-32600"},
		{"id that is rounded", `{"jsonrpc":"2.0","id":9007199254740993,"method":"ping"}`, `"id":9007199254740993`, "-32600"},
		{"id that is long", `{"jsonrpc":"2.0","id":"` + strings.Repeat("x", 300) + `","method":"ping"}`, `"id":null`, "-32600"},
		{"empty batch", `[]`, `"id":null`, "-32600"},
		{"batch that is too large", "[" + strings.Repeat(`{"jsonrpc":"2.0","method":"x"},`, 100) + "1]", `"id":null`, "-32600"},
		{"unknown method", `{"jsonrpc":"2.0","id":7,"method":"no/such"}`, `"id":7`, "-32601"},
		{"params of another type", `{"jsonrpc":"2.0","id":7,"method":"tools/call","params":[1]}`, `"id":7`, `"error"`},
		{"unknown tool", `{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{"name":"none"}}`, `"id":7`, "-32602"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := newPeer(t)
			p.send(`{"jsonrpc":"2.0","id":"waiting","method":"tools/call","params":{"name":"wait","arguments":{}}}`)
			p.send(c.line)
			p.want(c.id, c.code)
			p.send("")
			p.send(`{"jsonrpc":"2.0","id":99,"result":{}}`) // an answer that nobody asked for
			p.send(`{"jsonrpc":"2.0","id":8,"method":"ping"}`)
			p.want(`"id":8`, `"result"`)
			close(p.released)
			p.want(`"id":"waiting"`, `"result"`)
		})
	}
}

func TestAnIDInUseIsNotTakenTwice(t *testing.T) {
	p := newPeer(t)
	call := `{"jsonrpc":"2.0","id":5,"method":"tools/call","params":{"name":"wait","arguments":{}}}`
	p.send(call)
	p.send(call)
	p.want(`"id":null`, "-32600", "in use")
	close(p.released)
	p.want(`"id":5`, `"result"`)
	p.send(call) // free again
	p.want(`"id":5`, `"result"`)
}

func TestCallsInFlightAreBounded(t *testing.T) {
	p := newPeer(t)
	for i := range MaxInFlight {
		p.send(fmt.Sprintf(`{"jsonrpc":"2.0","id":%d,"method":"tools/call","params":{"name":"wait","arguments":{}}}`, i))
	}
	p.send(`{"jsonrpc":"2.0","id":"more","method":"ping"}`)
	p.want(`"id":"more"`, "-32000")
	close(p.released)
	for range MaxInFlight {
		p.want(`"result"`)
	}
	p.send(`{"jsonrpc":"2.0","id":"more","method":"ping"}`)
	p.want(`"id":"more"`, `"result"`)
}

func TestABatchIsAnsweredInOneLine(t *testing.T) {
	p := newPeer(t)
	p.send(`[{"jsonrpc":"2.0","id":1,"method":"ping"},{"jsonrpc":"2.0","method":"notifications/none"},5,{"jsonrpc":"2.0","id":1,"method":"ping"},` +
		`{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"name":"now","arguments":{}}}]`)
	var all []map[string]any
	if err := json.Unmarshal([]byte(p.want()), &all); err != nil || len(all) < 4 {
		t.Errorf("%v, %v", all, err)
	}
}

func TestTheEndOfInputEndsTheServerAndItsCalls(t *testing.T) {
	p := newPeer(t)
	p.send(`{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"wait","arguments":{}}}`)
	p.send(`{"jsonrpc":"2.0","id":2,"method":"ping"}`)
	p.want(`"id":2`) // the clean-up closes the input and waits for the server
}

func TestDoneEndsTheServerAndItsCallsThoughTheInputGoesOn(t *testing.T) {
	inR, inW := io.Pipe()
	defer inW.Close()
	done, over, started := make(chan struct{}), make(chan error, 1), make(chan struct{})
	server := mcp.NewServer(&mcp.Implementation{Name: "test", Version: "1"}, nil)
	mcp.AddTool(server, &mcp.Tool{Name: "wait"}, func(ctx context.Context, _ *mcp.CallToolRequest, _ struct{}) (*mcp.CallToolResult, any, error) {
		close(started)
		<-ctx.Done()
		return &mcp.CallToolResult{}, nil, nil
	})
	go func() {
		over <- server.Run(context.Background(), &Transport{Reader: inR, Writer: io.Discard, Done: done})
	}()
	for _, line := range []string{
		`{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-06-18","capabilities":{},"clientInfo":{"name":"t","version":"1"}}}`,
		`{"jsonrpc":"2.0","method":"notifications/initialized"}`,
		`{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"name":"wait","arguments":{}}}`,
	} {
		if _, err := io.WriteString(inW, line+"\n"); err != nil {
			t.Fatal(err)
		}
	}
	<-started
	close(done)
	if err := <-over; err != nil {
		t.Errorf("ended with %v", err)
	}
}

func TestAFailedReadIsTheConnectionsEnd(t *testing.T) {
	r, w := io.Pipe()
	c, err := (&Transport{Reader: r, Writer: io.Discard}).Connect(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	broken := errors.New("the disk is on fire")
	_ = w.CloseWithError(broken)
	if _, err := c.Read(t.Context()); !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if _, err := c.Read(t.Context()); !errors.Is(err, io.EOF) {
		t.Errorf("got %v", err)
	}
}

// FuzzLines feeds any bytes: each line ends in messages or in one answer, and nothing panics.
func FuzzLines(f *testing.F) {
	f.Add([]byte(`{"jsonrpc":"2.0","id":1,"method":"ping"}`))
	f.Add([]byte("[{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"a\"}]\n{\"id\":\"\\u0000\"}\r\n\n[[["))
	f.Add([]byte(`{"jsonrpc":"2.0","id":1e400,"result":{}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		var out strings.Builder
		c, err := (&Transport{Reader: io.NopCloser(strings.NewReader(string(data))), Writer: &out, MaxLine: 4096}).Connect(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		for {
			msg, err := c.Read(t.Context())
			if err != nil {
				break
			}
			if req, ok := msg.(*jsonrpc.Request); ok && req.ID.IsValid() {
				if err := c.Write(t.Context(), &jsonrpc.Response{ID: req.ID, Result: json.RawMessage("{}")}); err != nil {
					t.Fatal(err)
				}
			}
		}
		for l := range strings.Lines(out.String()) {
			if !json.Valid([]byte(l)) || !strings.HasSuffix(l, "\n") {
				t.Fatalf("wrote %q", l)
			}
		}
	})
}
