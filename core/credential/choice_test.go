package credential

import (
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"

	"capsem/core/fault"
	"capsem/core/proto"
)

func TestAVMGetsOnlyTheSecretsThatWereChosen(t *testing.T) {
	all := entries(t)
	c := For(all, "family", []string{"github", "not-there"})
	if len(c.Grants) != 1 || c.Grants[0].Name != "github" || c.Env["GH_TOKEN"] == "" || c.Env["ANTHROPIC_API_KEY"] != "" || len(c.Watched) != len(all)-1 {
		t.Errorf("grants %v, variables %v, %d watched", c.Grants, slices.Collect(maps.Keys(c.Env)), len(c.Watched))
	}
	for _, f := range c.Files {
		if !strings.HasPrefix(f.Path, ".git") {
			t.Errorf("it has %s", f.Path)
		}
	}
	if got := string(c.Watched["claude-key"]); "sk-"+"ant-api03-"+got != anthropicKey {
		t.Errorf("what is looked for of a key has %d bytes", len(got))
	}
	none := For(all, "family", []string{})
	if len(none.Grants)+len(none.Env)+len(none.Files) != 0 || len(none.Watched) != len(all) {
		t.Errorf("with none: %d, %d, %d", len(none.Grants), len(none.Env), len(none.Files))
	}
	for _, c := range []proto.Credentials{c, none} {
		if err := c.Validate(); err != nil {
			t.Error(err)
		}
	}
}

// longest gives as many secrets as there can be, as long as they can be.
func longest(t *testing.T, n int, signIn bool) (out []Entry) {
	t.Helper()
	for i := range n {
		e := Entry{Name: fmt.Sprintf("%02d%s", i, strings.Repeat("n", 62)), Kind: Generic, User: "me"}
		for h := range proto.MaxGrantHosts {
			e.Hosts = append(e.Hosts, fmt.Sprintf("h%d.%s.%s.test", h, strings.Repeat("a", 60), strings.Repeat("b", 60)))
		}
		value := fmt.Sprintf("%02d%s", i, strings.Repeat("aZ/", proto.MaxSecret))[:proto.MaxSecret]
		if signIn {
			e.Kind, e.User = "", ""
			value = fmt.Sprintf(`{"claudeAiOauth":{"accessToken":"%02d%s","refreshToken":%q,"expiresAt":1800000000000,"scopes":["a"]}}`, i, strings.Repeat("q", proto.MaxSecret-2), strings.Repeat("r", proto.MaxSecret))
		}
		e, err := NewEntry(e, value, signIn)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, e)
	}
	return out
}

func TestTheMostThatCanBeStoredFitsInFrames(t *testing.T) {
	for name, all := range map[string][]Entry{
		"nothing": nil, "a few": entries(t), "passwords": longest(t, proto.MaxGrants, false), "sign-ins": longest(t, proto.MaxGrants, true),
	} {
		for _, chosen := range [][]string{nil, {}} {
			c := For(all, "family", chosen)
			c.Servers, c.Unrenewed = map[string]proto.Secret{}, map[string]string{"one": "mark"}
			for _, e := range all[:min(len(all), 16)] {
				c.Servers[e.Name] = proto.Secret(e.Value)
			}
			if err := c.Validate(); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			parts, err := c.Parts()
			if err != nil || len(parts) == 0 {
				t.Fatalf("%s: %d parts, %v", name, len(parts), err)
			}
			var got *proto.Credentials
			for i, p := range parts {
				req := proto.WorkerRequest{Op: proto.OpCredentials, Credentials: p}
				var there strings.Builder
				if err := errors.Join(proto.WriteFrame(&there, req), req.Validate()); err != nil {
					t.Fatalf("%s: part %d: %v", name, i, err)
				}
				var came proto.WorkerRequest
				if err := proto.ReadFrame(strings.NewReader(there.String()), proto.MaxFrame, &came); err != nil || came.Credentials.More != (i < len(parts)-1) {
					t.Fatalf("%s: part %d: %v", name, i, err)
				}
				if got == nil {
					got = came.Credentials
				} else {
					got.Join(came.Credentials)
				}
			}
			if len(c.Servers) == 0 {
				c.Servers = nil
			}
			if len(c.Env) == 0 {
				c.Env = nil
			}
			if !reflect.DeepEqual(&c, got) {
				t.Errorf("%s: in %d parts something else came", name, len(parts))
			}
			t.Logf("%s, chosen %v: %d parts", name, chosen, len(parts))
		}
	}
}

func TestTheVariablesOfAllSecretsTogetherAreBounded(t *testing.T) {
	s, _ := newStore(t, nil)
	var err error
	n := 0
	for ; n < proto.MaxGrants && err == nil; n++ {
		e := Entry{Name: fmt.Sprint("long", n), Kind: Generic, Hosts: []string{"x.test"}, Env: []string{fmt.Sprint("LONG_", n)}}
		if e, err = NewEntry(e, strings.Repeat(fmt.Sprintf("%02dqX", n), 500), false); err != nil {
			t.Fatal(err)
		}
		err = s.Set(e)
	}
	all, _ := s.All()
	if !fault.Is(err, fault.LimitReached) || n < 10 || len(all) != n-1 {
		t.Fatalf("after %d, of which %d are there: %v", n, len(all), err)
	}
	if c := For(all, "family", nil); len(c.Env) != n-1 {
		t.Errorf("a VM has %d variables of %d", len(c.Env), n-1)
	}
}
