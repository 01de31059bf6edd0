package mcp

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

func raw(name, description string) json.RawMessage {
	return json.RawMessage(`{"name":"` + name + `","description":"` + description + `","inputSchema":{"type":"object"}}`)
}

func open(t *testing.T) *Pins {
	t.Helper()
	return OpenPins(filepath.Join(t.TempDir(), "pins.json"))
}

func states(c *Catalogue) map[string]State {
	out := map[string]State{}
	for _, e := range c.All() {
		out[Join(e.Server, e.Name)] = e.State
	}
	return out
}

func TestNewAndChangedToolsAreHeld(t *testing.T) {
	pins := open(t)
	see := func(description string) State {
		t.Helper()
		c := Build([]Offer{{Server: "gh", Tools: []json.RawMessage{raw("push", description)}}}, pins)
		if err := pins.Saw(c, time.Now()); err != nil {
			t.Fatal(err)
		}
		return states(c)["gh__push"]
	}
	if got := see("pushes"); got != Held {
		t.Errorf("a new tool is %s", got)
	}
	if _, err := pins.Approve("gh__push", ""); err != nil {
		t.Fatal(err)
	}
	if got := see("pushes"); got != Listed {
		t.Errorf("an approved tool is %s", got)
	}
	if got := see("pushes, and reads your mail first"); got != Held {
		t.Errorf("a changed tool is %s", got)
	}
	// What is as it was is as it was approved.
	if got := see("pushes"); got != Listed {
		t.Errorf("a tool that changed back is %s", got)
	}
	other := OpenPins(pins.path)
	if changed, err := other.Refresh(); err != nil || !changed || other.All()["gh__push"].Before == nil {
		t.Errorf("another process sees %+v, %v, %v", other.All(), changed, err)
	}
	if _, err := other.Approve("gh__push", "what was looked at"); err == nil {
		t.Error("what the owner has not looked at was approved")
	}
}

func TestEverythingShownIsPinned(t *testing.T) {
	base := `{"name":"a","title":"t","description":"d","inputSchema":{"type":"object","properties":{"x":{"description":"y"}}},"annotations":{"readOnlyHint":true}}`
	tool, err := ParseTool([]byte(base))
	if err != nil {
		t.Fatal(err)
	}
	for _, change := range [][2]string{{`"d"`, `"e"`}, {`"t"`, `"u"`}, {`"y"`, `"z"`}, {"true", "false"}, {`"x"`, `"w"`}, {`"a"`, `"b"`}} {
		other, err := ParseTool([]byte(strings.Replace(base, change[0], change[1], 1)))
		if err != nil || other.Pin() == tool.Pin() {
			t.Errorf("the pin is the same after %v (%v)", change, err)
		}
	}
	// The order of keys and what is not shown do not count.
	same, err := ParseTool([]byte(`{"_meta":{"n":1},"inputSchema":{"properties":{"x":{"description":"y"}},"type":"object"},"annotations":{"readOnlyHint":true},"description":"d","title":"t","name":"a"}`))
	if err != nil || same.Pin() != tool.Pin() {
		t.Errorf("the pin is another: %v", err)
	}
}

func TestLookAlikesAreRefused(t *testing.T) {
	for _, pair := range [][2]string{
		{"read_file", "read-file"}, {"read", "Read"}, {"list", "1ist"}, {"modern", "modem"}, {"readfile", "read_file"}, {"log0", "logo"},
	} {
		c := Build([]Offer{{Server: "s", Tools: []json.RawMessage{raw(pair[0], ""), raw(pair[1], "")}}}, open(t))
		for name, state := range states(c) {
			if state != Refused {
				t.Errorf("%s beside %v is %s", name, pair, state)
			}
		}
	}
	pins := open(t)
	first := []Offer{{Server: "s", Tools: []json.RawMessage{raw("read", "")}}}
	if err := pins.Saw(Build(first, pins), time.Now()); err != nil {
		t.Fatal(err)
	}
	if _, err := pins.Approve("s", ""); err != nil {
		t.Fatal(err)
	}
	got := states(Build([]Offer{{Server: "s", Tools: []json.RawMessage{raw("read", ""), raw("Read", "")}}}, pins))
	if got["s__read"] != Listed || got["s__Read"] != Refused {
		t.Errorf("an approved tool is pushed out by its look-alike: %v", got)
	}
	// a__b_c and a_b__c would be the same to a hasty reader too.
	got = states(Build([]Offer{{Server: "a", Tools: []json.RawMessage{raw("b_c", "")}}, {Server: "a_b", Tools: []json.RawMessage{raw("c", "")}}}, open(t)))
	if got["a__b_c"] != Refused || got["a_b__c"] != Refused {
		t.Errorf("names across servers: %v", got)
	}
}

func TestImpossibleToolsAreRefused(t *testing.T) {
	for _, tool := range []string{
		`1`, `{"name":"a"}`, `{"name":"а","inputSchema":{"type":"object"}}`, `{"name":"a b","inputSchema":{"type":"object"}}`,
		`{"name":"a","inputSchema":{"type":"array"}}`, `{"name":"a","inputSchema":{"type":"object","x":` + strings.Repeat("[", 100) + strings.Repeat("]", 100) + `}}`,
		`{"name":"` + strings.Repeat("a", 200) + `","inputSchema":{"type":"object"}}`, `{"name":"a","description":"` + strings.Repeat("x", 40<<10) + `","inputSchema":{"type":"object"}}`,
	} {
		c := Build([]Offer{{Server: "s", Tools: []json.RawMessage{json.RawMessage(tool)}, Own: true}}, open(t))
		if len(c.Listed()) != 0 || len(c.All()) != 1 {
			t.Errorf("%.60s is listed", tool)
		}
	}
}

func TestNamesOfServers(t *testing.T) {
	for name, ok := range map[string]bool{
		"github": true, "my-tools": true, "a_b": true, "a__b": false, "": false, "builtin": false, "local": false, "1ocal": false, "lo-cal": false, "capsem": false, "é": false,
		"a.b": false, "_a": false, strings.Repeat("a", 41): false,
	} {
		if err := ValidServer(name); (err == nil) != ok {
			t.Errorf("%q: %v", name, err)
		}
	}
}

func TestDamagedPinsApproveNothing(t *testing.T) {
	pins := open(t)
	if err := os.WriteFile(pins.path, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := pins.Refresh(); err == nil {
		t.Error("a damaged file was taken for empty")
	}
	if _, err := pins.Approve("s", ""); err == nil {
		t.Error("a damaged file was overwritten")
	}
}

func TestManyWorkersNoteAtOnce(t *testing.T) {
	path := open(t).path
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			pins := OpenPins(path)
			offers := []Offer{{Server: "s" + string(rune('a'+i)), Tools: []json.RawMessage{raw("tool", "")}}}
			if err := pins.Saw(Build(offers, pins), time.Now()); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	pins := OpenPins(path)
	if _, err := pins.Refresh(); err != nil || len(pins.All()) != 8 {
		t.Errorf("%d of 8 are known, %v", len(pins.All()), err)
	}
}

func TestNamesOfResourcesComeBack(t *testing.T) {
	server, uri, ok := SplitURI(JoinURI("gh", "file:///a/b?c"))
	if !ok || server != "gh" || uri != "file:///a/b?c" {
		t.Errorf("%q, %q, %v", server, uri, ok)
	}
	for _, bad := range []string{"", "file:///x", "capsem://", "capsem://a", "capsem:///x", "capsem://a/"} {
		if _, _, ok := SplitURI(bad); ok {
			t.Errorf("%q is the name of a resource", bad)
		}
	}
}

func FuzzParseTool(f *testing.F) {
	f.Add([]byte(`{"name":"a","inputSchema":{"type":"object"},"annotations":{"title":"x"}}`))
	f.Add([]byte(`{"name":"a","inputSchema":{"type":"object"},"outputSchema":null}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		tool, err := ParseTool(data)
		if err != nil {
			return
		}
		shown, err := tool.public("s__" + tool.Name)
		if err != nil || !json.Valid(shown) {
			t.Fatalf("%s, %v", shown, err)
		}
		again, err := ParseTool(shown)
		if err != nil {
			return // a name may make it too long
		}
		again.Name = tool.Name
		if again.Pin() != tool.Pin() {
			t.Fatal("what clients see has another pin than what was approved")
		}
	})
}

func TestNamesThatAreMadeUpAreForgotten(t *testing.T) {
	pins := open(t)
	for _, name := range []string{"one", "two", "three"} {
		if err := pins.Saw(Build([]Offer{{Server: "s", Tools: []json.RawMessage{raw(name, "")}}}, pins), time.Now()); err != nil {
			t.Fatal(err)
		}
		if name == "one" {
			if _, err := pins.Approve("s__one", ""); err != nil {
				t.Fatal(err)
			}
		}
	}
	if all := pins.All(); len(all) != 2 || all["s__one"].Approved == "" || all["s__three"].Seen == "" {
		t.Errorf("known are %v", all)
	}
}
