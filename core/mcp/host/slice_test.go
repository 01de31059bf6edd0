package host_test

import (
	"testing"

	sdk "github.com/modelcontextprotocol/go-sdk/mcp"
)

func TestEchoThroughAllProcesses(t *testing.T) {
	r := newRig(t, "")
	r.up("local", true)
	s := r.client(nil)
	res, err := s.CallTool(t.Context(), &sdk.CallToolParams{Name: "local__echo", Arguments: args{"text": "hello"}})
	if err != nil {
		t.Fatal(err)
	}
	if got := textOf(t, res); got != "hello" {
		t.Errorf("echo is %q", got)
	}
	if c := r.last(); c.Server != "local" || c.Tool != "echo" || c.Decision != "allowed" || c.Process.Name != "agent" || c.Received == 0 {
		t.Errorf("recorded is %+v", c)
	}
}
