package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"capsem/core/policy"
)

func put(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path+".new", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

func verdict(t *testing.T, p *policy.Policy, line string) policy.Effect {
	t.Helper()
	req, err := policy.ParseRequest(line)
	if err != nil {
		t.Fatal(err)
	}
	return p.Decide(&req).Effect
}

const (
	allowed = "[[rule]]\nid = \"a\"\neffect = \"allow\"\nhosts = [\"example.com\"]\nschemes = [\"https\"]\n"
	denied  = "[[rule]]\nid = \"d\"\neffect = \"deny\"\nhosts = [\"example.com\"]\n"
)

func TestPoliciesOfSeveralFilesHoldInTheirOrder(t *testing.T) {
	dir := t.TempDir()
	corp, user, vm := filepath.Join(dir, "corp"), filepath.Join(dir, "user"), filepath.Join(dir, "vm")
	files := []PolicyFile{{Path: corp, Layer: policy.LayerCorp}, {Path: user, Layer: policy.LayerUser}, {Path: vm, Layer: policy.LayerVM}}
	expect := func(want policy.Effect) {
		t.Helper()
		p, err := LoadPolicy(files)
		if err != nil {
			t.Fatal(err)
		}
		if got := verdict(t, p, "GET https://example.com/x"); got != want {
			t.Errorf("%v, not %v", got, want)
		}
	}
	expect(policy.Deny)
	put(t, user, allowed)
	expect(policy.Allow)
	put(t, vm, denied)
	expect(policy.Deny)
	put(t, vm, "")
	put(t, corp, denied)
	expect(policy.Deny)
	put(t, corp, "[[rule]]\nid = \"x\"\neffect = \"maybe\"\n")
	if _, err := LoadPolicy(files); err == nil || !strings.Contains(err.Error(), corp) || !strings.Contains(err.Error(), "line 1") {
		t.Errorf("a mistake: %v", err)
	}
}

func TestAnEditedPolicyHoldsSoonAndABrokenOneChangesNothing(t *testing.T) {
	file := filepath.Join(t.TempDir(), "policy.toml")
	s := NewPolicySource([]PolicyFile{{Path: file, Layer: policy.LayerUser}})
	soon := func(want policy.Effect) {
		t.Helper()
		s.looked = time.Time{} // as if some time had passed
		if got := verdict(t, s.Current(), "GET https://example.com/x"); got != want {
			t.Errorf("%v, not %v", got, want)
		}
	}
	soon(policy.Deny)
	put(t, file, allowed)
	if verdict(t, s.Current(), "GET https://example.com/x") != policy.Deny {
		t.Error("the file is looked at for every request")
	}
	soon(policy.Allow)
	put(t, file, "rubbish")
	soon(policy.Allow)
	if s.Err() == nil {
		t.Error("nobody is told of a broken file")
	}
	put(t, file, denied)
	soon(policy.Deny)
	if s.Err() != nil {
		t.Error(s.Err())
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	put(t, file, allowed)
	soon(policy.Allow)
	broken := NewPolicySource([]PolicyFile{{Path: t.TempDir(), Layer: policy.LayerUser}})
	if broken.Err() == nil || verdict(t, broken.Current(), "GET https://example.com/x") != policy.Deny {
		t.Error("rules that cannot be read at the start do not refuse everything")
	}
}
