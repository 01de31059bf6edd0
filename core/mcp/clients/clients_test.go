package clients

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"testing"

	"capsem/core/fault"
)

// put writes a file of a home directory.
func put(t *testing.T, home, name, text string) string {
	t.Helper()
	path := filepath.Join(home, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o640); err != nil {
		t.Fatal(err)
	}
	return path
}

func get(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

var (
	own   = Server{Command: "/opt/capsem/bin/capsem", Args: []string{"mcp"}}
	other = Server{Command: "/new/capsem", Args: []string{"mcp"}, Env: map[string]string{"CAPSEM_HOME": "/data"}}
)

func TestDetectListsTheServersOfEveryClient(t *testing.T) {
	home := t.TempDir()
	put(t, home, ".claude.json", `{"numStartups": 5, "mcpServers": {"files": {"type": "stdio", "command": "npx", "args": ["-y", "files"], "env": {"KEY": "secret"}},
		"capsem": {"command": "capsem"}, "broken": {"command": ["a", "secret"]}, "both": {"command": "a", "url": "https://b"}},
		"projects": {"/src/app": {"mcpServers": {"db": {"type": "sse", "url": "https://db.example/sse"}}}, "/src/none": {}}}`)
	put(t, home, ".claude/settings.json", `{"mcpServers": {"old": {"url": "https://old.example", "bearerToken": "secret", "headers": {"A": "b"}}}}`)
	put(t, home, ".codex/config.toml", "model = \"x\"\n[mcp_servers.docs]\ncommand = \"docs\"\nargs = [\"--stdio\"]\n[mcp_servers.docs.env]\nA = \"b\"\n"+
		"[mcp_servers.web]\nurl = \"https://web.example/mcp\"\nbearer_token_env_var = \"WEB_TOKEN\"\nenabled = false\n")
	put(t, home, ".gemini/settings.json", `{"mcpServers": {"s": {"url": "https://s.example/sse"}, "h": {"httpUrl": "https://h.example/mcp"}}}`)
	put(t, home, ".cursor/mcp.json", `{"mcpServers": `)
	put(t, home, ".config/Code/User/mcp.json", "{\n// mine\n\"servers\": {\"git\": {\"type\": \"stdio\", \"command\": \"git-mcp\", \"cwd\": \"/src\",},},\n}")
	put(t, home, ".config/Code/User/settings.json", `{"editor.fontSize": 12, "mcp": {"servers": {"x": {"type": "http", "url": "https://x.example"}}}}`)
	found, problems := Detect(home)
	var got []string
	for _, f := range found {
		got = append(got, fmt.Sprintf("%s %s %s %s%s %v", f.Client, f.Name, f.Transport(), f.Command, f.URL, f.Disabled))
	}
	want := []string{
		"claude files stdio npx false", "claude db sse https://db.example/sse false", "claude old http https://old.example false",
		"codex docs stdio docs false", "codex web http https://web.example/mcp true",
		"gemini h http https://h.example/mcp false", "gemini s sse https://s.example/sse false",
		"vscode git stdio git-mcp false", "vscode x http https://x.example false",
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if f := found[0]; f.Env["KEY"] != "secret" || len(f.Args) != 2 || found[1].Project != "/src/app" || found[2].Token != "secret" ||
		found[3].Env["A"] != "b" || found[4].TokenEnv != "WEB_TOKEN" || found[7].Dir != "/src" {
		t.Errorf("%+v", found)
	}
	var words []string
	for _, p := range problems {
		words = append(words, p.String())
	}
	all := strings.Join(words, "\n")
	for _, w := range []string{"broken", "both", ".cursor/mcp.json"} {
		if !strings.Contains(all, w) {
			t.Errorf("%s is no problem in\n%s", w, all)
		}
	}
	if len(problems) != 3 || strings.Contains(all, "secret") {
		t.Errorf("problems:\n%s", all)
	}
}

func TestDetectIsBounded(t *testing.T) {
	home := t.TempDir()
	var b strings.Builder
	for i := range maxServers + 1 {
		fmt.Fprintf(&b, `,"s%d": {"command": "x"}`, i)
	}
	put(t, home, ".cursor/mcp.json", `{"mcpServers": {`+b.String()[1:]+`}}`)
	put(t, home, ".gemini/settings.json", `{"mcpServers": {"long": {"command": "`+strings.Repeat("x", maxText+1)+`"}, "": {"command": "x"}, "a\u0007": {"command": "x"}}}`)
	if err := os.MkdirAll(filepath.Join(home, ".codex"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(filepath.Join(home, ".codex", "config.toml"), 0o600); err != nil {
		t.Fatal(err)
	}
	put(t, home, ".config/Code/User/mcp.json", `[]`)
	found, problems := Detect(home)
	if len(found) != 0 || len(problems) != 6 {
		t.Errorf("%d found, problems %v", len(found), problems)
	}
}

// settings are files of each client as users have them, and where they are.
var settings = map[Client]struct{ name, text string }{
	Claude: {".claude.json", "{\n  \"numStartups\": 5,\n  \"mcpServers\": {\n    \"a\": {\n      \"command\": \"a\"\n    }\n  },\n  \"big\": 12345678901234567890\n}\n"},
	Codex:  {".codex/config.toml", "# mine\nmodel = \"x\"\n\n[mcp_servers.docs]\ncommand = \"docs\" # why\n\n[profiles.a]\nx = [\n  1,\n]\n"},
	Gemini: {".gemini/settings.json", "{\"theme\":\"dark\",\"mcpServers\":{\"a\":{\"command\":\"a\"}}}"},
	Cursor: {".cursor/mcp.json", "{\n\t\"mcpServers\": {\n\t\t\"a\": {\"url\": \"https://a\"}\n\t}\n}\n"},
	VSCode: {".config/Code/User/mcp.json", "{\n    // servers of mine\n    \"servers\": {\n        \"a\": {\"command\": \"a\"}, // this one\n    },\n    \"inputs\": [],\n}\n"},
}

func apply(t *testing.T, c *Change, err error) string {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	backup, err := c.Apply()
	if err != nil {
		t.Fatal(err)
	}
	return backup
}

func TestInstallAddsCapsemOnceAndUninstallTakesItOut(t *testing.T) {
	for client, s := range settings {
		t.Run(string(client), func(t *testing.T) {
			home := t.TempDir()
			path := put(t, home, s.name, s.text)
			c, err := PlanInstall(home, client, own)
			if err != nil {
				t.Fatal(err)
			}
			diff, err := c.Diff()
			if err != nil || !strings.Contains(diff, "+") || !strings.Contains(diff, own.Command) || get(t, path) != s.text {
				t.Errorf("diff %v:\n%s", err, diff)
			}
			backup := apply(t, c, nil)
			if get(t, backup) != s.text {
				t.Errorf("the copy has %s", get(t, backup))
			}
			if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o640 {
				t.Errorf("mode %v, %v", info.Mode(), err)
			}
			installed := get(t, path)
			if !strings.Contains(installed, own.Command) {
				t.Errorf("no entry in\n%s", installed)
			}
			if c, err = PlanInstall(home, client, own); err != nil || c.Needed() {
				t.Errorf("a second time: %v", err)
			}
			c, err = PlanInstall(home, client, other)
			apply(t, c, err)
			if text := get(t, path); !strings.Contains(text, other.Command) || strings.Contains(text, own.Command) || !strings.Contains(text, "/data") {
				t.Errorf("replaced:\n%s", text)
			}
			c, err = PlanUninstall(home, client)
			apply(t, c, err)
			if text := get(t, path); strings.Contains(text, "capsem") || len(strings.Fields(text)) < len(strings.Fields(s.text))-1 {
				t.Errorf("removed:\n%s", text)
			}
			if client != VSCode && client != Gemini && get(t, path) != s.text { // those had no comma, or one line, to go back to
				t.Errorf("got\n%q\nwant\n%q", get(t, path), s.text)
			}
			if c, err = PlanUninstall(home, client); err != nil || c.Needed() {
				t.Errorf("a second time: %v", err)
			}
		})
	}
}

func TestInstallMakesAFileThatIsNotThere(t *testing.T) {
	for _, client := range All() {
		home := t.TempDir()
		c, err := PlanInstall(home, client, other)
		if backup := apply(t, c, err); backup != "" {
			t.Errorf("%s: a copy of nothing: %s", client, backup)
		}
		if info, err := os.Stat(c.Path); err != nil || info.Mode().Perm() != 0o600 || c.Path != filepath.Join(home, settings[client].name) {
			t.Errorf("%s: %v %v", client, c.Path, err)
		}
		if c, err = PlanInstall(home, client, other); err != nil || c.Needed() {
			t.Errorf("%s: a second time: %v\n%s", client, err, get(t, c.Path))
		}
		if found, problems := Detect(home); len(found)+len(problems) != 0 {
			t.Errorf("%s: %v %v", client, found, problems)
		}
	}
}

func TestInstallRefusesAndLeavesWhatItCannotEdit(t *testing.T) {
	for _, c := range []struct {
		client Client
		text   string
	}{
		{Claude, `{"mcpServers": {`},
		{Claude, `{"mcpServers": []}`},
		{Cursor, `{"mcpServers": {}, "mcpServers": {}}`},
		{Gemini, `["a"]`},
		{VSCode, "{ // open\n \"servers\": 5 }"},
		{Codex, "mcp_servers = 5\n"},
		{Codex, "[mcp_servers\n"},
		{Codex, "mcp_servers = { docs = { command = \"x\" } }\n"},
		{Codex, "[mcp_servers]\ncapsem = { command = \"x\" }\n"},
		{Codex, "mcp_servers.capsem.command = \"x\"\n"},
		{Codex, "a = '''\n[mcp_servers.capsem]\n'''\n[mcp_servers.capsem]\ncommand = \"x\"\n"},
	} {
		home := t.TempDir()
		path := put(t, home, settings[c.client].name, c.text)
		if _, err := PlanInstall(home, c.client, own); !fault.Is(err, fault.Conflict) || !strings.Contains(fault.Line(err), path) {
			t.Errorf("%q: %v", c.text, err)
		}
		if get(t, path) != c.text {
			t.Errorf("%q has become %q", c.text, get(t, path))
		}
	}
}

func TestAFileThatChangedMeanwhileIsLeftAlone(t *testing.T) {
	home := t.TempDir()
	path := put(t, home, ".cursor/mcp.json", "{}\n")
	c, err := PlanInstall(home, Cursor, own)
	if err != nil {
		t.Fatal(err)
	}
	put(t, home, ".cursor/mcp.json", "{\"a\": 1}\n")
	if _, err := c.Apply(); !fault.Is(err, fault.Conflict) || get(t, path) != "{\"a\": 1}\n" {
		t.Errorf("%v: %s", err, get(t, path))
	}
}

func TestALinkedFileStaysALinkAndEveryCopyIsKept(t *testing.T) {
	home := t.TempDir()
	target := put(t, home, "dotfiles/mcp.json", "{}\n")
	link := filepath.Join(home, ".cursor", "mcp.json")
	if err := os.MkdirAll(filepath.Dir(link), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(target, link); err != nil {
		t.Fatal(err)
	}
	c, err := PlanInstall(home, Cursor, own)
	first := apply(t, c, err)
	c, err = PlanInstall(home, Cursor, other)
	second := apply(t, c, err)
	if info, err := os.Lstat(link); err != nil || info.Mode()&os.ModeSymlink == 0 || !strings.Contains(get(t, target), other.Command) {
		t.Errorf("%v %v: %s", info, err, get(t, target))
	}
	if first == second || get(t, first) != "{}\n" || !strings.Contains(get(t, second), own.Command) {
		t.Errorf("copies %s, %s", first, second)
	}
	if err := os.Remove(target); err != nil {
		t.Fatal(err)
	}
	if _, err := PlanInstall(home, Cursor, own); !fault.Is(err, fault.Conflict) {
		t.Errorf("a link to nothing: %v", err)
	}
}

// FuzzSettings reads and edits anything as each kind of file.
func FuzzSettings(f *testing.F) {
	for _, s := range settings {
		f.Add([]byte(s.text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		for _, one := range files("/home/x") {
			found, _, err := one.servers(text)
			for _, s := range found {
				if err == nil && (s.Name == "" || (s.Command == "") == (s.URL == "")) {
					t.Fatalf("%+v", s)
				}
			}
		}
		if out, err := setTOML(text, own); err == nil {
			if again, err := setTOML(out, own); err != nil || !bytes.Equal(again, out) {
				t.Fatalf("%v: %q then %q", err, out, again)
			}
			if _, err := removeTOML(out); err != nil {
				t.Fatalf("remove: %v from %q", err, out)
			}
		}
	})
}
