package cli

import (
	"strings"
	"testing"
)

func TestASecretIsChosenByItsName(t *testing.T) {
	f := newService(t)
	for line, want := range map[string]string{
		"create --secret a --no-secrets": "exclude each other", "run --secret ../x true": "is no name of a secret",
	} {
		if r := f.capsem(nil, strings.Fields(line)...); r.code == 0 || !strings.Contains(r.stderr, want) {
			t.Errorf("%s: %+v", line, r)
		}
	}
	for want, names := range map[string][]string{"": nil, "none": {}, "only a, b": {"a", "b"}} {
		if got := secretsText(names); got != want {
			t.Errorf("%v: %q", names, got)
		}
	}
}
