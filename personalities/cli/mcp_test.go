package cli

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestMCPInstallShowsTheChangeAndMakesItOnlyWhenAgreed(t *testing.T) {
	f := newService(t)
	path := filepath.Join(f.home.Dir(), ".cursor", "mcp.json")
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	const before = "{\n  \"mcpServers\": {\n    \"a\\u001b\": {\"command\": \"a\"}\n  }\n}\n"
	if err := os.WriteFile(path, []byte(before), 0o600); err != nil {
		t.Fatal(err)
	}
	text := func() string {
		got, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return string(got)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	r := f.capsem(nil, "mcp", "install", "cursor")
	if r.code == 0 || !strings.Contains(r.stdout, "+    \"capsem\"") || !strings.Contains(r.stderr, "-y") || text() != before {
		t.Errorf("%+v\n%s", r, text())
	}
	r = f.capsem(nil, "mcp", "install", "-y", "cursor")
	if r.code != 0 || !strings.Contains(text(), self) || !strings.Contains(text(), `"CAPSEM_HOME": "`+f.home.Dir()) || !strings.Contains(r.stdout, ".before-capsem") {
		t.Errorf("%+v\n%s", r, text())
	}
	if r = f.capsem(nil, "mcp", "install", "cursor"); r.code != 0 || !strings.Contains(r.stdout, "already") {
		t.Errorf("again: %+v", r)
	}
	if r = f.capsem(nil, "mcp", "uninstall", "--yes", "cursor"); r.code != 0 || text() != before {
		t.Errorf("%+v\n%s", r, text())
	}
	if r = f.capsem(nil, "mcp", "uninstall", "cursor"); r.code != 0 || !strings.Contains(r.stdout, "not in") {
		t.Errorf("again: %+v", r)
	}
	if r = f.capsem(nil, "mcp", "install", "emacs"); r.code != 1 || !strings.Contains(r.stderr, "vscode") {
		t.Errorf("unknown client: %+v", r)
	}
	if err := os.WriteFile(path, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if r = f.capsem(nil, "mcp", "install", "-y", "cursor"); r.code != 1 || !strings.Contains(r.stderr, path) || text() != "{" {
		t.Errorf("broken settings: %+v", r)
	}
	f.wantCalls()
}
