//go:build vm

package vmtest

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/modelcontextprotocol/go-sdk/mcp"
)

// object is a JSON object.
type object = map[string]any

// caller calls tools of capsem mcp that must succeed.
func (in *install) caller(session *mcp.ClientSession) func(name string, args object) object {
	return func(name string, args object) object {
		in.t.Helper()
		ctx, cancel := context.WithTimeout(in.t.Context(), patience)
		defer cancel()
		res, err := session.CallTool(ctx, &mcp.CallToolParams{Name: name, Arguments: args})
		if err != nil {
			in.t.Fatalf("%s: %v", name, err)
		}
		if res.IsError {
			in.t.Fatalf("%s: %v", name, res.Content[0].(*mcp.TextContent).Text)
		}
		return res.StructuredContent.(object)
	}
}

// TestAnAgentDrivesVMsOverMCP does what an agent does, with the SDK's own client and then with the reference one for Node.
func TestAnAgentDrivesVMsOverMCP(t *testing.T) {
	in := newInstall(t, newHomeWithImage(t))
	session, err := mcp.NewClient(&mcp.Implementation{Name: "test", Version: "1"}, nil).
		Connect(t.Context(), &mcp.CommandTransport{Command: in.command(t.Context(), "mcp")}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer session.Close()
	call := in.caller(session)
	shell := func(id, line string) string {
		t.Helper()
		return strings.TrimSpace(call("capsem_exec", object{"id": id, "command": line})["stdout"].(string))
	}
	if got := call("capsem_create", object{"name": "dev", "ramMb": 512, "cpuCount": 1, "env": object{"WHO": "agent"}}); got["status"] != "Running" {
		t.Fatalf("created %v", got)
	}
	call("capsem_write_file", object{"id": "dev", "path": "src/hello.py", "content": "import os\nprint('hello', os.environ['WHO'])\n", "mode": "755"})
	if got := shell("dev", "python3 src/hello.py"); got != "hello agent" {
		t.Errorf("ran: %q", got)
	}
	if got := call("capsem_read_file", object{"id": "dev", "path": "/proc/version"}); !strings.Contains(got["content"].(string), "Linux") {
		t.Errorf("read %v", got)
	}
	in.mcpStates(call, shell)
	in.mcpCancel(session, shell)
	in.mcpResources(session)
	call("capsem_fork", object{"id": "dev", "name": "base"})
	if got := call("capsem_run", object{"command": "python3 src/hello.py", "from": "base"}); got["stdout"] != "hello agent\n" {
		t.Errorf("in a VM of the image: %v", got)
	}
	rows := call("capsem_inspect", object{"id": "dev", "sql": "SELECT count(*) FROM exec_events WHERE command LIKE 'python3 src/hello.py%' AND exit_code=0"})["rows"]
	if fmt.Sprint(rows) != "[[1]]" {
		t.Errorf("on record: %v", rows)
	}
	if got := call("capsem_verify", object{"id": "dev"}); fmt.Sprint(got["ok"]) != "true" {
		t.Errorf("the record: %v", got)
	}
	in.mcpNode()
	call("capsem_delete", object{"id": "dev"})
	call("capsem_image_delete", object{"name": "base"})
	if left := in.vms(); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
	if page := call("capsem_sessions", nil); len(page["sessions"].([]any)) < 2 {
		t.Errorf("sessions: %v", page)
	}
}

// mcpStates keeps states of a VM and puts them back.
func (in *install) mcpStates(call func(string, object) object, shell func(id, line string) string) {
	in.t.Helper()
	call("capsem_snapshot_create", object{"id": "dev", "name": "first"})
	call("capsem_checkpoint", object{"id": "dev", "name": "good"})
	shell("dev", "echo broken > src/hello.py")
	if got := fmt.Sprint(call("capsem_snapshot_changes", object{"id": "dev"})); !strings.Contains(got, "src/hello.py") {
		in.t.Errorf("changes: %s", got)
	}
	call("capsem_snapshot_revert", object{"id": "dev", "path": "src/hello.py"})
	if got := shell("dev", "tail -1 src/hello.py"); !strings.HasPrefix(got, "print") {
		in.t.Errorf("put back: %q", got)
	}
	shell("dev", "touch /after")
	call("capsem_rewind", object{"id": "dev", "name": "good"})
	if got := shell("dev", "ls /after 2>&1 || true"); !strings.Contains(got, "No such file") {
		in.t.Errorf("rewound: %q", got)
	}
	call("capsem_suspend", object{"id": "dev"})
	call("capsem_resume", object{"name": "dev"})
}

// mcpCancel cancels a call; its command in the guest ends.
func (in *install) mcpCancel(session *mcp.ClientSession, shell func(id, line string) string) {
	in.t.Helper()
	ctx, cancel := context.WithCancel(in.t.Context())
	over := make(chan error, 1)
	go func() {
		_, err := session.CallTool(ctx, &mcp.CallToolParams{Name: "capsem_exec", Arguments: object{"id": "dev", "command": "exec sleep 98765", "timeout": 0}})
		over <- err
	}()
	in.until("the command", func() bool { return shell("dev", "pgrep -cf '[s]leep 98765' || true") == "1" })
	cancel()
	if err := <-over; err == nil {
		in.t.Error("a cancelled call succeeded")
	}
	in.until("its end", func() bool { return shell("dev", "pgrep -cf '[s]leep 98765' || true") == "0" })
}

// mcpResources reads a VM's resources.
func (in *install) mcpResources(session *mcp.ClientSession) {
	in.t.Helper()
	for uri, want := range map[string]string{
		"capsem://vm/dev/file/src/hello.py": "import os", "capsem://vm/dev/file//etc/hostname": "dev", "capsem://vm/dev/transcript": "$ python3 src/hello.py\n[exit code 0; wrote 12 and 0 bytes]",
		"capsem://vm/dev/terminal": "", "capsem://vm/dev/log/serial": "", "capsem://vm/dev/history": "hello.py",
	} {
		got, err := session.ReadResource(in.t.Context(), &mcp.ReadResourceParams{URI: uri})
		if err != nil || !strings.Contains(got.Contents[0].Text, want) {
			in.t.Errorf("%s: %v, %v", uri, got, err)
		}
	}
	in.want(1, "0\n", "", "exec", "dev", "--", "pgrep", "-c", "bash") // looking at the terminal has started no shell
}

// mcpNode has the reference SDK use it.
func (in *install) mcpNode() {
	in.t.Helper()
	dir := nodeSDK(in.t)
	ctx, cancel := context.WithTimeout(in.t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, "node", "../mcp/testdata/node.mjs", dir, in.bin, "mcp")
	cmd.Env = append(os.Environ(), "CAPSEM_HOME="+in.home.Dir(), "SHELL_LINE=cat hello.txt", "EXPECTED=from node\n", "HANG=sleep 1000", "RECORD=1")
	if out, err := cmd.CombinedOutput(); err != nil {
		in.t.Errorf("the reference SDK for Node: %v: %s", err, out)
	}
}
