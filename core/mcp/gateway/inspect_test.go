package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"capsem/core/fault"
	"capsem/core/mcp"
	"capsem/core/mcp/aggregator"
	"capsem/core/mcp/peer"
	"capsem/core/policy"
)

// backend answers as it is told.
type backend struct {
	asked  int
	answer string
	err    error
}

func (b *backend) Request(context.Context, *aggregator.Call) ([]byte, error) {
	b.asked++
	return []byte(b.answer), b.err
}

// open allows everything.
type open struct{}

func (open) Judge(context.Context, *policy.Request) policy.Verdict {
	return policy.Verdict{Effect: policy.Allow, RuleID: "open"}
}

func TestWhatGoesAndComesIsInspected(t *testing.T) {
	b := &backend{}
	var calls []Call
	g := New(Config{
		VM: "vm", Judge: open{}, Record: func(c Call) { calls = append(calls, c) }, Pins: mcp.OpenPins(filepath.Join(t.TempDir(), "pins.json")),
		Inspect: func(_ context.Context, p *Passage) (string, string) {
			if strings.Contains(string(p.Text), "forbidden") {
				return "detect/test", "a word"
			}
			return "", ""
		},
	})
	g.Attach(b)
	g.view = makeView([]*aggregator.Offering{{Server: mcp.Local, Up: true, Tools: [][]byte{[]byte(`{"name":"echo","inputSchema":{"type":"object"}}`)}}}, g.cfg.Pins)
	close(g.settled)
	good := `{"content":[{"type":"text","text":"fine"}]}`
	for name, c := range map[string]struct {
		args, answer string
		err          error
		asked        int
		refused      bool
	}{
		"nothing":                {`{"x":"y"}`, good, nil, 1, false},
		"an argument":            {`{"x":"forbidden"}`, good, nil, 0, true},
		"an argument in escapes": {`{"x":"\u0066orbidden"}`, good, nil, 0, true},
		"the name of one":        {`{"forbidden":1}`, good, nil, 0, true},
		"the answer":             {`{}`, `{"content":[{"type":"text","text":"\u0066orbidden"}]}`, nil, 1, true},
		"an error":               {`{}`, "", peer.Errorf(-32000, "forbidden"), 1, true},
		"another error":          {`{}`, "", peer.Errorf(-32000, "it failed"), 1, false},
		"an answer that is none": {`{}`, `{"content`, nil, 1, false},
	} {
		b.asked, b.answer, b.err, calls = 0, c.answer, c.err, nil
		body, err := g.OutsideCall(t.Context(), "local__echo", json.RawMessage(c.args))
		if fault.Is(err, fault.Forbidden) != c.refused || err != nil && strings.Contains(fault.Line(err), "forbidden") || b.asked != c.asked {
			t.Errorf("%s: %s, %v; the server was asked %d times", name, body, err, b.asked)
		}
		if len(calls) != 1 || (calls[0].Rule == "detect/test" && calls[0].Decision == "denied") != c.refused {
			t.Errorf("%s: recorded is %+v", name, calls)
		}
	}
	if g.lets(t.Context(), "one", "log", []byte(`{"data":"forbidden"}`)) || !g.lets(t.Context(), "one", "log", []byte(`{"data":"x"}`)) {
		t.Error("notifications are not inspected")
	}
	if _, err := g.Asked(t.Context(), &aggregator.Question{Server: "one", Method: "elicitation/create", Params: []byte(`{}`)}); err == nil || errors.Is(err, context.Canceled) {
		t.Errorf("a question of nobody's call: %v", err)
	}
}
