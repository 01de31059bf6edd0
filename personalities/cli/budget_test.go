package cli

import (
	"strings"
	"testing"

	"capsem/core/api"
)

func TestBudgetsAreSetAsTheyAreSaid(t *testing.T) {
	for line, calls := range map[string][]string{
		"budget set money=2.50": {`POST /budgets {"scope":"install","period":"day","meter":"money","limit":2500000000}`},
		"budget set --vm dev --per session requests=3 tokens=2M": {
			`POST /budgets {"scope":"vm","name":"dev","period":"session","meter":"requests","limit":3}`,
			`POST /budgets {"scope":"vm","name":"dev","period":"session","meter":"tokens","limit":2000000}`,
		},
		"budget set --image work bytes=1G": {`POST /budgets {"scope":"image","name":"work","period":"day","meter":"bytes","limit":1073741824}`},
		"budget set money=none":            {`POST /budgets {"scope":"install","period":"day","meter":"money","limit":null}`},
		"budget reset":                     {`POST /budgets/reset {"scope":"install"}`},
		"budget reset --vm dev":            {`POST /budgets/reset {"scope":"vm","name":"dev"}`},
		"budget reset --all":               {`POST /budgets/reset {"all":true}`},
	} {
		f := newService(t)
		f.answer("POST /budgets", api.Success{Success: true})
		f.answer("POST /budgets/reset", api.Success{Success: true})
		if r := f.capsem(nil, strings.Fields(line)...); r.code != 0 || r.stdout != "" {
			t.Errorf("%s: %+v", line, r)
		}
		f.wantCalls(calls...)
	}
	for _, line := range []string{
		"budget set", "budget set money", "budget set money=-1", "budget set money=1e9", "budget set tokens=1.5M", "budget set tokens=M", "budget set bytes=99999999999G",
		"budget set --vm a --image b money=1", "budget reset --all --vm a",
	} {
		f := newService(t)
		if r := f.capsem(nil, strings.Fields(line)...); r.code == 0 || len(f.asked()) != 0 {
			t.Errorf("%s: %+v", line, r)
		}
	}
}

func TestBudgetsAreShownInTheirUnits(t *testing.T) {
	f := newService(t)
	five, many := int64(5_000_000_000), int64(100)
	f.answer("GET /budgets", api.BudgetsReply{Budgets: []api.Budget{
		{Scope: "install", Period: "day", Meter: "money", Limit: &five, Used: 1_250_000_001, Held: 1_000_000},
		{Scope: "install", Period: "session", Meter: "requests", Limit: &many},
		{Scope: "vm", Name: "dev\x1b[31m", Period: "session", Meter: "tokens", Used: 42},
	}})
	r := f.capsem(nil, "budget", "show")
	for _, want := range []string{"$5.00", "$1.250000001", "$0.001", "(each VM)", "42", "none"} {
		if !strings.Contains(r.stdout, want) {
			t.Errorf("there is no %q in\n%s", want, r.stdout)
		}
	}
	if r.code != 0 || strings.Contains(r.stdout, "\x1b") {
		t.Errorf("%+v", r)
	}
}

func TestModelCallsAreATable(t *testing.T) {
	f := newService(t)
	f.answer("GET /history/dev", api.HistoryPage{Entries: []api.RecordEntry{
		{Kind: "model", Time: "2026-01-01T00:00:01Z", Fields: map[string]any{
			"provider": "ollama", "model": "llama", "status_code": 200, "input_tokens": 12345678, "output_tokens": 2, "duration_ms": 7,
			"usage_details": `{"cost_nano_usd":null,"cut":"cut by capsem"}`,
		}},
		{Kind: "model", Time: "2026-01-01T00:00:00Z", Fields: map[string]any{
			"provider": "anthropic", "model": "claude", "status_code": 200, "input_tokens": 1, "output_tokens": 2, "stop_reason": "end_turn", "trace_id": "t1",
			"usage_details": `{"cache_read":9,"first_token_ms":5,"cost_nano_usd":4050000}`,
		}},
	}})
	r := f.capsem(nil, "models", "dev", "-n", "5")
	lines := strings.Split(r.stdout, "\n")
	if r.code != 0 || len(lines) != 4 {
		t.Fatalf("%+v", r)
	}
	for i, wants := range [][]string{{"MODEL"}, {"anthropic claude", "$0.00405", "5 ms", "t1", "end_turn"}, {"12345678", "?", "cut by capsem"}} {
		for _, want := range wants {
			if !strings.Contains(lines[i], want) {
				t.Errorf("there is no %q in %q", want, lines[i])
			}
		}
	}
	f.wantCalls("GET /history/dev?kind=model&limit=5")
}
