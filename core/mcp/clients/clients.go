// Package clients knows the settings files in which the user's agents keep their MCP servers: it lists the servers that are there, and
// puts capsem among them or takes it out. Files that people wrote are edited with care: what is not capsem's stays to the byte.
package clients

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"

	"capsem/core/fault"
	"capsem/core/mcp/jsonc"
)

// Client is an agent or editor.
type Client string

// The clients.
const (
	Claude Client = "claude"
	Codex  Client = "codex"
	Gemini Client = "gemini"
	Cursor Client = "cursor"
	VSCode Client = "vscode"
)

// All lists them.
func All() []Client { return []Client{Claude, Codex, Gemini, Cursor, VSCode} }

// Parse is the client of a name.
func Parse(name string) (Client, error) {
	for _, c := range All() {
		if string(c) == name {
			return c, nil
		}
	}
	return "", fault.New(fault.Invalid, "there is no client %.40q", name).WithHint("it is one of claude, codex, gemini, cursor and vscode")
}

// Title is its name for a reader.
func (c Client) Title() string {
	return map[Client]string{Claude: "Claude Code", Codex: "Codex", Gemini: "Gemini CLI", Cursor: "Cursor", VSCode: "Visual Studio Code"}[c]
}

// file is one settings file.
type file struct {
	client Client
	path   string
	// key is where in it the servers are; nil is TOML's table mcp_servers.
	key []string
	// projects says that further servers are in its member "projects".
	projects bool
}

// installed is the file that capsem is written to.
func installed(home string, c Client) file {
	for _, f := range files(home) {
		if f.client == c {
			return f
		}
	}
	return file{}
}

// files are all that may have servers; the first of a client is the one to install to.
func files(home string) []file {
	servers := []string{"mcpServers"}
	code := filepath.Join(home, ".config", "Code", "User")
	desktop := filepath.Join(home, ".config", "Claude")
	if info, err := os.Stat(filepath.Join(home, "Library", "Application Support")); err == nil && info.IsDir() { // macOS
		code = filepath.Join(home, "Library", "Application Support", "Code", "User")
		desktop = filepath.Join(home, "Library", "Application Support", "Claude")
	}
	return []file{
		{client: Claude, path: filepath.Join(home, ".claude.json"), key: servers, projects: true},
		{client: Claude, path: filepath.Join(home, ".claude", "settings.json"), key: servers},
		{client: Claude, path: filepath.Join(desktop, "claude_desktop_config.json"), key: servers},
		{client: Codex, path: filepath.Join(home, ".codex", "config.toml")},
		{client: Gemini, path: filepath.Join(home, ".gemini", "settings.json"), key: servers},
		{client: Cursor, path: filepath.Join(home, ".cursor", "mcp.json"), key: servers},
		{client: VSCode, path: filepath.Join(code, "mcp.json"), key: []string{"servers"}},
		{client: VSCode, path: filepath.Join(code, "settings.json"), key: []string{"mcp", "servers"}},
	}
}

// read reads a settings file; there is nothing when it does not exist.
func read(path string) ([]byte, os.FileMode, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if errors.Is(err, os.ErrNotExist) {
		return nil, 0, nil
	}
	if err != nil {
		return nil, 0, fmt.Errorf("open settings: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, 0, fmt.Errorf("stat settings: %w", err)
	}
	if !info.Mode().IsRegular() {
		return nil, 0, errors.New("it is not a file")
	}
	text, err := io.ReadAll(io.LimitReader(f, jsonc.MaxSize+1))
	if err != nil {
		return nil, 0, fmt.Errorf("read settings: %w", err)
	}
	if len(text) > jsonc.MaxSize {
		return nil, 0, fmt.Errorf("it is larger than %d bytes", jsonc.MaxSize)
	}
	return text, info.Mode().Perm(), nil
}
