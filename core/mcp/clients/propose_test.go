package clients_test

import (
	"strings"
	"testing"

	"capsem/core/fault"
	"capsem/core/mcp/clients"
)

func TestAProposalHasNoSecretInIt(t *testing.T) {
	key := "AK" + "IA" + "2E4GQ7BZMNK3YHTV"
	f := clients.Found{
		Client: clients.Claude, Name: "github", Command: "npx", Args: []string{"-y", "server"}, Dir: "/src",
		Env: map[string]string{"GITHUB_TOKEN": "a value", "LOG": "debug", "PLAIN": key, "FROM_ENV": "${MY_VAR}", "ASKED": "${input:x}"},
	}
	p, err := f.Propose("github")
	if err != nil {
		t.Fatal(err)
	}
	env := p.Definition.Env
	if env["LOG"] != "debug" || env["GITHUB_TOKEN"] != "secret:mcp.github.GITHUB_TOKEN" || env["PLAIN"] != "secret:mcp.github.PLAIN" || env["FROM_ENV"] != "secret:mcp.github.FROM_ENV" || env["ASKED"] != "secret:mcp.github.ASKED" {
		t.Errorf("the environment is %v", env)
	}
	got := map[string]clients.ProposedSecret{}
	for _, s := range p.Secrets {
		got[s.Of] = s
	}
	if len(got) != 4 || got["GITHUB_TOKEN"].Value != "a value" || got["PLAIN"].Value != key || got["FROM_ENV"].Variable != "MY_VAR" || got["ASKED"].Value+got["ASKED"].Variable != "" {
		t.Errorf("the secrets are of %d", len(got))
	}
	if len(p.Lost) != 1 {
		t.Errorf("lost are %v", p.Lost)
	}
}

func TestAProposalOfAURL(t *testing.T) {
	f := clients.Found{Client: clients.Codex, Name: "web", URL: "https://web.test/mcp", Token: "the token", Headers: map[string]string{"X-Api-Key": "the key", "X-Team": "blue"}}
	p, err := f.Propose("web")
	if err != nil {
		t.Fatal(err)
	}
	h := p.Definition.Headers
	if h["Authorization"] != "Bearer secret:mcp.web.Authorization" || h["X-Api-Key"] != "secret:mcp.web.X-Api-Key" || h["X-Team"] != "blue" || len(p.Secrets) != 2 || p.Secrets[0].Value != "the token" {
		t.Errorf("%v", h)
	}
	f = clients.Found{Client: clients.Codex, Name: "web", URL: "https://web.test/mcp", TokenEnv: "WEB_TOKEN"}
	if p, err = f.Propose("web"); err != nil || len(p.Secrets) != 1 || p.Secrets[0].Variable != "WEB_TOKEN" {
		t.Errorf("%v", err)
	}
}

func TestWhatEverybodyCouldReadIsNoProposal(t *testing.T) {
	key := "AK" + "IA" + "2E4GQ7BZMNK3YHTV"
	for name, f := range map[string]clients.Found{
		"an argument": {Command: "x", Args: []string{key}}, "a flag": {Command: "x", Args: []string{"--api-key=abc"}},
		"a query": {URL: "https://web.test/mcp?token=abc"}, "a path from nowhere": {Command: "./x"},
	} {
		if _, err := f.Propose("one"); !fault.Is(err, fault.Invalid) || strings.Contains(fault.Line(err), key) {
			t.Errorf("%s: %v", name, err)
		}
	}
	f := clients.Found{Command: "x"}
	if _, err := f.Propose("local"); err == nil {
		t.Error("the name of capsem's own server was taken")
	}
}
