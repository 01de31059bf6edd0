package machine

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"capsem/core/credential/swap"
	"capsem/core/detect"
	"capsem/core/mitm/flow"
	"capsem/core/mitm/ws"
	"capsem/core/proto"
)

// headOfFrame is that of a text frame of so many bytes, with a mask of zeros where it comes from the guest.
func headOfFrame(fromGuest bool, size byte) []byte {
	if fromGuest {
		return []byte{0x81, 0x80 | size, 0, 0, 0, 0}
	}
	return []byte{0x81, size}
}

// TestAMessageThatDoesNotEndIsLookedThrough: what has to be found is found before it goes on, not when its message has passed.
func TestAMessageThatDoesNotEndIsLookedThrough(t *testing.T) {
	const own, value, placeholder = "correct-horse-battery-staple-0123456789", "sk-real-0123456789abcdefghijklmnop", "sk-fake-0123456789abcdefghijklmnop"
	vault := swap.NewVault()
	err := vault.Set(&proto.Credentials{Grants: []proto.Grant{{
		Name: "key", Kind: "generic", Hosts: []string{"a.test"}, Places: []proto.GrantPlace{{In: "header"}},
		Secrets: []proto.GrantSecret{{Placeholder: placeholder, Value: value}},
	}}})
	if err != nil {
		t.Fatal(err)
	}
	s := sockets{
		n:       &network{w: &Worker{}},
		secrets: swap.NewModifiers(swap.Config{Vault: vault}),
		engine:  detect.NewEngine(func() *detect.Own { return detect.NewOwn(map[string][]byte{"mine": []byte(own)}) }),
	}
	for name, c := range map[string]struct {
		host, text string
		up, passes bool
	}{
		"harmless up":                 {"a.test", "hello", true, true},
		"harmless down":               {"a.test", "hello", false, true},
		"one's own secret":            {"a.test", own, true, false},
		"a placeholder elsewhere":     {"b.test", placeholder, true, false},
		"a value in an answer":        {"a.test", value, false, false},
		"one's own secret in answers": {"a.test", own, false, true},
	} {
		t.Run(name, func(t *testing.T) {
			f := &flow.Flow{Host: c.host, Scheme: "wss", Type: "websocket"}
			req := httptest.NewRequest(http.MethodGet, "https://"+c.host+"/", nil)
			req = req.WithContext(flow.With(t.Context(), f))
			if err := s.ModifyRequest(req); err != nil {
				t.Fatal(err)
			}
			if err := s.secrets.Requests().ModifyRequest(req); err != nil {
				t.Fatal(err)
			}
			sent, received := ws.Readers(f)
			r := received
			if c.up {
				r = sent
			}
			if _, err := r.Write(append(headOfFrame(c.up, 125), (c.text + " and more")...)); (err == nil) != c.passes {
				t.Errorf("the beginning of a message: %v", err)
			}
		})
	}
}
