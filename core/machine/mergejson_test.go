package machine

import (
	"strings"
	"testing"
)

func TestSettingsOfTheGuestAreAddedToAndNeverChanged(t *testing.T) {
	const ours = `{"done":true,"projects":{"/root":{"trusted":true}},"keys":{"approved":["b"]}}`
	for name, c := range map[string]struct{ theirs, want string }{
		"empty":           {`{}`, `{"done":true,"keys":{"approved":["b"]},"projects":{"/root":{"trusted":true}}}`},
		"others stay":     {`{"mcp":{"x":"<&"},"n":12345678901234567890}`, `{"done":true,"keys":{"approved":["b"]},"mcp":{"x":"<&"},"n":12345678901234567890,"projects":{"/root":{"trusted":true}}}`},
		"theirs count":    {`{"done":false,"projects":{"/root":{"trusted":false},"/x":{}},"keys":{"approved":["a","b"]}}`, ""},
		"deep and lists":  {`{"done":false,"projects":{"/root":{}},"keys":{"approved":["a"]}}`, `{"done":false,"keys":{"approved":["a","b"]},"projects":{"/root":{"trusted":true}}}`},
		"other kinds":     {`{"done":[],"projects":"no","keys":{"approved":{"b":1}}}`, ""},
		"all is there":    {ours, ""},
		"no object":       {`[1]`, ""},
		"null":            {`null`, ""},
		"not JSON":        {`{"a":`, ""},
		"two":             {`{} {}`, ""},
		"nothing":         {``, ""},
		"a list of odd":   {`{"done":1,"projects":{"/root":{"trusted":1}},"keys":{"approved":[{},[],null,1]}}`, `{"done":1,"keys":{"approved":[{},[],null,1,"b"]},"projects":{"/root":{"trusted":1}}}`},
		"deeper than any": {strings.Repeat(`{"a":`, 20000) + "1" + strings.Repeat("}", 20000), ""},
	} {
		got, changed := mergeJSON([]byte(c.theirs), []byte(ours))
		flat := strings.NewReplacer("\n", "", "  ", "", ": ", ":").Replace(string(got))
		if changed != (c.want != "") || flat != c.want {
			t.Errorf("%s: %v %s", name, changed, flat)
		}
	}
}
