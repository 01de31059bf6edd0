package detect

import (
	"bufio"
	"encoding/base64"
	"fmt"
	"math/rand/v2"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const alnum = base62

// letters draws from an alphabet.
func letters(r *rand.Rand, alphabet string, n int) string {
	b := make([]byte, n)
	for i := range b {
		b[i] = alphabet[r.IntN(len(alphabet))]
	}
	return string(b)
}

// checked makes a token with a checksum.
func checked(r *rand.Rand, prefix string) string {
	body := letters(r, alnum, 30)
	return prefix + body + sum62(body)
}

// sum62 is the CRC-32 in base 62, written out once more: the tokens with known answers hold both.
func sum62(body string) string {
	crc := ^uint32(0)
	for i := range len(body) {
		crc ^= uint32(body[i])
		for range 8 {
			crc = crc>>1 ^ 0xedb88320*(crc&1)
		}
	}
	crc = ^crc
	out := ""
	for range 6 {
		out, crc = string(alnum[crc%62])+out, crc/62
	}
	return out
}

// tokens makes one of each kind, put together here so that no file has one.
func tokens(r *rand.Rand) map[string]string {
	url64 := alnum + "-_"
	b64 := base64.RawURLEncoding.EncodeToString
	key := func(kind string) string {
		return "-----BEGIN " + kind + "PRIVATE KEY-----\n" + letters(r, alnum+"+/", 64) + "\n" + letters(r, alnum+"+/", 64) + "\n-----END " + kind + "PRIVATE KEY-----"
	}
	return map[string]string{
		"aws": "AK" + "IA" + letters(r, "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", 16), "github": checked(r, "gh"+"p_"),
		"github-wrong": "gh" + "p_" + letters(r, alnum, 36), "github-fine": "github" + "_pat_" + letters(r, alnum, 22) + "_" + letters(r, alnum, 59),
		"gitlab": "glp" + "at-" + letters(r, url64, 20), "slack": "xo" + "xb-" + letters(r, "0123456789", 12) + "-" + letters(r, "0123456789", 12) + "-" + letters(r, alnum, 24),
		"slack-app": "xa" + "pp-1-A" + letters(r, "ABCDEFGHIJ0123456789", 10) + "-" + letters(r, "0123456789", 13) + "-" + letters(r, "abcdef0123456789", 64),
		"stripe":    "sk_" + "live_" + letters(r, alnum, 24), "stripe-restricted": "rk_" + "live_" + letters(r, alnum, 99),
		"google": "AI" + "za" + letters(r, url64, 34) + "x", "anthropic": "sk-" + "ant-api03-" + letters(r, url64, 93) + "AA",
		"openai": "sk-" + "proj-" + letters(r, url64, 74) + "T3Blbk" + "FJ" + letters(r, url64, 74), "npm": checked(r, "npm"+"_"), "npm-wrong": "npm" + "_" + letters(r, alnum, 36),
		"private": key("RSA "), "openssh": key("OPENSSH "), "private-json": strings.ReplaceAll(key(""), "\n", `\n`),
		"jwt": b64([]byte(`{"alg":"RS256","typ":"JWT"}`)) + "." + b64([]byte(`{"sub":"someone","iat":1700000000}`)) + "." + letters(r, url64, 86),
	}
}

func engineOf(o *Own) *Engine { return NewEngine(func() *Own { return o }) }

// example is one line of a corpus: rule is "" for one in which nothing is to be found.
type example struct{ rule, text string }

var (
	tokenOf = regexp.MustCompile(`\{([a-z-]+)\}`)
	charOf  = regexp.MustCompile(`\\u\{([0-9a-f]+)\}`)
)

func corpus(t testing.TB, name string, r *rand.Rand) (out []example) {
	t.Helper()
	f, err := os.Open("testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		line := lines.Text()
		if strings.HasPrefix(line, "#") {
			continue
		}
		rule, text, ok := strings.Cut(line, "\t")
		if !ok {
			t.Fatalf("%s: line %q has no tab", name, line)
		}
		made := tokens(r)
		text = tokenOf.ReplaceAllStringFunc(text, func(m string) string {
			if token, ok := made[m[1:len(m)-1]]; ok {
				return token
			}
			return m
		})
		text = charOf.ReplaceAllStringFunc(text, func(m string) string {
			n, err := strconv.ParseInt(m[3:len(m)-1], 16, 32)
			if err != nil {
				t.Fatal(err)
			}
			return string(rune(n))
		})
		if name == "secrets.txt" {
			text = strings.ReplaceAll(text, "~", "")
		}
		out = append(out, example{strings.TrimPrefix(rule, "-"), text})
	}
	return out
}

func rulesIn(found []Finding) (out []string) {
	for _, f := range found {
		out = append(out, f.Rule)
	}
	return out
}

// inPieces looks through a text in pieces of at most n bytes.
func inPieces(s *Scan, text string, n int) (found []Finding) {
	for len(text) > 0 {
		k := min(n, len(text))
		found = append(found, s.Push([]byte(text[:k]), false)...)
		text = text[k:]
	}
	return append(found, s.Push(nil, true)...)
}

func TestPrecisionAndRecallOnTheCorpus(t *testing.T) {
	e := NewEngine(nil)
	for _, c := range []struct {
		file string
		scan func() *Scan
	}{
		{"secrets.txt", func() *Scan { return e.Outgoing("elsewhere.test") }},
		{"injection.txt", e.Incoming},
	} {
		var good, missed, wrong int
		for seed := range uint64(20) { // other tokens each time
			for _, x := range corpus(t, c.file, rand.New(rand.NewPCG(seed, 7))) {
				for _, n := range []int{1 << 20, 64, 7, 1} {
					found := rulesIn(inPieces(c.scan(), "before, "+x.text+" and behind", n))
					switch {
					case x.rule == "" && len(found) == 0:
					case x.rule == "":
						wrong++
						t.Errorf("%s in pieces of %d: %q is taken for %v", c.file, n, x.text, found)
					case !slices.Contains(found, x.rule):
						missed++
						t.Errorf("%s in pieces of %d: %s is not found in %q, but %v", c.file, n, x.rule, x.text, found)
					default:
						good++
						wrong += len(found) - 1
					}
				}
			}
			if c.file == "injection.txt" {
				break // nothing in it is made anew
			}
		}
		t.Logf("%s: precision %.4f, recall %.4f (%d found, %d missed, %d wrong)", c.file,
			float64(good)/float64(good+wrong), float64(good)/float64(good+missed), good, missed, wrong)
	}
}

func TestAChecksumIsHeldTo(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for range 50 {
		token := checked(r, "gh"+"p_")
		if !githubChecksum(token) {
			t.Errorf("%q is refused", token)
		}
		other := token[:10] + "0" + token[11:]
		if other != token && githubChecksum(other) {
			t.Errorf("%q is accepted", other)
		}
	}
}

func TestASecretMayGoHome(t *testing.T) {
	made := tokens(rand.New(rand.NewPCG(1, 1)))
	e := NewEngine(nil)
	for name, host := range map[string]string{"github": "api.github.com", "anthropic": "api.anthropic.com", "google": "generativelanguage.googleapis.com"} {
		if found := e.Outgoing(host).Push([]byte("key "+made[name]), true); len(found) > 0 {
			t.Errorf("%s to %s: %v", name, host, found)
		}
		if found := e.Outgoing(host+".evil.test").Push([]byte("key "+made[name]), true); len(found) != 1 {
			t.Errorf("%s elsewhere: %v", name, found)
		}
	}
	if found := e.Outgoing("x.test").Header().Push([]byte("Bearer "+made["jwt"]), true); len(found) > 0 {
		t.Errorf("a sign-in of a site: %v", found)
	}
}

func TestTheOwnersSecretsAreFoundByTheirPieces(t *testing.T) {
	secret := "Tr0ub4dor&3-correct-horse-battery"
	o := NewOwn(map[string][]byte{"db": []byte(secret), "plain": []byte(strings.Repeat("a", 40)), "short": []byte("tiny")})
	e := NewEngine(func() *Own { return o })
	for _, text := range []string{secret, "x" + secret[3:25] + "y", strings.Repeat("text ", 5000) + secret[10:26]} {
		for _, n := range []int{1 << 20, 100, 3, 1} {
			found := inPieces(e.Outgoing("x.test"), text, n)
			if !slices.Contains(found, Finding{Detector: OwnSecrets, Rule: "db"}) {
				t.Errorf("in pieces of %d of %d bytes: %v", n, len(text), found)
			}
		}
	}
	for _, text := range []string{secret[:15], strings.Repeat("a", 100), "tiny", strings.Repeat("some other text, ", 1000)} {
		if found := inPieces(e.Outgoing("x.test"), text, 50); len(found) > 0 {
			t.Errorf("%.40q: %v", text, found)
		}
	}
	for at := range len(secret) - Window + 1 { // any piece, wherever it stands
		for before := range 20 {
			text := strings.Repeat("-", before) + secret[at:at+Window] + "."
			if found := e.Outgoing("x.test").Push([]byte(text), true); len(found) != 1 {
				t.Fatalf("%q: %v", text, found)
			}
		}
	}
	if text := fmt.Sprintf("%v %+v", o.exact, o.filters); strings.Contains(text, secret[:8]) {
		t.Error("the secret is in the hashes")
	}
}

func TestMemoryIsBounded(t *testing.T) {
	e := engineOf(NewOwn(map[string][]byte{"x": []byte("0123456789abcdefghijk")}))
	out, in := e.Outgoing("x.test"), e.Incoming()
	for range 3000 {
		out.Push([]byte(strings.Repeat("eyJh", 50)), false)
		in.Push([]byte(strings.Repeat("ignore ", 30)), false)
		if len(out.raw) > 8<<10 || len(in.words) > 8<<10 {
			t.Fatalf("%d and %d bytes are kept", len(out.raw), len(in.words))
		}
	}
}

func FuzzScan(f *testing.F) {
	f.Add([]byte("token gh"+"p_x, ignore all previous"), uint8(3))
	f.Add([]byte("0\xe9\xf7\x9300\xbc0\x9f0\x9000"), uint8('?')) // bytes that become three each
	e := engineOf(NewOwn(map[string][]byte{"x": []byte("0123456789abcdefghijk")}))
	f.Fuzz(func(t *testing.T, text []byte, n uint8) {
		for _, scan := range []func() *Scan{func() *Scan { return e.Outgoing("x.test") }, e.Incoming} {
			whole, cut := rulesIn(scan().Push(text, true)), rulesIn(inPieces(scan(), string(text), 1+int(n)))
			slices.Sort(whole)
			slices.Sort(cut)
			if !slices.Equal(whole, cut) {
				t.Fatalf("whole %v, in pieces %v", whole, cut)
			}
		}
	})
}

func benchmark(b *testing.B, scan func() *Scan) {
	var text strings.Builder
	for i := range 20000 {
		fmt.Fprintf(&text, `{"role":"user","content":"line %d of some text\nwith \"escapes\" and words in it, as there are in chats"},`, i)
	}
	all := []byte(text.String())
	b.SetBytes(int64(len(all)))
	for b.Loop() {
		s := scan()
		for at := 0; at < len(all); at += 32 << 10 {
			s.Push(all[at:min(at+32<<10, len(all))], false)
		}
	}
}

func BenchmarkOutgoing(b *testing.B) {
	e := engineOf(NewOwn(map[string][]byte{"x": []byte("0123456789abcdefghijk")}))
	benchmark(b, func() *Scan { return e.Outgoing("x.test") })
}

func BenchmarkIncoming(b *testing.B) {
	e := NewEngine(nil)
	benchmark(b, e.Incoming)
}
