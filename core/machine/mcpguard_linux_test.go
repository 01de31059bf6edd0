package machine

import (
	"strings"
	"testing"

	"capsem/core/detect"
	"capsem/core/mcp/gateway"
	"capsem/core/proto"
)

// BenchmarkInspect is what the detectors take of a call whose arguments and answer have 1 KiB each.
func BenchmarkInspect(b *testing.B) {
	w := &Worker{credentials: newCredentials(), log: quiet()}
	m := &mcpServers{w: w, engine: detect.NewEngine(nil)}
	text := []byte(strings.Repeat("some plain words of a tool and what it says\n", 23))
	for b.Loop() {
		for _, received := range []bool{false, true} {
			if rule, _ := m.inspect(b.Context(), &gateway.Passage{Server: "one", Tool: "echo", Received: received, Text: text, Process: &proto.ProcessClaim{}}); rule != "" {
				b.Fatal(rule)
			}
		}
	}
}
