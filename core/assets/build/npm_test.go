package build

import (
	"encoding/json"
	"strings"
	"testing"
)

func TestALockHoldsWhenLatestHasMovedOn(t *testing.T) {
	t.Parallel()
	const lock = `{"name": "x", "lockfileVersion": 3, "packages": {"": {"name": "x", "dependencies": {"@a/b": "latest"}},
		"node_modules/@a/b": {"version": "1.2.3", "integrity": "sha512-abc", "bin": {"b": "b.js"}}, "node_modules/c": {"version": "9.0.0"}}}`
	deps := map[string]string{"@a/b": "latest"}
	text, err := exactly([]byte(lock), deps)
	if err != nil {
		t.Fatal(err)
	}
	if deps["@a/b"] != "1.2.3" {
		t.Errorf("the manifest wants %v", deps)
	}
	var got struct {
		Version  int `json:"lockfileVersion"`
		Packages map[string]struct {
			Version, Integrity string
			Dependencies       map[string]string
		}
	}
	if err := json.Unmarshal(text, &got); err != nil {
		t.Fatal(err)
	}
	if got.Version != 3 || got.Packages[""].Dependencies["@a/b"] != "1.2.3" || got.Packages["node_modules/@a/b"].Integrity != "sha512-abc" || got.Packages["node_modules/c"].Version != "9.0.0" {
		t.Errorf("%s", text)
	}
	for _, bad := range []string{"", "[]", "{}", `{"packages": {}}`, strings.ReplaceAll(lock, "node_modules/@a/b", "node_modules/z")} {
		if _, err := exactly([]byte(bad), map[string]string{"@a/b": "latest"}); err == nil {
			t.Errorf("%.40q is taken for a lock", bad)
		}
	}
}
