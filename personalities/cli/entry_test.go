package cli

import (
	"testing"

	"capsem/core/api"
)

func TestACallAndItsApprovalAreJoinedInTheHistory(t *testing.T) {
	for want, e := range map[string]api.RecordEntry{
		"allowed tools/call web/act ask-me  (asked: q1)": {Kind: "mcp", Fields: map[string]any{
			"decision": "allowed", "method": "tools/call", "server_name": "web", "tool_name": "act", "matched_rule": "ask-me", "ask_id": "q1",
		}},
		"allowed tools/call web/act default": {Kind: "mcp", Fields: map[string]any{
			"decision": "allowed", "method": "tools/call", "server_name": "web", "tool_name": "act", "matched_rule": "default",
		}},
		"approved mcp mcp://web/act ask-me  (asked: q1)": {Kind: "approval", Fields: map[string]any{
			"status": "approved", "method": "mcp", "url": "mcp://web/act", "matched_rule": "ask-me", "ask_id": "q1",
		}},
	} {
		if got := entryText(e); got != want {
			t.Errorf("%q, not %q", got, want)
		}
	}
}
