package credential

import (
	"bytes"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"capsem/core/config"
	"capsem/core/fault"
	"capsem/core/paths"
	"capsem/core/policy"
)

// Values are put together here, so that no file has what looks like one.
var (
	anthropicKey = "sk-" + "ant-api03-" + strings.Repeat("aZ3_kQ9x", 11) + "AA"
	githubKey    = "gh" + "p_" + strings.Repeat("Ab1", 12)
)

func newStore(t *testing.T, keychain Keychain) (*Store, paths.Home) {
	t.Helper()
	home := paths.Home(t.TempDir())
	if err := os.MkdirAll(home.Run(), 0o700); err != nil {
		t.Fatal(err)
	}
	return Open(home, keychain, slog.New(slog.DiscardHandler)), home
}

func set(t *testing.T, s *Store, e Entry, value string, signIn bool) Entry {
	t.Helper()
	e, err := NewEntry(e, value, signIn)
	if err == nil {
		err = s.Set(e)
	}
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func TestWhatIsStoredIsThereAgainAndNowhereInClear(t *testing.T) {
	s, home := newStore(t, nil)
	set(t, s, Entry{Name: "claude"}, anthropicKey+"\n", false)
	set(t, s, Entry{Name: "db", Kind: Generic, User: "me", Hosts: []string{"DB.example.test"}}, "pass-word-1234", false)
	all, err := Open(home, nil, slog.New(slog.DiscardHandler)).All()
	if err != nil || len(all) != 2 || all[0].Value != anthropicKey || all[0].Kind != "anthropic" || all[1].Hosts[0] != "db.example.test" || all[1].Form != Basic {
		t.Fatalf("%d entries, %v", len(all), err)
	}
	err = filepath.WalkDir(home.Dir(), func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		text, err := os.ReadFile(path)
		if bytes.Contains(text, []byte(anthropicKey[20:40])) || bytes.Contains(text, []byte("pass-word")) || info.Mode().Perm() != 0o600 {
			t.Errorf("%s (%v) has a value, or can be read by others", path, info.Mode())
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Remove("claude"); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Get("claude"); !fault.Is(err, fault.NotFound) {
		t.Errorf("it is still there: %v", err)
	}
}

func TestADamagedStoreIsSetAsideAndNamed(t *testing.T) {
	for name, damage := range map[string]func([]byte) []byte{
		"cut":     func(b []byte) []byte { return b[:len(b)/2] },
		"changed": func(b []byte) []byte { return bytes.Replace(b, []byte(`"data": "`), []byte(`"data": "AAAA`), 1) },
		"empty":   func([]byte) []byte { return []byte{} },
	} {
		t.Run(name, func(t *testing.T) {
			s, home := newStore(t, nil)
			set(t, s, Entry{Name: "a"}, anthropicKey, false)
			text, err := os.ReadFile(home.Credentials())
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(home.Credentials(), damage(text), 0o600); err != nil {
				t.Fatal(err)
			}
			again := Open(home, nil, slog.New(slog.DiscardHandler))
			_, err = again.All()
			if err == nil || !strings.Contains(fault.Line(err), ".corrupt-") {
				t.Fatalf("%v", err)
			}
			if found, _ := filepath.Glob(home.Credentials() + ".corrupt-*"); len(found) != 1 {
				t.Errorf("set aside: %v", found)
			}
			set(t, again, Entry{Name: "b"}, githubKey, false)
		})
	}
}

func TestAnotherKeyIsAClearFaultAndLosesNothing(t *testing.T) {
	s, home := newStore(t, nil)
	set(t, s, Entry{Name: "a"}, anthropicKey, false)
	before, err := os.ReadFile(home.Credentials())
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(home.CredentialKey(), []byte(strings.Repeat("ab", keySize)), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, missing := range []bool{false, true} {
		if missing {
			if err := os.Remove(home.CredentialKey()); err != nil {
				t.Fatal(err)
			}
		}
		again := Open(home, nil, slog.New(slog.DiscardHandler))
		if _, err := again.All(); !fault.Is(err, fault.Conflict) || !strings.Contains(fault.Line(err), "another key") {
			t.Errorf("missing %v: %v", missing, err)
		}
		e, err := NewEntry(Entry{Name: "b"}, githubKey, false)
		if err != nil {
			t.Fatal(err)
		}
		if again.Set(e) == nil {
			t.Error("it was overwritten")
		}
	}
	if after, err := os.ReadFile(home.Credentials()); err != nil || !bytes.Equal(before, after) {
		t.Errorf("the file has changed: %v", err)
	}
}

// drawer is a keychain in memory.
type drawer struct {
	kept   map[string]string
	closed error
}

func (d *drawer) Get(account string) (string, error) {
	if d.closed != nil {
		return "", d.closed
	}
	if text, ok := d.kept[account]; ok {
		return text, nil
	}
	return "", ErrNoKey
}

func (d *drawer) Set(account, secret string) error {
	d.kept[account] = secret
	return d.closed
}

func TestTheKeyIsInTheKeychainWhereThereIsOne(t *testing.T) {
	d := &drawer{kept: map[string]string{}}
	s, home := newStore(t, d)
	set(t, s, Entry{Name: "a"}, anthropicKey, false)
	if _, err := os.Stat(home.CredentialKey()); !errors.Is(err, fs.ErrNotExist) || len(d.kept) != 1 {
		t.Errorf("a key file beside the keychain: %v", err)
	}
	if all, err := Open(home, d, slog.New(slog.DiscardHandler)).All(); err != nil || len(all) != 1 {
		t.Errorf("with the keychain: %v", err)
	}
	if _, err := Open(home, nil, slog.New(slog.DiscardHandler)).All(); !fault.Is(err, fault.Unavailable) {
		t.Errorf("without the keychain: %v", err)
	}
	d.closed = errors.New("locked")
	if _, err := Open(home, d, slog.New(slog.DiscardHandler)).All(); !fault.Is(err, fault.Unavailable) {
		t.Errorf("with a locked keychain: %v", err)
	}
	d2 := &drawer{kept: map[string]string{}, closed: errors.New("locked")}
	other, home2 := newStore(t, d2)
	set(t, other, Entry{Name: "a"}, anthropicKey, false)
	if _, err := os.Stat(home2.CredentialKey()); err != nil {
		t.Errorf("without a keychain that answers: %v", err)
	}
}

func TestOthersMustNotReadTheKey(t *testing.T) {
	s, home := newStore(t, nil)
	set(t, s, Entry{Name: "a"}, anthropicKey, false)
	if err := os.Chmod(home.CredentialKey(), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(home, nil, slog.New(slog.DiscardHandler)).All(); !fault.Is(err, fault.Forbidden) {
		t.Error(err)
	}
}

func TestBadEntriesAreRefusedWithoutQuotingThem(t *testing.T) {
	for name, c := range map[string]struct {
		e     Entry
		value string
	}{
		"short": {Entry{Name: "a", Kind: "github"}, "secret7"}, "no host": {Entry{Name: "a"}, "secret-value-1"}, "kind": {Entry{Name: "a", Kind: "nosuch"}, "secret-value-1"},
		"every host": {Entry{Name: "a", Hosts: []string{"**"}}, "secret-value-1"}, "range": {Entry{Name: "a", Hosts: []string{"10.0.0.0/8"}}, "secret-value-1"},
		"name": {Entry{Name: "../a", Hosts: []string{"x.test"}}, "secret-value-1"}, "lines": {Entry{Name: "a", Hosts: []string{"x.test"}}, "secret\nvalue-1"},
		"variable": {Entry{Name: "a", Hosts: []string{"x.test"}, Env: []string{"LD_PRELOAD"}}, "secret-value-1"},
		"user":     {Entry{Name: "a", Hosts: []string{"x.test"}, User: "a:b"}, "secret-value-1"}, "place": {Entry{Name: "a", Hosts: []string{"x.test"}, Places: []Place{{In: "cookie"}}}, "secret-value-1"},
		"long": {Entry{Name: "a", Hosts: []string{"x.test"}}, strings.Repeat("secret", 2000)},
	} {
		if _, err := NewEntry(c.e, c.value, false); err == nil || strings.Contains(err.Error(), "secret-value") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := NewEntry(Entry{Name: "a"}, `{"secret":"x"}`, true); err == nil || strings.Contains(err.Error(), "secret") {
		t.Errorf("no sign-in: %v", err)
	}
}

func TestAStoredCredentialOpensItsProvider(t *testing.T) {
	s, home := newStore(t, nil)
	ask := func() policy.Effect {
		t.Helper()
		p, err := config.LoadPolicy(config.PolicyFiles(home, ""))
		if err != nil {
			t.Fatal(err)
		}
		req, err := policy.ParseRequest("POST https://api.anthropic.com/v1/messages")
		if err != nil {
			t.Fatal(err)
		}
		return p.Decide(&req).Effect
	}
	if ask() != policy.Deny {
		t.Error("it is open before")
	}
	set(t, s, Entry{Name: "a"}, anthropicKey, false)
	if ask() != policy.Allow {
		t.Error("it is not open")
	}
	for _, own := range []string{"presets = [\"claude\"]\n", "[[rule]]\nid = \"mine\"\neffect = \"deny\"\nhosts = [\"**.anthropic.com\"]\n"} {
		if err := os.WriteFile(home.UserPolicy(), []byte(own), 0o600); err != nil {
			t.Fatal(err)
		}
		if want := map[bool]policy.Effect{true: policy.Deny, false: policy.Allow}[strings.Contains(own, "deny")]; ask() != want {
			t.Errorf("with %q it is %v", own, ask())
		}
	}
	if err := os.Remove(home.UserPolicy()); err != nil {
		t.Fatal(err)
	}
	if err := s.Remove("a"); err != nil || ask() != policy.Deny {
		t.Errorf("it stays open: %v", err)
	}
}

func FuzzSealed(f *testing.F) {
	key := bytes.Repeat([]byte{7}, keySize)
	good, err := seal([]byte(`{"entries":[]}`), key, keyInFile)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte(`{"version":1}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		s, err := parseSealed(text)
		if err != nil {
			return
		}
		if plain, err := s.open(key); err == nil && string(plain) != `{"entries":[]}` {
			t.Fatalf("%q was opened", plain)
		}
	})
}
