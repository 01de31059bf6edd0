package modeltap

import (
	"crypto/rand"
	"encoding/hex"
	"sync"

	"capsem/core/inspect/model"
)

// maxOpen is how many tool calls may wait for their results; the oldest are forgotten.
const maxOpen = 4096

// traces joins the calls of one task: a request that brings the results of tools goes on with what asked for them.
type traces struct {
	mu    sync.Mutex
	open  map[string]string // provider, slash, id of a tool call: the trace
	order []string
}

// of is the trace of a request.
func (t *traces) of(provider string, results []model.ToolResult) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, r := range results {
		if trace := t.open[provider+"/"+r.ID]; trace != "" {
			return trace
		}
	}
	var id [8]byte
	_, _ = rand.Read(id[:]) // never fails
	return hex.EncodeToString(id[:])
}

// asked notes which tools an answer asks for. What the request brought may come again, if the client tries again, so it stays for a while.
func (t *traces) asked(provider, trace string, calls []model.ToolCall) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.open == nil {
		t.open = map[string]string{}
	}
	for _, c := range calls {
		key := provider + "/" + c.ID
		if _, known := t.open[key]; !known {
			t.order = append(t.order, key)
		}
		t.open[key] = trace
	}
	for len(t.order) > maxOpen {
		delete(t.open, t.order[0])
		t.order = t.order[1:]
	}
}
