package machine

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"capsem/core/approval"
	"capsem/core/config"
	"capsem/core/credential/swap"
	"capsem/core/detect"
	"capsem/core/mitm/flow"
	"capsem/core/proto"
)

func TestWhatIsLookedForOfAValueIsItsOwn(t *testing.T) {
	for value, want := range map[string]string{"key-abcdef": "abcdef", "eyJhbGciOiJSUzI1NiJ9.eyJhIjoxfQ.signature": "signature", "other": "other"} {
		if got := ownPart(value, "key-xyz"); got != want {
			t.Errorf("%q: %q", value, got)
		}
	}
}

func TestTheVariablesOfCredentialsDoNotReplaceOthers(t *testing.T) {
	w := &Worker{credentials: newCredentials(), spec: proto.VMSpec{Env: map[string]string{"B": "the VM's"}}}
	if got := w.withCredentials(map[string]string{"A": "1"}); len(got) != 1 {
		t.Errorf("without credentials: %v", got)
	}
	err := w.setCredentials(t.Context(), &proto.Credentials{Env: map[string]string{"A": "p", "B": "p", "C": "p"}})
	if err != nil {
		t.Fatal(err)
	}
	given := map[string]string{"A": "1"}
	if got := w.withCredentials(given); len(got) != 2 || got["A"] != "1" || got["C"] != "p" || len(given) != 1 {
		t.Errorf("%v, given %v", got, given)
	}
	if got := w.withCredentials(nil); len(got) != 2 {
		t.Errorf("to none: %v", got)
	}
}

// chain runs the modifiers of a VM as the proxy does, and gives the body that would be sent.
func chain(t *testing.T, all []any, host, header, body string) (sent string, req *http.Request, err error) {
	t.Helper()
	req = httptest.NewRequest(http.MethodPost, "https://"+host+"/", strings.NewReader(body))
	req.Header.Set("X-Key", header)
	req = req.WithContext(flow.With(context.Background(), &flow.Flow{Host: host, Scheme: "https"}))
	for _, m := range all {
		if r, ok := m.(interface{ ModifyRequest(*http.Request) error }); ok {
			if err := r.ModifyRequest(req); err != nil {
				return "", req, err
			}
		}
	}
	text, err := io.ReadAll(req.Body)
	return string(text), req, err
}

func TestTheProxyOfAVMSwapsAndDetects(t *testing.T) {
	value, placeholder := "key-"+"Rv9sK2mQ7xTz4LwY8bNc3VdF6hJp1GaE", "key-"+strings.Repeat("pQ3x", 8)
	w := &Worker{credentials: newCredentials(), spec: proto.VMSpec{Detect: proto.DetectSpec{Placeholders: detect.Deny, Secrets: detect.Deny, OwnSecrets: detect.Deny, Injection: detect.Report}}}
	err := w.setCredentials(t.Context(), &proto.Credentials{Grants: []proto.Grant{{
		Name: "mine", Kind: "generic", Hosts: []string{"good.test"}, Places: []proto.GrantPlace{{In: "header"}},
		Secrets: []proto.GrantSecret{{Placeholder: placeholder, Value: proto.Secret(value)}},
	}}})
	if err != nil {
		t.Fatal(err)
	}
	w.log = slog.New(slog.DiscardHandler)
	rules := config.NewPolicySource(nil)
	board := approval.NewBoard(approval.Config{Recorder: questionRecord{w}})
	defer board.Close()
	n := &network{w: w, rules: rules, current: rules.Current(), board: board, judge: approval.NewJudge(rules.Current(), board)}
	all := n.modifiers()
	aws := "AK" + "IA" + "2E4GQ7BZMNK3YHTV"
	for name, c := range map[string]struct{ host, header, body, rule string }{
		"bound": {"good.test", placeholder, "hello", ""}, "elsewhere": {"bad.test", placeholder, "hello", swap.RefusalRule},
		"body elsewhere": {"bad.test", "x", "x" + url.QueryEscape(placeholder), swap.RefusalRule},
		"a key":          {"bad.test", "x", "take " + aws + " now", "detect/secrets"}, "the value itself": {"bad.test", "x", "take " + value[8:30], "detect/own_secrets"},
	} {
		sent, req, err := chain(t, all, c.host, c.header, c.body)
		refusal, refused := errors.AsType[*flow.Refusal](err)
		switch {
		case c.rule == "" && (err != nil || sent != c.body || req.Header.Get("X-Key") != value):
			t.Errorf("%s: sent %q, %v", name, sent, err)
		case c.rule != "" && (!refused || refusal.Rule != c.rule || refusal.Status != http.StatusForbidden):
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestCredentialsInPartsCountOnceAllAreThere(t *testing.T) {
	w, c := &Worker{credentials: newCredentials()}, &client{}
	var all proto.Credentials
	for i := range proto.MaxGrants {
		placeholder := strings.Repeat("p", proto.MaxSecret-2) + string(rune('0'+i/10)) + string(rune('0'+i%10))
		all.Grants = append(all.Grants, proto.Grant{Name: "n", Hosts: []string{"a.test"}, Secrets: []proto.GrantSecret{{Placeholder: placeholder, Value: proto.Secret(strings.ToUpper(placeholder))}}})
	}
	all.Env = map[string]string{"LAST": "placeholder"}
	parts, err := all.Parts()
	if err != nil || len(parts) < 2 {
		t.Fatalf("%d parts, %v", len(parts), err)
	}
	for i, p := range parts {
		if got := w.withCredentials(nil); len(got) != 0 || w.credentials.vault.Placeholder([]byte(all.Grants[0].Secrets[0].Placeholder)) {
			t.Fatalf("before part %d they count", i)
		}
		if err := w.takeCredentials(t.Context(), c, p); err != nil {
			t.Fatal(err)
		}
	}
	for _, g := range []proto.Grant{all.Grants[0], all.Grants[len(all.Grants)-1]} {
		if !w.credentials.vault.Placeholder([]byte(g.Secrets[0].Placeholder)) {
			t.Error("one is not known")
		}
	}
	if got := w.withCredentials(nil); got["LAST"] != "placeholder" {
		t.Errorf("the variables are %v", got)
	}
	if parts[0].More = true; w.takeCredentials(t.Context(), c, parts[0]) != nil || w.takeCredentials(t.Context(), c, &all) == nil {
		t.Error("more than there can be are taken in parts")
	}
	if c.credentials != nil {
		t.Error("what was refused is kept")
	}
}
