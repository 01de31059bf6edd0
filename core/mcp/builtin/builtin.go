// Package builtin is the MCP server with capsem's own tools: pages of the web, and the snapshots of the workspace. It runs in a process
// that has nothing but its pipes: whatever it does, the worker does for it, under the VM's own policy and in its record.
package builtin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"

	sdk "github.com/modelcontextprotocol/go-sdk/mcp"

	"capsem/core/buildinfo"
	"capsem/core/mcp/lines"
	"capsem/core/mcp/peer"
	"capsem/core/mcp/sandbox"
)

// The methods of the worker.
const (
	// MethodFetch (FetchRequest) makes one HTTP request, MethodSnapshot (proto.SnapshotRequest) answers in JSON.
	MethodFetch, MethodSnapshot = "fetch", "snapshot"
)

// FetchRequest is one request, which is judged as if the VM had made it.
type FetchRequest struct {
	// Method is GET or HEAD, URL an http or https URL.
	Method string `cbor:"method"`
	URL    string `cbor:"url"`
	// MaxBody is how much of the answer's body is wanted, in bytes.
	MaxBody int `cbor:"max_body"`
}

// FetchResponse is the answer. A redirect is an answer: following it is another request.
type FetchResponse struct {
	Status int                 `cbor:"status"`
	Header map[string][]string `cbor:"header,omitempty"`
	Body   []byte              `cbor:"body,omitempty"`
	// Cut says that there is more of the body.
	Cut bool `cbor:"cut,omitempty"`
}

// Fetcher makes requests for the tools, through the same policy, guard and record as those of the VM, as the process ProcessName.
type Fetcher interface {
	Fetch(ctx context.Context, req *FetchRequest) (*FetchResponse, error)
}

// ProcessName is who makes requests for the tools, in the record.
const ProcessName = "mcp_builtin"

// asker asks the worker.
type asker interface {
	Call(ctx context.Context, method string, params []byte) ([]byte, error)
}

// server is the built-in server.
type server struct{ worker asker }

// New returns the server. sessionDir is empty in a VM that has no workspace of its own: then there are no tools for one.
func New(worker asker, sessionDir string) *sdk.Server {
	s := &server{worker: worker}
	out := sdk.NewServer(&sdk.Implementation{Name: "capsem-mcp-builtin", Version: buildinfo.Version}, &sdk.ServerOptions{Capabilities: &sdk.ServerCapabilities{}})
	s.addWeb(out)
	if sessionDir != "" {
		s.addSnapshots(out)
	}
	sdk.AddTool(out, &sdk.Tool{Name: "echo", Description: "Answers with the text it is given.", Annotations: readOnly(false)}, echo)
	return out
}

type echoInput struct {
	Text string `json:"text" jsonschema:"what to answer with"`
}

func echo(_ context.Context, _ *sdk.CallToolRequest, in echoInput) (*sdk.CallToolResult, any, error) {
	return text(in.Text), nil, nil
}

// text is a result of one text.
func text(s string) *sdk.CallToolResult {
	return &sdk.CallToolResult{Content: []sdk.Content{&sdk.TextContent{Text: s}}}
}

func readOnly(world bool) *sdk.ToolAnnotations {
	return &sdk.ToolAnnotations{ReadOnlyHint: true, IdempotentHint: true, OpenWorldHint: &world}
}

// none serves nothing: the worker asks nothing of this process.
type none struct{}

// Call refuses.
func (none) Call(context.Context, string, []byte) ([]byte, error) {
	return nil, errors.New("there is nothing to call")
}

// Note drops it.
func (none) Note(string, []byte) {}

// maxLine bounds a message of the aggregator.
const maxLine = 12 << 20

// Process is the built-in server's process: it locks itself up, serves on standard input and output, and asks the worker on descriptor 3.
func Process(ctx context.Context, in io.ReadCloser, out io.WriteCloser, sessionDir string, _ *slog.Logger) error {
	third := os.NewFile(3, "worker")
	conn, err := net.FileConn(third)
	if err = errors.Join(err, third.Close()); err != nil {
		return fmt.Errorf("there is no socket of a worker: %w", err)
	}
	if err := sandbox.LockAll(); err != nil {
		return fmt.Errorf("lock up the built-in server: %w", err)
	}
	worker := peer.New(ctx, conn, none{})
	defer worker.Close()
	session, err := New(worker, sessionDir).Connect(ctx, &lines.Transport{In: in, Out: out, MaxLine: maxLine, MaxDepth: lines.MaxDepth, Serve: true}, nil)
	if err != nil {
		return fmt.Errorf("serve: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { _ = session.Close() })
	defer stop()
	if err := session.Wait(); err != nil && !errors.Is(err, io.EOF) && ctx.Err() == nil {
		return fmt.Errorf("serve: %w", err)
	}
	return nil
}
