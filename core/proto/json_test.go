package proto

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

func TestDepthOfJSON(t *testing.T) {
	for text, depth := range map[string]int{
		"": 0, `1`: 0, `{}`: 1, `[[1],[2,[3]]]`: 3, `{"a":{"b":[]}}`: 3, `"[[[["`: 0, `["\"[[[["]`: 1, `["\\",[1]]`: 2, `}}}{{`: -1, strings.Repeat("[", 1000): 1000,
	} {
		if DeepJSON([]byte(text), max(depth, 0)) {
			t.Errorf("%.40s is deeper than %d", text, depth)
		}
		if depth > 0 && !DeepJSON([]byte(text), depth-1) {
			t.Errorf("%.40s is no deeper than %d", text, depth-1)
		}
	}
}

func FuzzDepthOfJSON(f *testing.F) {
	f.Add([]byte(`{"a":["\"",{"b":[1,{"c":null}]}]}`), uint8(3))
	f.Fuzz(func(t *testing.T, text []byte, most uint8) {
		var v any
		if json.Unmarshal(text, &v) == nil && DeepJSON(text, int(most)) != (depthOf(v) > int(most)) {
			t.Error(fmt.Sprintf("%q", text), most, depthOf(v))
		}
	})
}

func depthOf(v any) (deepest int) {
	switch v := v.(type) {
	case []any:
		for _, e := range v {
			deepest = max(deepest, depthOf(e))
		}
		return deepest + 1
	case map[string]any:
		for _, e := range v {
			deepest = max(deepest, depthOf(e))
		}
		return deepest + 1
	}
	return 0
}
