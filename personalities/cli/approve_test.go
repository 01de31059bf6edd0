package cli

import (
	"encoding/json"
	"strings"
	"testing"

	"capsem/core/api"
	"capsem/core/approval"
)

func TestAQuestionShowsWhatIsAskedFor(t *testing.T) {
	q := approval.Question{
		ID: "0123abcd", VM: "dev", Rule: "tools", MCPServer: "files", MCPTool: "remove", MCPArgs: `{"path":"/\u001b[2J"}`, Cut: true,
		Process: approval.Process{Name: "agent", CommandLine: "agent \x1b[2J"},
	}
	line, err := json.Marshal(q)
	if err != nil {
		t.Fatal(err)
	}
	text := questionsText(api.ApprovalsReply{Pending: []json.RawMessage{line}, Waiting: 2})
	for _, want := range []string{"0123abcd  dev: tool files remove", `with {"path":`, "not all of it", "rule tools", "and 1 more"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not in %q", want, text)
		}
	}
	if strings.ContainsRune(text, '\x1b') {
		t.Errorf("%q has an escape", text)
	}
}
