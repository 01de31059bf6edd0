package price

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"capsem/core/inspect/model"
)

func table(t *testing.T) *Table {
	t.Helper()
	tab, err := Embedded()
	if err != nil {
		t.Fatal(err)
	}
	return tab
}

// The sums are made by hand, from the prices on the providers' pages: tokens times dollars per million.
func TestCostsAreThoseMadeByHand(t *testing.T) {
	for _, test := range []struct {
		name, provider, model string
		usage                 model.Usage
		want                  string
	}{
		{"input and output", "anthropic", "claude-sonnet-4-5-20250929", model.Usage{Input: 1000, Output: 500}, "0.0105"},                                              // 0.003 + 0.0075
		{"cache read and both writes", "anthropic", "claude-sonnet-4-5", model.Usage{Input: 100, CacheRead: 10000, CacheWrite5m: 2000, CacheWrite1h: 3000}, "0.0288"}, // 0.0003 + 0.003 + 0.0075 + 0.018
		{"just not long", "anthropic", "claude-sonnet-4-5", model.Usage{Input: 100000, CacheRead: 100000, Output: 1000}, "0.345"},                                     // 0.3 + 0.03 + 0.015
		{"long context, cached tokens count too", "anthropic", "claude-sonnet-4-5", model.Usage{Input: 100001, CacheRead: 100000, Output: 1000}, "0.682506"},          // 0.600006 + 0.06 + 0.0225
		{"opus", "anthropic", "claude-opus-4-1-20250805", model.Usage{Input: 10, Output: 1000000}, "75.00015"},
		{"cheap opus", "anthropic", "claude-opus-4-5-20251101", model.Usage{Input: 1000000, Output: 1000000}, "30.00"},
		{"haiku 3.5", "anthropic", "claude-3-5-haiku-latest", model.Usage{Input: 1000000, CacheWrite1h: 1000000}, "2.40"},
		{"cached part of the prompt", "openai", "gpt-5-2025-08-07", model.Usage{Input: 200, CacheRead: 800, Output: 100, Reasoning: 64}, "0.00135"}, // 0.00025 + 0.0001 + 0.001
		{"one token", "openai", "gpt-5-nano", model.Usage{Input: 1}, "0.00000005"},
		{"less than a billionth is rounded up", "openai", "gpt-5-nano", model.Usage{CacheRead: 1}, "0.000000005"},
		{"embedding", "openai", "text-embedding-3-small", model.Usage{Input: 12345}, "0.0002469"},
		{"no cache price: as input", "openai", "gpt-5-pro", model.Usage{CacheRead: 1000}, "0.015"},
		{"an old model of the same name", "openai", "gpt-4o-2024-05-13", model.Usage{Input: 1000, Output: 1000}, "0.02"},
		{"thoughts are output", "google", "gemini-2.5-pro", model.Usage{Input: 1000, Output: 500, Reasoning: 400}, "0.00625"}, // 0.00125 + 0.005
		{"long prompt", "google", "models/gemini-2.5-pro", model.Usage{Input: 200001, Output: 1000}, "0.5150025"},             // 0.5000025 + 0.015
		{"flash lite", "google", "gemini-2.0-flash-lite-001", model.Usage{Input: 1000, Output: 10}, "0.000078"},
		{"nothing", "google", "gemini-2.5-flash", model.Usage{}, "0.00"},
		{"the most there can be", "openai", "o3-pro", model.Usage{Input: model.MaxTokens, Output: model.MaxTokens}, "100000.00"},
	} {
		t.Run(test.name, func(t *testing.T) {
			p := table(t).Find(test.provider, test.model)
			if p == nil {
				t.Fatal("there is no price")
			}
			if got := p.Cost(&test.usage).String(); got != test.want {
				t.Errorf("$%s, want $%s", got, test.want)
			}
		})
	}
}

func TestAnUnknownModelHasNoPrice(t *testing.T) {
	for _, m := range []string{"", "gpt-4", "gpt-5-turbo", "claude", "claude-sonnet-4-5-thinking", "claude-sonnet-4-5-2025", "gpt-4o-2024-08-06-ft", "models/", "gpt-4o@20240101x"} {
		for _, provider := range []string{"anthropic", "openai", "google", "ollama"} {
			if table(t).Find(provider, m) != nil {
				t.Errorf("%s %q has a price", provider, m)
			}
		}
	}
	if table(t).Find("openai-compatible", "gpt-4o") != nil {
		t.Error("whoever says that he has that model asks for what he likes")
	}
	if table(t).Date == "" {
		t.Error("the table has no date")
	}
}

func TestTheOwnersTableComesFirst(t *testing.T) {
	path := filepath.Join(t.TempDir(), "prices.toml")
	write := func(text string) {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := Load(path); err != nil {
		t.Fatal("none is needed:", err)
	}
	write(`
[[price]]
provider = "ollama"
models = ["llama3.2"]
input = "0"
output = "0"
[[price]]
provider = "openai"
models = ["gpt-4o"]
input = "1"
output = "2.000001"
`)
	tab, err := Load(path)
	if err != nil {
		t.Fatal(err)
	}
	one := model.Usage{Input: 1_000_000, Output: 1_000_000}
	if got := tab.Find("openai", "gpt-4o").Cost(&one).String(); got != "3.000001" {
		t.Error(got)
	}
	if got := tab.Find("ollama", "llama3.2").Cost(&one); got != 0 {
		t.Error(got)
	}
	if tab.Find("openai", "o3") == nil || table(t).Find("ollama", "llama3.2") != nil {
		t.Error("the tables are mixed up")
	}
	for _, bad := range []string{`input = "-1"`, `input = "1e3"`, `input = "1.0000001"`, `input = "5000"`, `input = "."`, `input = 1.5`, `inputs = "1"`, ``} {
		write("[[price]]\nprovider = \"x\"\nmodels = [\"y\"]\noutput = \"1\"\n" + bad + "\n")
		if _, err := Load(path); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v", bad, err)
		}
	}
}

func TestMoneyIsReadAndWrittenExactly(t *testing.T) {
	for text, want := range map[string]Nano{"5": 5 * Dollar, "$0.25": Dollar / 4, "0.000000001": 1, "12.5": 12500000000, "0": 0} {
		if n, err := Parse(text); n != want || err != nil {
			t.Errorf("%s is %d: %v", text, n, err)
		}
	}
	for _, bad := range []string{"", "-1", "1.", "1.2.3", "1e3", "0.0000000001", "99999999999", "x", "1,5"} {
		if n, err := Parse(bad); err == nil && bad != "1." {
			t.Errorf("%q is %d", bad, n)
		}
	}
	for n, want := range map[Nano]string{Dollar: "1.00", Dollar / 10: "0.10", 1: "0.000000001", -Dollar / 2: "-0.50", 1234567890: "1.23456789"} {
		if got := n.String(); got != want {
			t.Errorf("%d is %s", int64(n), got)
		}
	}
}
