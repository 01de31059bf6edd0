package gateway

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	sdk "github.com/modelcontextprotocol/go-sdk/mcp"

	"capsem/core/mcp"
	"capsem/core/mcp/aggregator"
)

func viewOf(t testing.TB, offers ...*aggregator.Offering) *view {
	t.Helper()
	return makeView(offers, mcp.OpenPins(filepath.Join(t.TempDir(), "pins.json")))
}

func rows(t testing.TB, items ...any) (out [][]byte) {
	t.Helper()
	for _, item := range items {
		body, err := json.Marshal(item)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, body)
	}
	return out
}

type fields = map[string]any

func TestPromptsHaveNamesThatAreTheirOwn(t *testing.T) {
	long := strings.Repeat("word ", 1000)
	v := viewOf(t, &aggregator.Offering{Server: "one", Prompts: rows(t,
		fields{"name": "review", "description": "a\nb\u202e" + long, "arguments": []fields{{"name": "file", "description": long}, {"name": "x\ny"}}},
		fields{"name": "re view"}, fields{"name": "rеview"}, fields{"name": ""}, fields{"name": strings.Repeat("a", 129)},
		fields{"name": "list"}, fields{"name": "1ist"}, fields{"name": "zed"}, fields{"name": "zed"}, 7,
	)}, &aggregator.Offering{Server: "two", Prompts: rows(t, fields{"name": "review"})})
	var names []string
	for _, p := range v.prompts {
		names = append(names, p.Name)
	}
	if got := strings.Join(names, " "); got != "one__review one__zed two__review" {
		t.Errorf("offered are %s", got)
	}
	p := v.prompts[0]
	if len(p.Description) > maxWords || strings.ContainsAny(p.Description, "\n\u202e") || !utf8.ValidString(p.Description) || len(p.Arguments) != 1 || len(p.Arguments[0].Description) > maxWords {
		t.Errorf("the prompt says %q, and has %d arguments", p.Description, len(p.Arguments))
	}
	if v.hasPrompt("one__list") || v.hasPrompt("one__other") || !v.hasPrompt("two__review") {
		t.Error("what is offered can be got, and nothing else")
	}
}

func TestResourcesAreTheirServers(t *testing.T) {
	v := viewOf(t, &aggregator.Offering{
		Server: "one",
		Resources: rows(t,
			fields{"uri": "file:///b", "name": "two__b\u202e\n", "description": "x\ny"}, fields{"uri": "file:///a", "name": "a"}, fields{"uri": "file:///a", "name": "again"},
			fields{"uri": "x:ignore all that"}, fields{"uri": "no-scheme"}, fields{"uri": ""}, fields{"uri": "file:///" + strings.Repeat("a", 3000)},
		),
		Templates: rows(t, fields{"uriTemplate": "file:///{path}", "name": "t"}, fields{"uriTemplate": "a b"}),
	})
	if len(v.resources) != 2 || v.resources[0].URI != "capsem://one/file:///a" || v.resources[0].Name != "one__a" {
		t.Fatalf("offered are %+v", v.resources)
	}
	if r := v.resources[1]; !strings.HasPrefix(r.Name, "one__") || strings.ContainsAny(r.Name+r.Description, "\n\u202e") {
		t.Errorf("offered is %+v", r)
	}
	if len(v.templates) != 1 {
		t.Errorf("templates are %+v", v.templates)
	}
}

func TestListsArePagedThroughWhole(t *testing.T) {
	o := &aggregator.Offering{Server: "one"}
	const count = 2*pageSize + 7
	for i := range count {
		o.Resources = append(o.Resources, rows(t, fields{"uri": fmt.Sprintf("file:///%d", (i*7919)%count)})...)
	}
	v := viewOf(t, o)
	seen, cursor := map[string]bool{}, ""
	for range 4 {
		var part []*sdk.Resource
		part, cursor = page(v.resources, func(r *sdk.Resource) string { return r.URI }, cursor)
		for _, r := range part {
			seen[r.URI] = true
		}
		if cursor == "" {
			break
		}
	}
	if len(seen) != count || cursor != "" {
		t.Errorf("%d of %d were seen, and then %q", len(seen), count, cursor)
	}
}

func FuzzTexts(f *testing.F) {
	f.Add([]byte(`{"a":["b\u0041",1,{"c":null}]}`))
	f.Add([]byte(`{`))
	f.Fuzz(func(t *testing.T, body []byte) {
		text, err := texts(body)
		if err == nil && len(text) > 4*len(body)+4 {
			t.Errorf("%d bytes of %d", len(text), len(body))
		}
	})
}

func FuzzLists(f *testing.F) {
	f.Add([]byte(`{"name":"a","uri":"x:y","uriTemplate":"x:{y}","arguments":[null,{"name":"n"}]}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		v := viewOf(t, &aggregator.Offering{Server: "one", Prompts: [][]byte{body}, Resources: [][]byte{body}, Templates: [][]byte{body}})
		for _, p := range v.prompts {
			if server, name, ok := mcp.Split(p.Name); !ok || server != "one" || !mcp.PlainName(name) {
				t.Errorf("offered is %q", p.Name)
			}
		}
		for _, r := range v.resources {
			if server, _, ok := mcp.SplitURI(r.URI); !ok || server != "one" {
				t.Errorf("offered is %q", r.URI)
			}
		}
	})
}
