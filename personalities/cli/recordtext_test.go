package cli

import (
	"testing"

	"capsem/core/api"
)

func TestACallOfAModelIsALineThatCanBeRead(t *testing.T) {
	for want, e := range map[string]api.RecordEntry{
		"anthropic claude-x 200  11 tokens in, 7 out  end_turn": {Kind: "model", Fields: map[string]any{
			"provider": "anthropic", "model": "claude-x", "status_code": 200, "input_tokens": 11, "output_tokens": 7, "stop_reason": "end_turn", "duration_ms": 5, "pid": 3,
		}},
		"openai gpt 401": {Kind: "model", Fields: map[string]any{"provider": "openai", "model": "gpt", "status_code": 401}},
		"injected secret hub api.github.com header authorization": {Kind: "substitution", Fields: map[string]any{
			"action": "injected", "credential": "hub", "domain": "api.github.com", "place": "header authorization", "form": "plain", "pid": 3,
		}},
	} {
		if got := entryText(e); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	for want, cost := range map[string]string{
		"0.0000 USD": costText(0, 0), "cost not known": costText(0, 2), "0.5000 USD and 1 of unknown cost": costText(0.5, 1),
	} {
		if cost != want {
			t.Errorf("%q, want %q", cost, want)
		}
	}
}
