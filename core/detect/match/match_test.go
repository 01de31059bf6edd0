package match

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/url"
	"strings"
	"testing"
)

var secrets = [][]byte{[]byte("key-Zm9vYmFyIGJhego7"), []byte("key-Zm9v/mFy+GJhego7x"), []byte("ab12cd34")}

// replaced is a text with every secret changed, pushed in pieces of at most n bytes.
func replaced(t testing.TB, text []byte, n int, instead func(*Hit) []byte) []byte {
	t.Helper()
	s, err := NewSecrets(secrets)
	if err != nil {
		t.Fatal(err)
	}
	var out []byte
	stream := NewStream(s, func(h *Hit) ([]byte, error) { return instead(h), nil })
	for len(text) > 0 {
		k := min(n, len(text))
		part, err := stream.Push(text[:k], false)
		if err != nil {
			t.Fatal(err)
		}
		out, text = append(out, part...), text[k:]
	}
	part, err := stream.Push(nil, true)
	if err != nil {
		t.Fatal(err)
	}
	return append(out, part...)
}

func wrapped(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i += 10 {
		b.WriteString(s[i:min(i+10, len(s))] + "\r\n")
	}
	return b.String()
}

func percent(s string) string {
	var b strings.Builder
	for i := range len(s) {
		fmt.Fprintf(&b, "%%%02x", s[i])
	}
	return b.String()
}

func unicodes(s string) string {
	var b strings.Builder
	for i := range len(s) {
		fmt.Fprintf(&b, `\u%04X`, s[i])
	}
	return b.String()
}

func TestSecretsAreFoundInEveryFormAndCut(t *testing.T) {
	std, raw := base64.StdEncoding, base64.RawURLEncoding
	for i, secret := range secrets {
		s := string(secret)
		text, _ := json.Marshal(`"` + s)
		forms := map[string]string{
			"plain": "x" + s + "y", "percent": "a=" + percent(s) + "&b", "json": string(text), "unicode": `{"a":"` + unicodes(s) + `"}`,
			"query": url.QueryEscape(s), "slashes": strings.ReplaceAll(s, "/", `\/`), "odd percent": "%" + s + "%", "odd slash": `\` + s,
			"base64 0": std.EncodeToString([]byte(s + "tail")), "base64 1": std.EncodeToString([]byte("u" + s)),
			"base64 2": std.EncodeToString([]byte("u:" + s + ":x")), "url base64": raw.EncodeToString([]byte("??>" + s)),
			"mail": wrapped(std.EncodeToString([]byte("ab" + s + "cd"))), "base64 in json": strings.ReplaceAll(std.EncodeToString([]byte(s)), "/", `\/`),
			"base64 in query": url.QueryEscape(std.EncodeToString([]byte("z" + s))),
			"mail in json":    strings.ReplaceAll(wrapped(std.EncodeToString([]byte(s+s))), "\r\n", `\r\n`),
		}
		for name, form := range forms {
			for _, n := range []int{1, 2, 3, 7, 1000} {
				var got []int
				out := replaced(t, []byte("before "+form+" after"), n, func(h *Hit) []byte { got = append(got, h.Secret); return []byte("<>") })
				if len(got) == 0 || got[0] != i || !bytes.HasPrefix(out, []byte("before ")) || !bytes.HasSuffix(out, []byte(" after")) {
					t.Errorf("%s of %d in pieces of %d: found %v, %q", name, i, n, got, out)
				}
			}
		}
	}
}

func TestWhatIsNotASecretGoesThrough(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 300 {
		var b bytes.Buffer
		for range r.IntN(400) {
			switch r.IntN(6) {
			case 0:
				b.Write(secrets[0][:r.IntN(len(secrets[0]))])
			case 1:
				b.WriteString([]string{"%", `\u00`, `\`, "\r\n", "%4", "\n\n"}[r.IntN(6)])
			default:
				b.WriteByte(byte(r.IntN(256)))
			}
		}
		out := replaced(t, b.Bytes(), 1+r.IntN(40), func(*Hit) []byte { return nil })
		if !bytes.Equal(out, b.Bytes()) {
			t.Fatalf("%q became %q", b.Bytes(), out)
		}
	}
}

func TestBase64IsReplacedInPlace(t *testing.T) {
	other := strings.Repeat("o", len(secrets[0]))
	for _, around := range []string{"", "u", "us", "usr:"} {
		text := base64.StdEncoding.EncodeToString([]byte(around + string(secrets[0]) + ":p"))
		out := replaced(t, []byte(text), 5, func(h *Hit) []byte { return h.Instead(other) })
		plain, err := base64.StdEncoding.DecodeString(string(out))
		if err != nil || bytes.Contains(plain, secrets[0][1:len(secrets[0])-1]) || !strings.Contains(string(plain), other[1:len(other)-1]) {
			t.Errorf("after %q: %q, %v", around, plain, err)
		}
	}
}

func TestOnlyTheBeginningOfASecretIsHeldBack(t *testing.T) {
	s, err := NewSecrets(secrets)
	if err != nil {
		t.Fatal(err)
	}
	stream := NewStream(s, func(*Hit) ([]byte, error) { return nil, nil })
	for text, held := range map[string]int{
		"data: {\"a\":1}\n\n": 0, "data: abc\n\n": 0, "xx key-Zm9v": len("key-Zm9v"), "nothing here!": 0, "a %6": 2, `b \u00`: 4, "c ab12c": 5,
	} {
		if _, err := stream.Push([]byte(text), false); err != nil || stream.Held() != held {
			t.Errorf("%q: %d bytes are held, %v", text, stream.Held(), err)
		}
		if _, err := stream.Push(nil, true); err != nil {
			t.Fatal(err)
		}
	}
	part := base64.StdEncoding.EncodeToString(secrets[0])[:12]
	for range 100 {
		if _, err := stream.Push([]byte(part+strings.Repeat("\r", 5000)), false); err != nil || stream.Held() > maxHeld {
			t.Fatalf("%d bytes are held, %v", stream.Held(), err)
		}
	}
}

func TestAnErrorLetsNothingOfTheSecretOut(t *testing.T) {
	s, err := NewSecrets(secrets)
	if err != nil {
		t.Fatal(err)
	}
	stop := errors.New("stop")
	stream := NewStream(s, func(*Hit) ([]byte, error) { return nil, stop })
	var out []byte
	for _, c := range []byte("hello " + string(secrets[0]) + " and on") {
		part, err := stream.Push([]byte{c}, false)
		out = append(out, part...)
		if err != nil {
			if !errors.Is(err, stop) || string(out) != "hello " {
				t.Errorf("%q, %v", out, err)
			}
			return
		}
	}
	t.Error("it was not found")
}

func FuzzStream(f *testing.F) {
	f.Add([]byte("a key-Zm9vYmFyIGJhego7 b"), uint8(3))
	f.Add([]byte(`%6bey-Zm9v\u0059mFyIGJhego7`), uint8(1))
	f.Fuzz(func(t *testing.T, text []byte, n uint8) {
		if out := replaced(t, text, 1+int(n), func(*Hit) []byte { return nil }); !bytes.Equal(out, text) {
			t.Fatalf("%q became %q", text, out)
		}
		all := replaced(t, text, 1+len(text), func(*Hit) []byte { return []byte{} })
		cut := replaced(t, text, 1+int(n), func(*Hit) []byte { return []byte{} })
		if bytes.Contains(all, secrets[0]) && !bytes.Contains(text, secrets[0]) {
			return // what was left came together
		}
		if bytes.Contains(text, secrets[0]) && (len(all) == len(text) || len(cut) == len(text)) {
			t.Fatalf("not found in %q", text)
		}
	})
}

func benchText() []byte {
	var b bytes.Buffer
	for i := range 20000 {
		fmt.Fprintf(&b, `{"role":"user","content":"line %d of some text\nwith \"escapes\" and words in it, as there are in chats"},`, i)
	}
	return b.Bytes()
}

func BenchmarkStream(b *testing.B) {
	text := benchText()
	var many [][]byte
	for i := range 12 {
		many = append(many, fmt.Appendf(nil, "sk-ant-api03-%040d%d", i*7919, i))
	}
	s, err := NewSecrets(many)
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		stream := NewStream(s, func(*Hit) ([]byte, error) { return nil, nil })
		for at := 0; at < len(text); at += 32 << 10 {
			if _, err := stream.Push(text[at:min(at+32<<10, len(text))], false); err != nil {
				b.Fatal(err)
			}
		}
	}
}
