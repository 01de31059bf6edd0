package mcp

import "testing"

func TestArgumentsThatOnlyLookLikeTheSchemas(t *testing.T) {
	const schema = `{"type":"object","properties":{"path":{"type":"string"},"ID":{"type":"string"},"id":{"type":"string"},"opts":{"type":"object","properties":{"force":{}}},
"edits":{"type":"array","items":{"type":"object","properties":{"to":{}}}},"env":{"type":"object"}}}`
	for args, want := range map[string]string{
		``: "", `{}`: "", `{"path":"/x"}`: "", `{"Path":"/x"}`: "path", `{"path":"/x","PATH":"/y"}`: "path", `{"pa\u0074h":"/x"}`: "", `{"other":1}`: "",
		`{"ID":"a","id":"b"}`: "", `{"opts":{"Force":true}}`: "force", `{"opts":[{"Force":true}]}`: "", `{"edits":[{"to":1},{"To":2}]}`: "to", `{"env":{"Path":"x","path":"y"}}`: "",
		`{"id":"x","Id":"y"}`: "*", "{\"opt\u017f\":{}}": "opts",
	} {
		canonical, err := Canonical([]byte(args))
		if err != nil {
			t.Fatal(err)
		}
		_, meant, found := Misspelt(canonical, []byte(schema))
		if found != (want != "") || want != "*" && meant != want {
			t.Errorf("%s: %q is meant", args, meant)
		}
	}
	if _, _, found := Misspelt([]byte(`{"Path":1}`), []byte(`true`)); found {
		t.Error("a schema without names has some")
	}
}
