package config

import (
	"log/slog"
	"os"
	"strings"
	"testing"

	"capsem/core/mcp"
	"capsem/core/paths"
)

func TestServersAreAddedAndRemoved(t *testing.T) {
	home := paths.Home(t.TempDir())
	before := "# mine\n[vm.resources]\ncpu_count = 3 # three\n"
	if err := os.WriteFile(home.UserConfig(), []byte(before), 0o600); err != nil {
		t.Fatal(err)
	}
	source := NewServerSource(home)
	if defs, changed := source.Current(slog.Default()); !changed || len(defs) != 0 {
		t.Errorf("at first %v, %v", defs, changed)
	}
	program := mcp.Definition{
		Name: "tools", Command: "node", Args: []string{`a "b"`, "c\\d\n"}, Env: map[string]string{"API_TOKEN": "secret:tools"}, Read: []string{"/opt/x"}, Network: true,
	}
	web := mcp.Definition{Name: "web", URL: "https://mcp.example/", Headers: map[string]string{"Authorization": "Bearer secret:web"}}
	for _, d := range []*mcp.Definition{&program, &web} {
		if err := AddServer(home, d); err != nil {
			t.Fatal(err)
		}
	}
	defs, changed := source.Current(slog.Default())
	if !changed || len(defs) != 2 || defs[0].Args[1] != "c\\d\n" || defs[0].Args[0] != `a "b"` || !defs[0].Network || defs[1].Headers["Authorization"] != "Bearer secret:web" {
		t.Errorf("added are %+v, %v", defs, changed)
	}
	if _, changed := source.Current(slog.Default()); changed {
		t.Error("what has not changed is said to have")
	}
	if err := AddServer(home, &web); err == nil {
		t.Error("a server was added twice")
	}
	for _, name := range []string{"tools", "web"} {
		if err := RemoveServer(home, name); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(home.UserConfig())
	if err != nil || strings.TrimSpace(string(text)) != strings.TrimSpace(before) {
		t.Errorf("left is %q, %v", text, err)
	}
	if err := RemoveServer(home, "web"); err == nil {
		t.Error("a server was removed twice")
	}
}

func TestImpossibleServersAreNamed(t *testing.T) {
	for text, want := range map[string]string{
		"[mcp.servers.a]\n": "either a command or a url", "[mcp.servers.a__b]\ncommand = \"x\"\n": "no name", "[mcp.servers.local]\ncommand = \"x\"\n": "own",
		"[mcp.servers.a]\ncommand = \"x\"\nurl = \"https://x\"\n": "either", "[mcp.servers.a]\nurl = \"ftp://x\"\n": "http",
		"[mcp.servers.a]\nurl = \"https://x\"\nheaders = { Authorization = \"Bearer abc\" }\n": "secret:NAME", "[mcp.servers.a]\ncommand = \"x\"\nenv = { MY_TOKEN = \"abc\" }\n": "secret:NAME",
		"[mcp.servers.a]\ncommand = \"x\"\ntimeout = \"1ms\"\n": "timeout", "[mcp.servers.a]\ncommand = \"x\"\n[mcp.servers.A]\ncommand = \"x\"\n": "looks like",
		"[mcp.servers.a]\ncomand = \"x\"\n": "there is no setting",
	} {
		home := paths.Home(t.TempDir())
		if err := os.WriteFile(home.UserConfig(), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := load(home.UserConfig(), home.UserConfig()+".none"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v", text, err)
		}
	}
	home := paths.Home(t.TempDir())
	if err := os.WriteFile(home.UserConfig(), []byte("[mcp.servers.a]\ncommand = \"x\"\nenabled = false\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if s, err := load(home.UserConfig(), home.UserConfig()+".none"); err != nil || len(s.MCPServers()) != 0 {
		t.Errorf("a server that is switched off: %+v, %v", s, err)
	}
}
