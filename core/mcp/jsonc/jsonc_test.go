package jsonc

import (
	"bytes"
	"errors"
	"strings"
	"testing"
)

var (
	path  = []string{"mcpServers", "capsem"}
	entry = map[string]any{"command": "/bin/capsem"}
)

func TestSetKeepsEveryOtherByte(t *testing.T) {
	for _, c := range []struct{ name, before, after string }{
		{"no file", "", "{\n  \"mcpServers\": {\n    \"capsem\": {\n      \"command\": \"/bin/capsem\"\n    }\n  }\n}\n"},
		{"empty object", "{}", "{\n  \"mcpServers\": {\n    \"capsem\": {\n      \"command\": \"/bin/capsem\"\n    }\n  }\n}"},
		{
			"other settings, tabs",
			"{\n\t\"theme\": \"dark\"\n}\n",
			"{\n\t\"theme\": \"dark\",\n\t\"mcpServers\": {\n\t\t\"capsem\": {\n\t\t\t\"command\": \"/bin/capsem\"\n\t\t}\n\t}\n}\n",
		},
		{
			"another server, comment and trailing comma",
			"{\n  // mine\n  \"mcpServers\": {\n    \"a\": {\"command\": \"x\"}, // keep, this\n  },\n}\n",
			"{\n  // mine\n  \"mcpServers\": {\n    \"a\": {\"command\": \"x\"}, // keep, this\n    \"capsem\": {\n      \"command\": \"/bin/capsem\"\n    }\n  },\n}\n",
		},
		{
			"comment after the last member",
			"{\n  \"mcpServers\": {\n    \"a\": 1 /* , */ // note\n  }\n}",
			"{\n  \"mcpServers\": {\n    \"a\": 1, /* , */ // note\n    \"capsem\": {\n      \"command\": \"/bin/capsem\"\n    }\n  }\n}",
		},
		{
			"in one line",
			`{"mcpServers": {"a": [1, {"b": "}"}]}, "z": 1.5e3}`,
			"{\"mcpServers\": {\"a\": [1, {\"b\": \"}\"}],\n  \"capsem\": {\n    \"command\": \"/bin/capsem\"\n  }\n}, \"z\": 1.5e3}",
		},
		{
			"replaced",
			"{\n    \"mcpServers\": {\n        \"capsem\": \"old\", // why\n        \"b\": null\n    }\n}\n",
			"{\n    \"mcpServers\": {\n        \"capsem\": {\n            \"command\": \"/bin/capsem\"\n        }, // why\n        \"b\": null\n    }\n}\n",
		},
		{
			"Windows line ends",
			"{\r\n  \"a\": 1\r\n}\r\n",
			"{\r\n  \"a\": 1,\r\n  \"mcpServers\": {\r\n    \"capsem\": {\r\n      \"command\": \"/bin/capsem\"\r\n    }\r\n  }\r\n}\r\n",
		},
		{
			"only a comment",
			"// nothing yet\n",
			"// nothing yet\n{\n  \"mcpServers\": {\n    \"capsem\": {\n      \"command\": \"/bin/capsem\"\n    }\n  }\n}\n",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := Set([]byte(c.before), path, entry)
			if err != nil || string(got) != c.after {
				t.Errorf("got %v\n%s\nwant\n%s", err, got, c.after)
			}
			again, err := Set(got, path, entry)
			if err != nil || !bytes.Equal(again, got) {
				t.Errorf("a second time: %v\n%s", err, again)
			}
		})
	}
}

func TestRemoveIsTheReverseOfSet(t *testing.T) {
	for _, before := range []string{
		"{\n  \"mcpServers\": {\n    \"a\": {\"command\": \"x\"}, // keep, this\n  },\n}\n",
		"{\n  \"mcpServers\": {\n    \"a\": 1 /* , */ // note\n  }\n}",
		"{\r\n\t\"mcpServers\": {\r\n\t\t\"a\": 1\r\n\t},\r\n\t\"b\": 2\r\n}",
	} {
		set, err := Set([]byte(before), path, entry)
		if err != nil {
			t.Fatal(err)
		}
		got, err := Remove(set, path)
		if err != nil {
			t.Errorf("%v\n%s", err, set)
		}
		// Where there was no comma one is taken away again; where there was one it stays.
		if string(got) != before && string(got) != strings.Replace(before, "},", "}", 1) {
			t.Errorf("got\n%q\nof\n%q", got, before)
		}
	}
	for _, c := range []struct{ before, after string }{
		{`{"mcpServers": {"capsem": 1, "b": 2}}`, `{"mcpServers": { "b": 2}}`},
		{`{"mcpServers": {"capsem": 1}}`, `{"mcpServers": {}}`},
		{"{\n  \"mcpServers\": {\n    \"capsem\": 1,\n    \"b\": 2\n  }\n}", "{\n  \"mcpServers\": {\n    \"b\": 2\n  }\n}"},
		{"{\n  \"mcpServers\": {\n    \"b\": 2,\n    \"capsem\": 1\n  }\n}", "{\n  \"mcpServers\": {\n    \"b\": 2\n  }\n}"},
		{`{"other": 1}`, `{"other": 1}`},
		{"", ""},
	} {
		if got, err := Remove([]byte(c.before), path); err != nil || string(got) != c.after {
			t.Errorf("%q: got %q, %v", c.before, got, err)
		}
	}
}

func TestWhatCannotBeEditedIsRefused(t *testing.T) {
	for _, c := range []struct {
		name, text string
		want       error
	}{
		{"half a file", `{"mcpServers": {`, ErrSyntax},
		{"not JSON", "mcpServers: capsem", ErrSyntax},
		{"stray slash", `{"a": /}`, ErrSyntax},
		{"endless comment", `{"a": 1 /* }`, ErrSyntax},
		{"comma without a value", `{,}`, nil},
		{"two commas", `{"a":1,,}`, ErrSyntax},
		{"bytes", "{\"a\": \"\xff\"}", ErrSyntax},
		{"deep", strings.Repeat("[", 500) + strings.Repeat("]", 500), ErrSyntax},
		{"a list", `[]`, ErrShape},
		{"servers are a list", `{"mcpServers": []}`, ErrShape},
		{"servers twice", `{"mcpServers": {}, "mcpServers": {}}`, ErrShape},
		{"capsem twice", `{"mcpServers": {"capsem": 1, "capsem": 2}}`, ErrShape},
		{"another blank", "\v", ErrSyntax},
		{"two values", `{} {}`, ErrSyntax},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := Set([]byte(c.text), path, entry)
			if c.want != nil && !errors.Is(err, c.want) {
				t.Errorf("set: %v", err)
			}
			if _, err := Remove([]byte(c.text), path); c.want != nil && !errors.Is(err, c.want) {
				t.Errorf("remove: %v", err)
			}
		})
	}
}

// FuzzEdit edits anything: what comes out is readable and has the entry, and only it, changed (Set checks that itself), or nothing does.
func FuzzEdit(f *testing.F) {
	for _, text := range []string{
		"{}", "{\n\t// c\n\t\"mcpServers\": {\"a\": [1, true, null, \"x\\\"\"],},\n}", `{"mcpServers":{"capsem":{}}}`, "", "\xef\xbb\xbf{}", `{"a":{"b":{}}/**/,}`,
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		set, err := Set(text, path, entry)
		if err != nil {
			return
		}
		has := func(text []byte) bool {
			var tree map[string]any
			if err := Decode(text, &tree); err != nil {
				t.Fatalf("%v in %q", err, text)
			}
			servers, _ := tree["mcpServers"].(map[string]any)
			return servers["capsem"] != nil
		}
		if !has(set) {
			t.Fatalf("nothing in %q of %q", set, text)
		}
		removed, err := Remove(set, path)
		if err != nil {
			t.Fatalf("remove: %v from %q", err, set)
		}
		if has(removed) {
			t.Fatalf("still in %q", removed)
		}
	})
}
