package clients

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2"
)

// errTOML is a file whose entry is written in a way that cannot be edited line by line.
var errTOML = errors.New("its entry for capsem is written in a way that cannot be edited for you")

var (
	// ownTable is the line that begins capsem's table, or one within it; anyTable one that begins any.
	ownTable = regexp.MustCompile(`^\s*\[\s*(?:mcp_servers|"mcp_servers")\s*\.\s*(?:capsem|"capsem"|'capsem')\s*(\]|\.)`)
	anyTable = regexp.MustCompile(`^\s*\[`)
)

// setTOML puts capsem into the settings of Codex.
func setTOML(text []byte, s Server) ([]byte, error) {
	tree, err := parseTOML(text)
	if err != nil {
		return nil, err
	}
	if servers, ok := tree["mcp_servers"].(map[string]any); ok && servers[ownName] != nil {
		var e entry
		if one, err := toml.Marshal(servers[ownName]); err == nil && toml.Unmarshal(one, &e) == nil && e.same(s) {
			return text, nil
		}
		if text, err = removeTOML(text); err != nil {
			return nil, err
		}
	}
	table, err := tableOf(s)
	if err != nil {
		return nil, err
	}
	out := slices.Clone(text)
	newline := "\n"
	if bytes.Contains(text, []byte("\r\n")) {
		newline = "\r\n"
		table = strings.ReplaceAll(table, "\n", newline)
	}
	if len(out) > 0 {
		if !bytes.HasSuffix(out, []byte("\n")) {
			out = append(out, newline...)
		}
		if len(bytes.TrimSpace(out)) > 0 {
			out = append(out, newline...)
		}
	}
	out = append(out, table...)
	return out, sameElse(tree, out)
}

// tableOf is capsem's table.
func tableOf(s Server) (string, error) {
	body := map[string]any{"command": s.Command, "args": s.Args}
	text, err := toml.Marshal(body)
	if err != nil {
		return "", fmt.Errorf("encode entry: %w", err)
	}
	out := "[mcp_servers.capsem]\n" + string(text)
	if len(s.Env) > 0 {
		env, err := toml.Marshal(s.Env)
		if err != nil {
			return "", fmt.Errorf("encode entry: %w", err)
		}
		out += "\n[mcp_servers.capsem.env]\n" + string(env)
	}
	return out, nil
}

// removeTOML takes capsem's tables out, with the blank line before them.
func removeTOML(text []byte) ([]byte, error) {
	tree, err := parseTOML(text)
	if err != nil {
		return nil, err
	}
	if servers, ok := tree["mcp_servers"].(map[string]any); !ok || servers[ownName] == nil {
		return text, nil
	}
	var out []byte
	own := false
	for line := range bytes.Lines(text) {
		switch {
		case ownTable.Match(line):
			if !own {
				out = oneBlankLess(out)
			}
			own = true
		case anyTable.Match(line):
			if own && len(out) > 0 {
				out = append(out, '\n')
			}
			own = false
		}
		if !own {
			out = append(out, line...)
		}
	}
	return out, sameElse(tree, out)
}

// oneBlankLess is text without the blank line at its end.
func oneBlankLess(text []byte) []byte {
	for _, blank := range []string{"\r\n\r\n", "\n\n"} {
		if bytes.HasSuffix(text, []byte(blank)) {
			return text[:len(text)-len(blank)/2]
		}
	}
	if len(bytes.TrimSpace(text)) == 0 {
		return nil
	}
	return text
}

func parseTOML(text []byte) (map[string]any, error) {
	var tree map[string]any
	if err := toml.Unmarshal(text, &tree); err != nil {
		return nil, fmt.Errorf("it is not TOML: %w", err)
	}
	if tree == nil {
		tree = map[string]any{}
	}
	if servers, there := tree["mcp_servers"]; there {
		if _, ok := servers.(map[string]any); !ok {
			return nil, errors.New("its mcp_servers are no table")
		}
	}
	return tree, nil
}

// sameElse makes sure that an edit changed capsem's entry and nothing else.
func sameElse(before map[string]any, after []byte) error {
	tree, err := parseTOML(after)
	if err != nil || !reflect.DeepEqual(withoutOwn(before), withoutOwn(tree)) {
		return errTOML
	}
	return nil
}

func withoutOwn(tree map[string]any) map[string]any {
	out := maps.Clone(tree)
	if servers, ok := out["mcp_servers"].(map[string]any); ok {
		servers = maps.Clone(servers)
		delete(servers, ownName)
		if out["mcp_servers"] = servers; len(servers) == 0 {
			delete(out, "mcp_servers")
		}
	}
	return out
}
