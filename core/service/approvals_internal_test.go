package service

import (
	"strings"
	"testing"

	"capsem/core/policy"
)

func TestARuleIsAddedRightBeforeTheOneThatAsked(t *testing.T) {
	const deny = "[[rule]]\nid = \"closed\"\neffect = \"deny\"\nhosts = [\"a.example\"]\n"
	const ask = "\n# about b\n[[rule]]\nid = \"asks\"\neffect = \"ask\"\nhosts = [\"b.example\"]\n"
	const fresh = "[[rule]]\nid = \"new\"\neffect = \"allow\"\nhosts = [\"b.example\"]\nschemes = [\"https\"]\n"
	for name, c := range map[string]struct{ old, before, order string }{
		"an empty policy":       {"", "github/write", "new"},
		"before the asking one": {deny + ask, "asks", "closed new asks"},
		"of a preset":           {"presets = [\"github\"]\n" + deny, "github/write", "closed new github/push github/read github/clone github/write"},
		"no newline at the end": {strings.TrimRight(deny, "\n"), "github/write", "closed new"},
	} {
		t.Run(name, func(t *testing.T) {
			text, err := withRule(c.old, "Approved by you.", fresh, c.before)
			if err != nil {
				t.Fatal(err)
			}
			set, err := policy.Parse(text, policy.LayerUser)
			if err != nil {
				t.Fatal(err)
			}
			var ids []string
			for _, r := range set.Rules {
				ids = append(ids, r.ID)
			}
			if got := strings.Join(ids, " "); got != c.order {
				t.Errorf("%s, not %s in\n%s", got, c.order, text)
			}
		})
	}
	if _, err := withRule("rubbish", "Approved by you.", fresh, "asks"); err == nil {
		t.Error("a rule is added to what is no policy")
	}
}
